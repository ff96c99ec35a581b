"""Candidates: passages that may fit a question, and their order. Pure: knows no store and no
model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cmt_sdk.retrieval.context import Exchange
from cmt_sdk.retrieval.ranking import Fused, reorder
from cmt_sdk.types import Document, Hit, Match, Passage


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that may fit a question.

    Attributes:
        match: the passage with its scores.
        place: its best place, from 0, in the searches for the question alone and after each
            earlier exchange.
        alone: its place in the search for the question alone; None where that did not find it.
        about: the earlier exchange after which the search found it best; None: the question alone.
    """

    match: Match
    place: float
    alone: float | None = None
    about: Exchange | None = None


def ordered(
    candidates: Sequence[Candidate], places: Sequence[float], likely: Mapping[int, float]
) -> list[Candidate]:
    """Put the first few candidates in the order of `ranking.reorder`; the rest follows as it is.

    Scores fall along the result: those of the rest are scaled to stay below the last reordered one.

    Args:
        candidates: best first.
        places: the places of the first few candidates, from 0.
        likely: log probability of the question by passage id, in nats; empty: nothing changes.
    """
    if not likely:
        return list(candidates)
    first = candidates[: len(places)]
    rest = candidates[len(places) :]
    known = [likely.get(c.match.passage.id) for c in first]
    order = reorder(known, places)
    moved = [
        replace(first[n], match=replace(first[n].match, likelihood=known[n], score=score))
        for n, score in order
    ]
    # the scores of the rest can all be 0: of one passage that is found by meaning alone
    highest = max([c.match.score for c in rest], default=0.0) or 1.0
    scale = order[-1][1] / highest
    return [
        *moved,
        *(replace(c, match=replace(c.match, score=c.match.score * scale)) for c in rest),
    ]


def match_of(fused: Fused, passage: Passage, document: Document) -> Match:
    """Return a passage and its document with their scores."""
    return Match(
        passage,
        document,
        fused.score,
        fused.vector_rank,
        fused.vector_score,
        fused.text_rank,
        fused.text_score,
    )


def hits_of(best: Mapping[int, tuple[float, int]]) -> list[Hit]:
    """Return hits, best first, from (score, number of the exchange) by passage id."""
    return sorted((Hit(i, score) for i, (score, _) in best.items()), key=lambda hit: -hit.score)


def candidate_of(
    match: Match, place: float, back: int, earlier: Sequence[Exchange], fade: float
) -> Candidate:
    """Return a passage found after an exchange as a candidate, with its cosine before `fade`."""
    cosine = None if match.vector_score is None else match.vector_score / fade**back
    return Candidate(replace(match, vector_score=cosine), place, None, earlier[back])
