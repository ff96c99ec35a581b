"""Schemas of OpenAI's models, chat completions and embeddings, as pydantic models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from cmt_adapters.server.messages import Message, parse_message, split_question
from cmt_adapters.server.schemas import NamedScope, Reader, SourceValue, Text
from cmt_adapters.server.users import USERS_SCOPE, user_scope, validate_name
from cmt_adapters.validation_messages import FieldError

MODEL = "cmt"
Finish = Literal["stop", "length"]
DEFAULT_ANSWER_TOKENS = 256
MAX_ANSWER_TOKENS = 4096
MAX_STOPS = 4
FREE_CHOICES = (None, "auto", "none")
PLAIN_TEXT_ONLY = "the model answers in plain text: leave it out"


def clamp_tokens(value: object) -> object:
    """Limit a number of tokens to the maximum; None for -1 and 0, which clients use for no limit.

    A value that is not a number is returned unchanged, for pydantic to reject.
    """
    if isinstance(value, str) and value.strip().lstrip("+-").isdigit() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        return value
    return int(min(value, MAX_ANSWER_TOKENS)) if value >= 1 else None


def _stops(given: object) -> object:
    stops = [given] if isinstance(given, str) else given
    if stops is not None and not (
        isinstance(stops, list) and all(isinstance(s, str) for s in stops)
    ):
        raise ValueError(f"give a text, or a list of up to {MAX_STOPS}")
    if stops and len(stops) > MAX_STOPS:
        raise ValueError(f"there are {len(stops)} texts, the limit is {MAX_STOPS}: give fewer")
    return [s for s in stops or () if s]


def _metadata(given: object) -> object:
    """Check the user_id in the metadata of a request."""
    if isinstance(given, dict):
        try:
            validate_name(given.get("user_id"))
        except ValueError as error:
            raise FieldError("user_id", str(error)) from error
    return given


def _message(given: object) -> object:
    if not isinstance(given, dict) or not isinstance(given.get("role"), str):
        raise FieldError(
            "", 'give an object with a role and a content, such as {"role": "user", "content": "…"}'
        )
    return parse_message(
        given["role"], given.get("refusal") if given.get("content") is None else given["content"]
    )


MESSAGE_SCHEMA = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {
            "type": "string",
            "description": "`system`, `developer`, `user`, `assistant` or `tool`.",
        },
        "content": {
            "description": (
                "A text, or a list of parts. Parts that are not text are read as a mark, such as"
                " [picture]."
            )
        },
    },
}
Content = Annotated[Message, BeforeValidator(_message), WithJsonSchema(MESSAGE_SCHEMA)]
OPTIONAL_INTEGER = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
Tokens = Annotated[int | None, BeforeValidator(clamp_tokens), WithJsonSchema(OPTIONAL_INTEGER)]
Stops = Annotated[
    list[str],
    BeforeValidator(_stops),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOPS},
                {"type": "null"},
            ]
        }
    ),
]
Name = Annotated[
    str | None,
    BeforeValidator(validate_name),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": 200}, {"type": "null"}]}),
]


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: StrictBool | None = False


class AnswerRequest(BaseModel):
    """The fields of a request for an answer that name its user and its options."""

    user: Name = Field(
        None,
        description='The user; limits the memory to the scope "user/<user>". Left out: no user.',
    )
    safety_identifier: Name = Field(None, description="The user, if `user` is left out.")
    metadata: Annotated[dict[str, Any] | None, BeforeValidator(_metadata)] = Field(
        None, description="`user_id` names the user if no other field does."
    )
    k: int | None = Field(None, ge=1, le=100, description="Passages to read (5).")
    reader: Reader = Field("memory", description="The reader of the model; see /api/ask.")
    scope: NamedScope | None = Field(None, description="The scope, instead of that of `user`.")
    remember: StrictBool | None = Field(
        None,
        description=(
            "Whether to store the facts that the user states, in the scope (default: as the server"
            " is set)."
        ),
    )

    @property
    def named(self) -> str | None:
        """Return the user's name in the body.

        `prompt_cache_key` does not count: it names the cache of an application or a conversation.
        """
        return (
            self.user
            or self.safety_identifier
            or validate_name((self.metadata or {}).get("user_id"))
        )

    @property
    def within(self) -> str:
        """Return the scope to store in."""
        return self.scope or (user_scope(self.user) if self.user else "")

    def reading(
        self, messages: Sequence[Message], max_tokens: int | None, field: str = "messages"
    ) -> dict[str, Any]:
        """Return question, history and options for `ModelQueue.replies`.

        Args:
            messages: The conversation.
            max_tokens: Maximum tokens of the answer; None means the default.
            field: The name of the field that holds the messages, for error messages.

        Raises:
            InvalidInput: The conversation does not end with a question.
        """
        question, history = split_question(messages, field)
        scope = {"scope": self.within} if self.within else {"outside": USERS_SCOPE}
        return {
            "question": question,
            "history": history,
            "k": self.k,
            "reader": self.reader,
            "max_tokens": max_tokens or DEFAULT_ANSWER_TOKENS,
            **scope,
        }


class ChatRequest(AnswerRequest):
    """A request for the next turn of a conversation. Other fields are ignored."""

    model: str = Field(description="Any name: there is one model.")
    messages: Annotated[list[Content], Field(min_length=1)]
    stream: StrictBool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, description="There is one answer.")
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = Field(
        None, description="Maximum tokens of the answer (256), up to 4,096."
    )
    stop: Stops = Field([], description="Up to four texts that end the answer before them.")
    response_format: dict[str, Any] | None = Field(None, description='Only {"type": "text"}.')
    tool_choice: str | dict[str, Any] | None = Field(
        None, description="Tools are ignored; only `auto` and `none`."
    )
    function_call: str | dict[str, Any] | None = Field(None, description="As `tool_choice`.")
    modalities: list[str] | None = Field(None, description="Only text.")
    logprobs: StrictBool | None = Field(None, description="There are none.")

    @model_validator(mode="after")
    def _can_be_done(self) -> ChatRequest:
        """Refuse options that would change the form of the answer."""
        check_forms(
            {
                "n": (
                    self.n not in (None, 1)
                    and "there is one answer: leave it out, and ask again for another"
                ),
                "response_format": (
                    (self.response_format or {}).get("type", "text") != "text" and PLAIN_TEXT_ONLY
                ),
                "tool_choice": is_forced(self.tool_choice) and NO_TOOLS,
                "function_call": is_forced(self.function_call) and NO_TOOLS,
                "modalities": set(self.modalities or ["text"]) != {"text"} and PLAIN_TEXT_ONLY,
                "logprobs": bool(self.logprobs) and "there are none: leave it out",
            }
        )
        return self

    def options(self) -> dict[str, Any]:
        """Return question, history and options. See `reading`."""
        return self.reading(self.messages, self.max_completion_tokens or self.max_tokens)


NO_TOOLS = 'the model calls no tools: leave it out, or give "auto" or "none"'


def is_forced(choice: object) -> bool:
    """Return whether a tool choice requires a tool."""
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        choice = (allowed if isinstance(allowed, dict) else choice).get("mode", "auto")
    return choice not in FREE_CHOICES


def check_forms(refused: dict[str, str | bool]) -> None:
    """Raise ValueError for the first field that has a reason to be refused."""
    for name, reason in refused.items():
        if reason:
            raise FieldError(name, str(reason))


def _texts(given: object) -> object:
    """Check texts to embed; OpenAI's clients may send token ids, which belong to another model."""
    some = given if isinstance(given, list) else [given]
    if any(isinstance(item, int | list) and not isinstance(item, bool) for item in some):
        raise ValueError(
            "these are token ids of another model: send texts (LangChain:"
            " OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    return some


TEXT_LIST = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2048}
Texts = Annotated[
    list[Text],
    BeforeValidator(_texts),
    Field(min_length=1, max_length=2048),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, TEXT_LIST]}),
]


class EmbeddingRequest(BaseModel):
    """Texts to embed, up to 2,048."""

    model: str = Field(description="Any name: there is one model.")
    input: Texts
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1, description="Only the dimension of the model.")
    user: str | None = None


class Model(BaseModel):
    """A model."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "cmt-sdk"


class Models(BaseModel):
    """The one model."""

    object: Literal["list"] = "list"
    data: list[Model]


class Usage(BaseModel):
    """Token counts; `memory_tokens` counts sources that were read from memory, not as text."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    memory_tokens: int


class AssistantMessage(BaseModel):
    """The answer's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Finish


class Completion(BaseModel):
    """An answer with its sources."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str = MODEL
    choices: list[Choice]
    usage: Usage
    sources: list[SourceValue]


class Delta(BaseModel):
    """The part of the message that a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one answer, as it grows."""

    index: int
    delta: Delta
    finish_reason: Finish | None


class Chunk(BaseModel):
    """A piece of a streamed answer. The last has the sources; if requested, usage follows."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    sources: list[SourceValue] | None = None


class Embedding(BaseModel):
    """One vector of length 1: numbers, or the base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Token counts, estimated as one per four characters."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """One vector for each text, in their order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = MODEL
    usage: EmbeddingUsage
