"""Generating: a generator writes the answer from the passages that were found. No torch, no SQL.

It reads their text, each with its day, and the whole recent conversation. It tells no
probabilities: confidence is the share that the places of its words leave, and 0 where it says that
it does not know.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace

from cmt_sdk import ports
from cmt_sdk.answering.answerer import TracedAnswer
from cmt_sdk.answering.asking import Ask
from cmt_sdk.retrieval.context import recent_turns
from cmt_sdk.retrieval.ranking import gap_nats
from cmt_sdk.text import generator_messages
from cmt_sdk.text.characters import clean_text
from cmt_sdk.text.generator_messages import Note
from cmt_sdk.text.prompt_messages import abstains
from cmt_sdk.text.provenance import Trace, first_of, repeats, trace_answer, trust
from cmt_sdk.text.rendering import render_passage
from cmt_sdk.types import DAYS, Match, Turn
from cmt_sdk.understanding import newest

# A note goes with a message that asks for nothing if it is near it in meaning or shares words.
NEAR = 0.25  # cosine
WORDS = 1.0  # BM25
SYSTEM_CHARACTERS = 6_000  # characters of a system prompt that a generator reads


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes with a generator."""

    generator: ports.ChatGenerator

    def answer(self, ask: Ask, matches: Sequence[Match]) -> Generator[str, None, TracedAnswer]:
        """Answer a question from matches, best first, those that others supersede included."""
        history = recent_turns(ask.history or (), SYSTEM_CHARACTERS)
        if ask.reader == "none":
            return self._written(
                ask, generator_messages.bare(ask.question, history), "none", [], []
            )
        messages = generator_messages.answering(ask.question, _notes(matches), history, _today())
        return self._written(ask, messages, "text", matches, history)

    def reply(
        self, ask: Ask, matches: Sequence[Match], *, kept: bool, keeps: bool
    ) -> Generator[str, None, TracedAnswer]:
        """Reply to a turn of a conversation; see `generator_messages.talking`."""
        history = recent_turns(ask.history or (), SYSTEM_CHARACTERS)
        messages = generator_messages.talking(
            ask.question, _notes(matches), history, _today(), kept=kept, keeps=keeps
        )
        return self._written(ask, messages, "text", matches, history)

    def _written(
        self,
        ask: Ask,
        messages: Sequence[dict[str, str]],
        kind: str,
        matches: Sequence[Match],
        history: Sequence[Turn],
    ) -> Generator[str, None, TracedAnswer]:
        pieces = []
        usage = None
        for piece in self.generator.write(messages, ask.max_tokens):
            usage = piece.usage
            if usage is None:
                pieces.append(clean_text(piece.text))
                yield pieces[-1]
        assert usage is not None  # noqa: S101 - the port says that the last piece has it
        text = "".join(pieces)
        if kind == "none" or abstains(text):
            sure = replace(usage, confidence=float(kind == "none"))
            return TracedAnswer(text, sure, kind, matches, [Trace()] * len(matches), 1.0, 0.0)
        read = [(m.passage.heading, m.passage.text) for m in matches]
        spoken = [("", turn.content) for turn in history]
        places = trace_answer(ask.question, text, [*read, *spoken])
        found = places[: len(matches)]
        first = first_of(found)
        far = 0.0 if first is None else gap_nats([m.likelihood for m in matches], first)
        share = trust(places, far, echoes=repeats(ask.question, text)) if places else 1.0
        return TracedAnswer(text, usage, kind, matches, found, share, far)


def reminders(matches: Iterable[Match], kept: str | None) -> list[Match]:
    """The matches that a message which asks for nothing calls to mind, without its own document."""
    return [
        m
        for m in matches
        if m.document.id != kept
        and ((m.vector_score or 0.0) >= NEAR or (m.text_score or 0.0) >= WORDS)
    ]


def _notes(matches: Sequence[Match]) -> list[Note]:
    """The notes as they are read: statements as they were made, so that of one day the last one is
    the latest; else the best one last, because a model reads best what is nearest to the question.
    """
    spoken = all(newest.is_statement(m) for m in matches)
    ordered = sorted(matches, key=newest.stated_at) if spoken else reversed(matches)
    return [
        Note(
            render_passage(m.passage),
            _time(m),
            m.document.source or "",
            str(m.document.metadata.get(DAYS) or ""),
            m.superseded_by is not None,
        )
        for m in ordered
    ]


def _time(match: Match) -> str:
    """The day of a passage; of a statement the minute too, unless it names a day."""
    moment = match.document.updated_at
    if moment is None or match.date or not newest.is_statement(match):
        return newest.stated_at(match)[0]
    return moment.astimezone().isoformat(" ", "minutes")[:16]


def _today() -> str:
    return dt.datetime.now().astimezone().date().isoformat()
