"""A plugin for `llm`: memories as models, `cmt` for the default one and `cmt/<name>` for the
others. Knows no storage.

    cmt add ~/notes
    llm -m cmt "When did we change the oil?"
    llm -m cmt/work "Who leads the harbour project?" -o k 8 -o reader auto -o scope user/ann
    llm -c "And when does it end?"
    llm logs -c --json    # sources, confidence and costs are in response_json
    llm.get_model("cmt").prompt("When did we change the oil?").json()["sources"]

It answers with the memory's own model from what was added; `llm chat -m cmt` keeps it loaded.
Nothing is remembered.
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
from cmt_sdk.extras import unusable

try:
    import llm
    from pydantic import Field
except ImportError as error:
    raise unusable("the plugin for llm", "llm", error) from error

# of an Answer: llm has places of its own for these
KEPT_APART = ("text", "prompt_tokens", "answer_tokens")


class CMTModel(llm.Model):
    """A memory that answers, as a model of llm; it is opened, and its model loaded, at the first
    question.
    """

    can_stream = True

    class Options(llm.Options):
        """How a question is answered; see `MemoryModel.ask`."""

        k: int | None = Field(description="Passages to read (5).", default=None, ge=1)
        budget: int | None = Field(
            description="As many passages as fit in so many tokens.", default=None, ge=1
        )
        reader: cmt_sdk.ReaderKind = Field(
            description=(
                "What the model reads: memories; the passages' text; text where memory leaves it"
                " unsure; nothing."
            ),
            default="memory",
        )
        max_tokens: int = Field(description="The longest answer, in tokens.", default=64, ge=1)
        scope: str | None = Field(
            description="Only this scope, with everything beneath it.", default=None
        )
        source: str | None = Field(description="Only this source; * is a wildcard.", default=None)

    def __init__(self, name: str | None = None) -> None:
        self.model_id = f"cmt/{name}" if name else "cmt"
        self._name = name

    @cached_property
    def memory(self) -> cmt_sdk.Memory:
        """The memory, which is there already. Raises MemoryNotFound."""
        memory = cmt_sdk.open(cmt_sdk.memory_path(self._name), create=False)
        weakref.finalize(self, memory.close)
        return memory

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response | llm.AsyncResponse,
        conversation: (llm.Conversation | llm.AsyncConversation | None),  # noqa: ARG002 - all of it is in the prompt's messages
    ) -> Iterator[str]:
        """Answer the last thing that the user says, as it comes; what was said before is
        history.
        """
        *history, asked = _turns(prompt) or [cmt_sdk.Turn("user", "")]
        if asked.role != "user":
            raise InvalidInput(f"the last message is of the role {asked.role}: ask a question")
        options = prompt.options.model_dump()
        options["scope"] = options["scope"] or ""
        running = self.memory.chat(turns=history, **options).stream(asked.content)
        yield from running if stream else [running.answer.text]
        answer = running.answer
        response.response_json = {
            name: value for name, value in asdict(answer).items() if name not in KEPT_APART
        }
        response.set_usage(input=answer.prompt_tokens, output=answer.answer_tokens)
        response.set_resolved_model(self.memory.settings.model)


class CMTAsyncModel(llm.AsyncModel):
    """The same model for llm's async calls: the pieces come from a thread."""

    can_stream = True

    class Options(CMTModel.Options):
        """How a question is answered; see `MemoryModel.ask`."""

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
        """See CMTModel.execute."""
        pieces = self._model.execute(prompt, stream, response, conversation)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece


@llm.hookimpl
def register_models(register: Callable[[llm.Model, llm.AsyncModel], Any]) -> None:
    """The default memory, which may yet have to be made, and every memory with a name."""
    for name in (None, *_names()):
        model = CMTModel(name)
        register(model, CMTAsyncModel(model))


def _names() -> list[str]:
    """The folders in the home of memories; none where it cannot be read, since llm has other models
    to offer.
    """
    try:
        folders = [f.name for f in cmt_sdk.data_dir().iterdir() if f.is_dir()]
    except OSError:
        return []
    return sorted(name for name in folders if name != "default" and not name.startswith("."))


def _turns(prompt: llm.Prompt) -> list[cmt_sdk.Turn]:
    """What was said, as turns; llm gives the whole conversation. Messages without text are left
    out.
    """
    said = [
        (m.role, "\n".join(p.text for p in m.parts if isinstance(p, llm.parts.TextPart)))
        for m in prompt.messages
    ]
    return [cmt_sdk.Turn(role, text) for role, text in said if text.strip()]
