"""The newest wins: which of the passages found say an older value of what a newer one says.

A small model that reads "I live in Paris." and "I live in Berlin now." together answers with
either, whatever their order and dates. So the choice is made before the reading: of passages that
say the same of the same, the newest is read. Pure numpy: knows no store and no model.

Two passages are of the same when the question is expected after both word by word. After
"My brother lives in Oslo." the word "sister" of "Where does my sister live?" comes as a surprise;
after "I moved to Berlin last week." no word of "Where do I live?" does. What the sum over the words
says is little: a rephrased fact loses some nats on every word, another fact many on one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cmt_sdk.types import Match, Vector

NEAR = 0.45  # cosine of two key vectors below which passages are taken to be of different things
BEHIND = 12.0  # nats by which the question may fit one of two passages less than the other
CONTESTED = 6  # passages of one question that are compared with each other, the best ones

SURPRISE = 2.9  # nats by which one word of the question may be less expected after one of two passages of the same


@dataclass(frozen=True, slots=True)
class Pair:
    """Two passages by their numbers among the matches, the older one first; `near` is the cosine of their key vectors."""

    older: int
    newer: int
    near: float


def told_at(match: Match) -> tuple[str, datetime, int]:
    """When a passage was told, to be compared: the day that its document names, or that on which the memory took its text;
    then that moment, then the place in the order of storing.
    """
    moment = match.document.updated_at or datetime.min.replace(tzinfo=UTC)
    return match.date or moment.date().isoformat(), moment, match.passage.id


def contested(matches: Sequence[Match], keys: Mapping[int, Vector]) -> list[Pair]:
    """The pairs of passages that may say the same of the same: of two documents, near in meaning, and of near likelihood."""
    found = []
    for one in range(min(len(matches), CONTESTED)):
        for other in range(one):
            first, second = matches[one], matches[other]
            pair = _in_order(one, other, first, second)
            if first.passage.document_id == second.passage.document_id:
                continue
            held = keys.get(first.passage.id), keys.get(second.passage.id)
            if held[0] is None or held[1] is None or _apart(first, second) > BEHIND:
                continue
            near = float(held[0] @ held[1])
            if near >= NEAR:
                found.append(replace(pair, near=near))
    return found


def _in_order(one: int, other: int, first: Match, second: Match) -> Pair:
    return Pair(one, other, 0.0) if told_at(first) < told_at(second) else Pair(other, one, 0.0)


def _apart(first: Match, second: Match) -> float:
    if first.likelihood is None or second.likelihood is None:
        return 0.0
    return abs(first.likelihood - second.likelihood)


def of_the_same(older: Sequence[float], newer: Sequence[float]) -> bool:
    """Whether two passages speak of what a question asks, by the log probabilities of its tokens after each of them."""
    return max((abs(a - b) for a, b in zip(older, newer, strict=True)), default=0.0) <= SURPRISE


def settled(matches: Sequence[Match], superseded: Sequence[Pair]) -> list[Match]:
    """The matches with those marked that a newer one supersedes; the newer one takes the better of their places and scores."""
    above: dict[int, int] = {}
    for pair in superseded:
        known = above.get(pair.older)
        if known is None or told_at(matches[known]) < told_at(matches[pair.newer]):
            above[pair.older] = pair.newer
    newest = [_last(number, above) for number in range(len(matches))]
    best = {top: newest.index(top) for top in set(newest)}
    order = sorted(range(len(matches)), key=lambda n: (best[newest[n]], n) if n == newest[n] else (n, len(matches)))
    scores = [m.score for m in matches]
    found = []
    for place, number in enumerate(order):
        by = matches[newest[number]].document.id if newest[number] != number else None
        found.append(replace(matches[number], score=scores[place], superseded_by=by))
    return found


def _last(number: int, above: Mapping[int, int]) -> int:
    """The end of the chain of newer ones; each is later than the one before, so that it ends."""
    while number in above:
        number = above[number]
    return number
