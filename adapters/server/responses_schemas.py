"""Schemas of OpenAI's Responses API, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    model_validator,
)

from cmt_adapters.server.messages import Message, parse_message, system_turn
from cmt_adapters.server.openai_schemas import (
    MODEL,
    NO_TOOLS,
    PLAIN_TEXT_ONLY,
    AnswerRequest,
    Tokens,
    check_forms,
    is_forced,
)
from cmt_adapters.server.schemas import SourceValue
from cmt_adapters.validation_messages import FieldError

TOOL_RESULTS = (
    "function_call_output",
    "custom_tool_call_output",
    "local_shell_call_output",
    "shell_call_output",
)
NOT_KEPT = "responses are not stored here: leave it out, and send the whole conversation as `input`"


def _items(given: object) -> object:
    """Convert the items to messages; tool calls, reasoning and references become empty ones."""
    if isinstance(given, str):
        return [parse_message("user", given)]
    if not isinstance(given, list):
        raise ValueError("give a text, or a list of items")  # noqa: TRY004 - pydantic reports it as a fault of the field
    return [_item(item, n) for n, item in enumerate(given)]


def _item(item: object, number: int) -> Message:
    try:
        if not isinstance(item, dict):
            raise FieldError("", 'give an object, such as {"role": "user", "content": "…"}')  # noqa: TRY301
        if item.get("type") in TOOL_RESULTS:
            return parse_message("tool", item.get("output"))
        role = item.get("role")
        return (
            parse_message(role, item.get("content"))
            if isinstance(role, str)
            else parse_message("", None)
        )
    except FieldError as error:
        raise FieldError(f"[{number}].{error.field}".rstrip("."), str(error)) from error


ITEMS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}
Items = Annotated[list[Message], BeforeValidator(_items), WithJsonSchema(ITEMS)]


class ResponsesRequest(AnswerRequest):
    """A request for the next turn of a conversation. Other fields are ignored."""

    model: str | None = Field(None, description="Any name: there is one model.")
    input: Items = Field(
        description="A text, or the items of a conversation that ends with the user's."
    )
    instructions: str | None = Field(None, description="Instructions of the system.")
    stream: StrictBool | None = False
    max_output_tokens: Tokens = Field(
        None, description="Maximum tokens of the answer (256), up to 4,096."
    )
    text: dict[str, Any] | None = Field(None, description="Its `format` can only be text.")
    tool_choice: str | dict[str, Any] | None = Field(
        None, description="Tools are ignored; only `auto` and `none`."
    )
    previous_response_id: str | None = Field(None, description="Refused: answers are not stored.")
    conversation: str | dict[str, Any] | None = Field(
        None, description="Refused: conversations are not stored."
    )
    prompt: dict[str, Any] | None = Field(None, description="Refused: there are no stored prompts.")
    background: StrictBool | None = Field(None, description="Refused where true.")
    top_logprobs: int | None = Field(None, description="There are none.")

    @model_validator(mode="after")
    def _can_be_done(self) -> ResponsesRequest:
        """Refuse options that the server does not support."""
        form = (self.text or {}).get("format")
        check_forms(
            {
                "previous_response_id": self.previous_response_id is not None and NOT_KEPT,
                "conversation": self.conversation is not None and NOT_KEPT,
                "prompt": (
                    self.prompt is not None
                    and "no prompts are stored here: send the words as `instructions`"
                ),
                "background": bool(self.background) and NOT_KEPT,
                "text.format": (
                    isinstance(form, dict)
                    and form.get("type", "text") != "text"
                    and PLAIN_TEXT_ONLY
                ),
                "tool_choice": is_forced(self.tool_choice) and NO_TOOLS,
                "top_logprobs": bool(self.top_logprobs) and "there are none: leave it out",
            }
        )
        return self

    def options(self) -> dict[str, Any]:
        """Return question, history and options. See `AnswerRequest.reading`."""
        options = self.reading(self.input, self.max_output_tokens, "input")
        if self.instructions:
            options["history"] = [system_turn(self.instructions), *options["history"]]
        return options


class OutputText(BaseModel):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(BaseModel):
    """The one message of an answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class InputDetails(BaseModel):
    """Details of input tokens; nothing is cached between requests."""

    cached_tokens: int = 0


class OutputDetails(BaseModel):
    """Details of output tokens; the model writes no reasoning."""

    reasoning_tokens: int = 0


class ResponsesUsage(BaseModel):
    """Token counts; `memory_tokens` counts sources that were read from memory, not as text."""

    input_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int
    memory_tokens: int


class ResponseObject(BaseModel):
    """An answer with its sources. It is not stored."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    error: None = None
    incomplete_details: dict[str, str] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    model: str = MODEL
    output: list[OutputMessage]
    parallel_tool_calls: bool = False
    previous_response_id: None = None
    reasoning: dict[str, Any] | None = None
    store: bool = False
    temperature: float | None = None
    text: dict[str, Any] = {"format": {"type": "text"}}
    tool_choice: str = "auto"
    tools: list[Any] = []
    top_p: float | None = None
    truncation: str = "disabled"
    usage: ResponsesUsage | None = None
    user: str | None = None
    metadata: dict[str, Any] = {}
    sources: list[SourceValue] = []


class StreamEvent(BaseModel):
    """An event of a stream: its type, its number, and the fields of the type."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: int
