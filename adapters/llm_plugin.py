"""A plugin for `llm`: memories as models; `cmt` is the default memory, `cmt/<name>` the others.

    cmt add ~/notes
    llm -m cmt "When did we change the oil?"
    llm -m cmt/work "Who leads the harbour project?" -o k 8 -o reader auto -o scope user/ann
    llm -c "And when does it end?"
    llm logs -c --json    # sources, confidence and costs are in response_json
    llm.get_model("cmt").prompt("When did we change the oil?").json()["sources"]

The memory's own model answers from the stored documents; `llm chat -m cmt` keeps it loaded. The
plugin stores nothing.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any

import cmt_sdk
from cmt_sdk.errors import InvalidInput
from cmt_sdk.system.extras import unusable

try:
    import llm
    from pydantic import Field
except ImportError as error:
    raise unusable("the plugin for llm", "llm", error) from error

# fields of an Answer that llm stores in its own columns
LLM_FIELDS = ("text", "prompt_tokens", "answer_tokens")


class CMTModel(llm.Model):
    """A memory as a model of llm; memory and model are loaded for the first question."""

    can_stream = True

    class Options(llm.Options):
        """Options of a question. See `MemoryModel.ask`."""

        k: int | None = Field(description="Passages to read (5).", default=None, ge=1)
        budget: int | None = Field(
            description="Read as many passages as fit in this many tokens.", default=None, ge=1
        )
        reader: cmt_sdk.ReaderKind = Field(
            description=(
                "memory: read compressed passages; text: read their text; auto: read the text if"
                " the answer from memory is unsure; none: read nothing."
            ),
            default="memory",
        )
        max_tokens: int = Field(description="Maximum tokens of the answer.", default=64, ge=1)
        scope: str | None = Field(
            description="Only this scope and the scopes below it.", default=None
        )
        source: str | None = Field(description="Only this source; * is a wildcard.", default=None)

    def __init__(self, name: str | None = None) -> None:
        self.model_id = f"cmt/{name}" if name else "cmt"
        self._name = name

    @cached_property
    def memory(self) -> cmt_sdk.Memory:
        """Open the memory. Raises MemoryNotFound if it does not exist."""
        memory = cmt_sdk.open(cmt_sdk.memory_path(self._name), create=False)
        weakref.finalize(self, memory.close)
        return memory

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response | llm.AsyncResponse,
        conversation: (llm.Conversation | llm.AsyncConversation | None),  # noqa: ARG002 - the prompt's messages hold it
    ) -> Iterator[str]:
        """Yield the answer to the user's last message; earlier messages are the history.

        Raises:
            InvalidInput: The last message is not the user's.
        """
        *history, question = _turns(prompt) or [cmt_sdk.Turn("user", "")]
        if question.role != "user":
            raise InvalidInput(f"the last message is of the role {question.role}: ask a question")
        options = prompt.options.model_dump()
        options["scope"] = options["scope"] or ""
        chat = self.memory.chat(turns=history, **options)
        running = chat.stream(question.content)
        yield from running if stream else [running.answer.text]
        answer = running.answer
        response.response_json = {
            name: value for name, value in asdict(answer).items() if name not in LLM_FIELDS
        }
        response.set_usage(input=answer.prompt_tokens, output=answer.answer_tokens)
        response.set_resolved_model(self.memory.settings.model)


class CMTAsyncModel(llm.AsyncModel):
    """The same model for llm's async calls; the answer is generated in a thread."""

    can_stream = True

    class Options(CMTModel.Options):
        """Options of a question. See `MemoryModel.ask`."""

    def __init__(self, model: CMTModel) -> None:
        self.model_id = model.model_id
        self._model = model

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: llm.AsyncConversation | None,
    ) -> AsyncGenerator[str, None]:
        """Yield the answer. See CMTModel.execute."""
        pieces = self._model.execute(prompt, stream, response, conversation)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece


@llm.hookimpl
def register_models(register: Callable[[llm.Model, llm.AsyncModel], Any]) -> None:
    """Register the default memory, even if it does not exist yet, and every named memory."""
    for name in (None, *_names()):
        model = CMTModel(name)
        register(model, CMTAsyncModel(model))


def _names() -> list[str]:
    """Return the names of the memories in the data folder; none if it cannot be read."""
    try:
        folders = [f.name for f in cmt_sdk.data_dir().iterdir() if f.is_dir()]
    except OSError:
        return []
    return sorted(name for name in folders if name != "default" and not name.startswith("."))


def _turns(prompt: llm.Prompt) -> list[cmt_sdk.Turn]:
    """Return the complete conversation as turns; messages without text are left out."""
    messages = [
        (m.role, "\n".join(p.text for p in m.parts if isinstance(p, llm.parts.TextPart)))
        for m in prompt.messages
    ]
    return [cmt_sdk.Turn(role, text) for role, text in messages if text.strip()]
