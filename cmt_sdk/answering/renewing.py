"""Renewing: an answer from an older note gives way to a newer note's words, where these state a
newer value of the same thing.

The reader alone keeps the older value: a newer note often names the old value too ("sold the
Saab"), or leaves out its subject ("moved again, to Friday"). So the reader gets both notes, the
newer one last, and the answer is chosen among the spans of the newer note whose words the older
one does not hold. The chosen span replaces the answer where it is likely enough against the best
span of the older note; the surer the probe is that the newer note supersedes the older one, the
less likely it has to be. No torch, no SQL in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp

from cmt_sdk.answering.asking import FoundAsk
from cmt_sdk.errors import InvalidInput
from cmt_sdk.retrieval.retriever import Retriever
from cmt_sdk.text.provenance import Trace, words_of
from cmt_sdk.text.rendering import render_passage
from cmt_sdk.types import AnswerSpan, Match, Prompt
from cmt_sdk.understanding import newest

NEIGHBOURS = 5  # neighbours of the answer's passage to check for newer values
COMPARED = 3  # newer notes that are read with it, those that the probe is surest of


@dataclass(frozen=True, slots=True)
class Renewal:
    """A newer answer.

    Attributes:
        text: Words of the newer note.
        tokens: Their number of tokens.
        newer: The passage that they are from.
        older: The passage that it supersedes.
        confidence: How sure the reader is, in [0, 1].
        worth: How much more it is worth than the older answer, in nats; see `newest.renews`.
    """

    text: str
    tokens: int
    newer: Match
    older: Match
    confidence: float
    worth: float


@dataclass(frozen=True, slots=True)
class OlderAnswer:
    """An answer and the passage that it is from.

    Attributes:
        text: The answer.
        kind: "memory" or "text", as the reader got the passage.
        holder: The passage; see `oldest_holder`.
    """

    text: str
    kind: str
    holder: Match


def oldest_holder(matches: Sequence[Match], found: Sequence[Trace]) -> Match | None:
    """The oldest passage that holds an answer, as a newer one may name the old value; None where
    none holds it.
    """
    holders = [m for m, trace in zip(matches, found, strict=True) if trace.holds]
    return min(holders, key=newest.stated_at, default=None)


@dataclass(frozen=True, slots=True)
class Renewer:
    """Looks for newer answers with a retriever's index and engine."""

    retriever: Retriever

    def renewal(
        self, ask: FoundAsk, prompt: Prompt, older: OlderAnswer, matches: Sequence[Match]
    ) -> Renewal | None:
        """The newer answer that is worth most; None where there is none.

        Newer notes are looked for among the passages that were read and near the answer's, within
        the filter of the question.

        Args:
            ask: The question.
            prompt: The question as the reader gets it, without notes.
            older: The answer.
            matches: The passages that were read.
        """
        if not newest.is_short(older.holder):
            return None
        made = [
            self._best_of(ask, prompt, older, match, score)
            for match, score in self._newer(ask, older.holder, matches)
        ]
        better = [renewal for renewal in made if renewal is not None and renewal.worth > 0.0]
        return max(better, key=lambda r: (r.worth, newest.stated_at(r.newer)), default=None)

    def _newer(
        self, ask: FoundAsk, older: Match, matches: Sequence[Match]
    ) -> list[tuple[Match, float]]:
        """Newer notes of other documents with the probe's scores, the surest ones first."""
        embedding = self.retriever.index.vectors([older.passage.id]).get(older.passage.id)
        near = []
        if embedding is not None:
            near = self.retriever.nearest(embedding, NEIGHBOURS, ask.filter)
        known = {m.passage.id: m for m in (*near, *matches)}
        newer = [m for m in known.values() if newest.is_newer(m, older)]
        scores = self.retriever.supersession.scores([(older, m) for m in newer])
        sure = [
            (match, score)
            for match, score in zip(newer, scores, strict=True)
            if score is not None and score >= newest.LEAST
        ]
        return sorted(sure, key=lambda pair: -pair[1])[:COMPARED]

    def _best_of(
        self, ask: FoundAsk, prompt: Prompt, older: OlderAnswer, newer: Match, score: float
    ) -> Renewal | None:
        """The best span of the newer note that states something new; None where there is none,
        or where the model's context cannot hold both notes.
        """
        passages = [older.holder.passage, newer.passage]
        if older.kind == "text":
            prompt = replace(prompt, texts=[render_passage(p) for p in passages])
        else:
            memories = self.retriever.passage_encoder.readable(passages, ask.loaded)
            prompt = replace(prompt, memories=memories)
        try:
            before = self._answer_spans(prompt, older.holder.passage.content)
            after = self._answer_spans(prompt, newer.passage.content)
        except InvalidInput:
            return None
        asked = _forms(prompt.question)
        known = _forms(older.holder.passage.content)
        stale = (_forms(older.text) & known) - asked
        short = [s for s in after if s.tokens <= ask.max_tokens]
        new = [s for s in short if _is_new(_forms(s.text), known | asked, stale)]
        if not before or not new:
            return None
        best = max(new, key=_likelihood)
        old = max(before, key=_likelihood)
        confidence = exp(best.likelihood / (best.tokens + 1))
        worth = newest.renews(best.likelihood, old.likelihood, score)
        return Renewal(best.text, best.tokens, newer, older.holder, confidence, worth)

    def _answer_spans(self, prompt: Prompt, text: str) -> Sequence[AnswerSpan]:
        words = [(word.start, word.end) for word in words_of(text)]
        with self.retriever.lock:
            return self.retriever.engine.reader.answer_spans(prompt, text, words)


def _is_new(forms: set[str], known: set[str], stale: set[str]) -> bool:
    """Whether words state something that is not known, and do not repeat the stale answer."""
    return not forms <= known and not (stale and stale <= forms)


def _forms(text: str) -> set[str]:
    return {word.form for word in words_of(text)}


def _likelihood(span: AnswerSpan) -> float:
    return span.likelihood
