"""Chat: a conversation over a memory; earlier turns are part of each question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cmt_sdk.model import MemoryModel
from cmt_sdk.types import Answer, Turn

TURNS_KEPT = 24


class Chat:
    """A conversation. `turns` holds all of it; the last `TURNS_KEPT` turns go with each question.

    `last` is the last answer, with its sources.
    `on_turn` is called with every finished turn (Memory.chat uses it to remember what was said).
    """

    def __init__(self, model: MemoryModel, options: Mapping[str, Any], on_turn: Callable[[Turn], None] | None = None) -> None:
        self._model = model
        self._options = dict(options)
        self._on_turn = on_turn
        self.turns: list[Turn] = []
        self.last: Answer | None = None

    def say(self, text: str) -> Answer:
        """Say something and get the answer; options as for `MemoryModel.ask`."""
        answer: Answer = self._model.ask(text, history=self.turns[-TURNS_KEPT:], **self._options)
        self._keep(text, answer)
        return answer

    def stream(self, text: str) -> Iterator[str]:
        """Say something and get the answer in pieces, as it comes."""
        running = self._model.ask(text, stream=True, history=self.turns[-TURNS_KEPT:], **self._options)
        yield from running
        self._keep(text, running.answer)

    def _keep(self, question: str, answer: Answer) -> None:
        self.last = answer
        for turn in (Turn("user", question), Turn("assistant", answer.text)):
            self.turns.append(turn)
            if self._on_turn is not None:
                self._on_turn(turn)
