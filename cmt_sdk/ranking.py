"""Ranked lists made one, and how much of a list fits. Pure Python: knows no store and no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cmt_sdk.types import Hit

CONSTANT = 60


@dataclass(frozen=True, slots=True)
class Fused:
    """A passage with its fused score, and its rank (from 1) and score in each list that holds it."""

    passage_id: int
    score: float
    vector_rank: int | None = None
    vector_score: float | None = None
    text_rank: int | None = None
    text_score: float | None = None


def fuse(vector: Sequence[Hit], text: Sequence[Hit], *, weight: float = 1.0, constant: int = CONSTANT) -> list[Fused]:
    """One list of two, best first, by reciprocal rank (Cormack, Clarke, Buettcher 2009): the sum of 1 / (constant + rank).

    A rank in `vector` counts `weight` times one in `text`. Ties keep the order of `text`, then of `vector`.
    """
    fused: dict[int, Fused] = {}
    for rank, hit in enumerate(text, 1):
        fused[hit.passage_id] = Fused(hit.passage_id, 1 / (constant + rank), text_rank=rank, text_score=hit.score)
    for rank, hit in enumerate(vector, 1):
        known = fused.get(hit.passage_id, Fused(hit.passage_id, 0.0))
        score = known.score + weight / (constant + rank)
        fused[hit.passage_id] = replace(known, score=score, vector_rank=rank, vector_score=hit.score)
    return sorted(fused.values(), key=lambda f: -f.score)


def reorder(likelihoods: Sequence[float | None]) -> list[int]:
    """The order in which items, given best first, come when their likelihoods count too: their numbers, best first.

    An item's worth is its log likelihood less one nat for each place that it was behind the first. One whose likelihood is
    not known (None) counts as the mean of the others.
    """
    known = [x for x in likelihoods if x is not None]
    if not known:
        return list(range(len(likelihoods)))
    mean = sum(known) / len(known)
    worth = [(mean if x is None else x) - place for place, x in enumerate(likelihoods)]
    return sorted(range(len(worth)), key=lambda n: -worth[n])


def fit(tokens: Sequence[int], budget: int) -> int:
    """How many leading items, of `tokens` tokens each, fit into `budget` tokens together."""
    total = 0
    for count, cost in enumerate(tokens):
        total += cost
        if total > budget:
            return count
    return len(tokens)
