"""Answering: reads passages and checks that the answer stands. No torch, no SQL in here."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from cmt_sdk.answering.asking import Ask, FoundAsk
from cmt_sdk.answering.renewing import OlderAnswer, Renewer, oldest_holder
from cmt_sdk.retrieval.context import recent_turns
from cmt_sdk.retrieval.ranking import gap_nats
from cmt_sdk.retrieval.retriever import Retriever
from cmt_sdk.text.notation import in_notation_of
from cmt_sdk.text.prompt_messages import abstains
from cmt_sdk.text.provenance import Trace, first_of, repeats, trace_answer, trust, words_of
from cmt_sdk.text.rendering import render_passage
from cmt_sdk.text.words.dates import dates
from cmt_sdk.text.words.folding import legible
from cmt_sdk.types import CopiedTexts, Match, Passage, Piece, Prompt, Usage, is_poor
from cmt_sdk.understanding import newest

CONFIDENT = 0.6  # confidence from which `reader="auto"` does not look the text up
# If the answer's passage fits the question worse than the best one by this many nats, the best one
# is read again alone. Of 58 questions about 40 everyday notes 3 were, of 100
# about SQuAD one (F1 there 64.7 to 65.7). Read again from 0 nats on, 7 and 7 were: F1 fell from
# 65.0 to 59.6 on the notes, because good answers were given up.
REREAD_GAP_NATS = 8.0
# An answer from several passages that has this probability is not given up where the best one alone
# does not tell. Of the questions of examples/conversations seven of eight such answers were right;
# of the 300 of examples/notes100 two more are right by giving all of them up.
PROBABLE = 0.55
HELD_PIECES = 12  # tokens that are held back before streaming starts where the answer may change
# A value that a newer note may replace has fewer words and tokens; each digit is a token.
VALUE_WORDS = 12
VALUE_PIECES = 40
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TracedAnswer:
    """An answer, the passages that it was read from, and the places of its words in them.

    `trust`, in [0, 1], is the share of the confidence that these places leave. `gap_nats` is by how
    many nats the passage that holds the answer fits the question less than the best one. `older`
    are the matches that the passage of the answer supersedes.
    """

    text: str
    usage: Usage
    kind: str
    matches: Sequence[Match]
    found: Sequence[Trace]
    trust: float
    gap_nats: float
    older: Sequence[Match] = ()

    @property
    def confidence(self) -> float:
        """The confidence of the reader, times `trust`."""
        return self.usage.confidence * self.trust

    @property
    def probability(self) -> float:
        """The probability of the answer; for "I don't know" that of not knowing."""
        return 1.0 - self.confidence if abstains(self.text) else self.confidence


class Answerer:
    """Reads passages with the readers that a question names.

    Every call adds the milliseconds of its stages to `times`.

    Args:
        retriever: Finds passages; its engine reads.
        copy_margin: An answer from compressed passages is copied from their texts, which are
            looked up for output only, within this margin in nats (types.CopiedTexts); None: it is
            free.
    """

    def __init__(self, retriever: Retriever, *, copy_margin: float | None = None) -> None:
        self._retriever = retriever
        self._copy_margin = copy_margin
        self._renewer = Renewer(retriever)

    def read_best_first(
        self,
        ask: FoundAsk,
        matches: Sequence[Match],
        older: Sequence[Match],
        times: dict[str, float],
    ) -> TracedAnswer:
        """Read the best passage alone; if it does not answer, all that are not superseded; then
        all.

        Of a superseded value and the newer ones the newest is best, and these fit the question
        best: others need not be read.
        """
        every = sorted([*matches, *older], key=lambda m: m.superseded_by is None)
        answer = self._read_as_asked(ask, matches[:1], times)
        for read, more in pairwise((matches[:1], matches, every)):
            if not abstains(answer.text):
                break
            if len(more) == len(read):
                continue
            again = self._read_as_asked(ask, more, times)
            answer = replace(again, usage=answer.usage.followed_by(again.usage))
        return answer

    def _read_as_asked(
        self, ask: FoundAsk, matches: Sequence[Match], times: dict[str, float]
    ) -> TracedAnswer:
        if ask.reader == "auto":
            return self._read_memory_then_text(ask, matches, times)
        return self._read_and_check(ask, ask.reader, matches, times)

    def _read_and_check(
        self, ask: FoundAsk, kind: str, matches: Sequence[Match], times: dict[str, float]
    ) -> TracedAnswer:
        text, usage = self._read_to_end(ask, kind, matches, times)
        answer = traced_answer(ask, kind, matches, text, usage)
        return self._reread_best_alone(ask, answer, matches, times)

    def stream(
        self, ask: FoundAsk, matches: Sequence[Match], times: dict[str, float]
    ) -> Generator[str, None, TracedAnswer]:
        """Read and yield the pieces. A short answer that may be read again is held back until it
        stands.
        """
        pieces: list[str] = []
        usage: Usage | None = None
        may_be_read_again = _is_note_among_others(matches) or any(
            _gap_nats(matches, n) >= REREAD_GAP_NATS for n in range(len(matches))
        )
        held = HELD_PIECES if may_be_read_again else 1
        may_be_renewed = _has_several_short(matches)
        is_shown = False
        for piece in self._stream(ask, ask.reader, matches, times):
            usage = piece.usage
            if usage is None:
                pieces.append(piece.text)
                if is_shown:
                    yield piece.text
                elif len(pieces) >= held and not (may_be_renewed and _may_be_a_value(pieces)):
                    is_shown = True
                    yield from pieces
        read = traced_answer(ask, ask.reader, matches, "".join(pieces), usage)
        if is_shown:
            return read
        answer = self._reread_best_alone(ask, read, matches, times)
        answer = self._renew_if_outdated(ask, answer, times)
        yield from pieces if answer.text == read.text else [answer.text]
        return answer

    def _reread_best_alone(
        self, ask: FoundAsk, answer: TracedAnswer, matches: Sequence[Match], times: dict[str, float]
    ) -> TracedAnswer:
        """The answer, or one from the best passage alone if that is more probable.

        The best passage is read again if it is a short note among others, whose words small models
        mix up, or if the words of the answer stand only in one that fits the question far less. A
        probable answer is not given up for "I don't know.": a note alone often leaves out what the
        others make clear.
        """
        is_far = answer.gap_nats >= REREAD_GAP_NATS and not abstains(answer.text)
        if not (is_far or _is_note_among_others(matches)):
            return answer
        text, usage = self._read_to_end(ask, answer.kind, matches[:1], times)
        again = traced_answer(ask, answer.kind, matches, text, answer.usage.followed_by(usage))
        gives_up = abstains(again.text) and answer.probability >= PROBABLE
        if again.probability > answer.probability and not gives_up:
            return again
        return replace(answer, usage=usage.followed_by(answer.usage))

    def read_auto(
        self, ask: FoundAsk, matches: Sequence[Match], times: dict[str, float]
    ) -> TracedAnswer:
        """Read compressed passages, then text where needed, and renew the answer."""
        return self._renew_if_outdated(ask, self._read_memory_then_text(ask, matches, times), times)

    def _renew_if_outdated(
        self, ask: FoundAsk, answer: TracedAnswer, times: dict[str, float]
    ) -> TracedAnswer:
        """The answer, or the words of a newer note that states a newer value of it.

        Only what was stated in a conversation is renewed. A question that asks for what was before,
        or names its date, keeps its answer.
        """
        if not any(map(newest.is_statement, answer.matches)):
            return answer
        if newest.asks_for_before(ask.question) or dates(ask.question):
            return answer
        older_answer = self._older_answer(ask, answer, times)
        if older_answer is None:
            return answer
        prompt = _prompt(ask, answer.matches)
        found = timed(
            times,
            "newest",
            lambda: self._renewer.renewal(ask, prompt, older_answer, answer.matches),
        )
        if found is None:
            return answer
        moved = {found.newer.passage.id, found.older.passage.id}
        matches = [found.newer, *(m for m in answer.matches if m.passage.id not in moved)]
        usage = replace(answer.usage, confidence=found.confidence, answer_tokens=found.tokens)
        older = replace(found.older, superseded_by=found.newer.document.id)
        renewed = traced_answer(ask, answer.kind, matches, found.text, usage)
        return replace(renewed, older=[older])

    def _older_answer(
        self, ask: FoundAsk, answer: TracedAnswer, times: dict[str, float]
    ) -> OlderAnswer | None:
        """The answer that a newer note may renew: the one that was read, or for "I don't know."
        that of an older note which the best one supersedes; None without one.

        "I moved to Galway." alone does not tell a small model where I live; that "I live in Cork."
        does, and is older, tells that Galway is the answer.
        """
        if not abstains(answer.text):
            holder = oldest_holder(answer.matches, answer.found)
            return None if holder is None else OlderAnswer(answer.text, answer.kind, holder)
        best = answer.matches[0]
        older = [m for m in answer.matches[1:] if newest.is_newer(best, m)]
        scores = self._retriever.supersession.scores([(m, best) for m in older])
        for match, score in zip(older, scores, strict=True):
            if score is None or score < newest.LEAST:
                continue
            text, usage = self._read_to_end(ask, answer.kind, [match], times)
            alone = traced_answer(ask, answer.kind, [match], text, usage)
            if not abstains(text) and alone.probability >= PROBABLE:
                return OlderAnswer(text, answer.kind, match)
        return None

    def _read_memory_then_text(
        self, ask: FoundAsk, matches: Sequence[Match], times: dict[str, float]
    ) -> TracedAnswer:
        """Read compressed passages; then text, if the best one is known to be poor or the answer is
        unsure.

        The text read is that of the best passage, and of the passage that holds the words of the
        unsure answer. The answer from text stands if memory gave none, or a less probable one.
        """
        before, looked_up = None, list(matches[:1])
        if not is_poor(matches[0].passage.fidelity):
            before = self._read_and_check(ask, "memory", matches, times)
            if before.confidence >= CONFIDENT:
                return before
            if (holder := first_of(before.found)) is not None and holder > 0:
                looked_up.append(matches[holder])
        text, usage = self._read_to_end(ask, "text", looked_up, times)
        if before is None:
            return traced_answer(ask, "text", looked_up, text, usage)
        after = traced_answer(ask, "text", looked_up, text, before.usage.followed_by(usage))
        is_better = abstains(before.text) or after.probability >= before.probability
        return after if is_better else replace(before, usage=usage.followed_by(before.usage))

    def _stream(
        self, ask: FoundAsk, kind: str, matches: Sequence[Match], times: dict[str, float]
    ) -> Iterator[Piece]:
        # the best one last: the reader reads best what is nearest to the question
        passages = [m.passage for m in reversed(matches)]
        prompt = _prompt(ask, matches)
        if kind == "none":
            prompt = replace(prompt, history=recent_turns(prompt.history), notes=False)
        if kind == "memory":
            passage_encoder = self._retriever.passage_encoder
            memories = timed(times, "load", lambda: passage_encoder.readable(passages, ask.loaded))
            prompt = replace(prompt, memories=memories, copied=self._copied(passages))
        elif kind == "text":
            prompt = replace(prompt, texts=[render_passage(p) for p in passages])
        yield from self.pieces(prompt, ask.max_tokens)

    def _copied(self, passages: Sequence[Passage]) -> CopiedTexts | None:
        if self._copy_margin is None:
            return None
        return CopiedTexts([legible(p.content) for p in passages], self._copy_margin)

    def pieces(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """The pieces of one reading; the last one has its usage.

        The lock is free between two pieces, so that others may use the model.
        """
        with self._retriever.lock:
            pieces = self._retriever.engine.reader.read(prompt, max_tokens)
        while True:
            with self._retriever.lock:
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _read_to_end(
        self, ask: FoundAsk, kind: str, matches: Sequence[Match], times: dict[str, float]
    ) -> tuple[str, Usage]:
        pieces = list(self._stream(ask, kind, matches, times))
        usage = pieces[-1].usage
        assert usage is not None  # noqa: S101 - the port says so
        return "".join(p.text for p in pieces), usage


def timed(times: dict[str, float], stage: str, work: Callable[[], T]) -> T:
    """The result of `work`; its milliseconds are added to the stage in `times`."""
    start = time.perf_counter()
    result = work()
    times[stage] = times.get(stage, 0.0) + 1000 * (time.perf_counter() - start)
    return result


def _prompt(ask: Ask, matches: Sequence[Match]) -> Prompt:
    """The question after its history; it writes dates and numbers as these passages do."""
    question = in_notation_of(legible(ask.question), [m.passage.content for m in matches])
    return Prompt(question, ask.history or ())


def _is_note_among_others(matches: Sequence[Match]) -> bool:
    """Whether the best match is a short note, and more are read with it."""
    return len(matches) > 1 and newest.is_short(matches[0])


def _has_several_short(matches: Sequence[Match]) -> bool:
    """Whether one of the matches may state a newer value of what another states."""
    notes = (m for m in matches if newest.is_short(m) and newest.is_statement(m))
    return len({m.passage.document_id for m in notes}) > 1


def _may_be_a_value(pieces: Sequence[str]) -> bool:
    """Whether the pieces of an answer so far are short enough to be the value of a short note."""
    return len(pieces) < VALUE_PIECES and len(words_of("".join(pieces))) < VALUE_WORDS


def traced_answer(
    ask: Ask, kind: str, matches: Sequence[Match], text: str, usage: Usage | None
) -> TracedAnswer:
    """What a reader of this `kind` answered, traced to the passages that hold its words."""
    assert usage is not None  # noqa: S101 - the port says that the last piece has it
    if kind == "none" or abstains(text):
        return TracedAnswer(text, usage, kind, matches, [Trace()] * len(matches), 1.0, 0.0)
    found = trace_answer(ask.question, text, [(m.passage.heading, m.passage.text) for m in matches])
    first = first_of(found)
    far = 0.0 if first is None else _gap_nats(matches, first)
    return TracedAnswer(
        text,
        usage,
        kind,
        matches,
        found,
        trust(found, far, echoes=repeats(ask.question, text)),
        far,
    )


def _gap_nats(matches: Sequence[Match], number: int) -> float:
    return gap_nats([m.likelihood for m in matches], number)
