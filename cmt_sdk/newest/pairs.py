"""Pairs of passages of which the newer may supersede the older. Pure: knows no store and no model.

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
    """The matches with those marked that a newer one supersedes; the newest takes the best place and score of them."""
    top = _tops(matches, [(p.older, p.newer) for p in superseded])
    marked = [m if top[n] == n else replace(m, superseded_by=matches[top[n]].document.id) for n, m in enumerate(matches)]
    return _led(marked, top)


def oldest_first(matches: Sequence[Match], superseded: Sequence[Pair]) -> list[Match]:
    """The matches with the oldest of those that say the same of the same at the best place of them; none is marked."""
    return _led(matches, _tops(matches, [(p.newer, p.older) for p in superseded]))


def _tops(matches: Sequence[Match], steps: Sequence[tuple[int, int]]) -> list[int]:
    """For each match the number of the one to which the steps, from one in time to the next, lead; else its own."""
    above: dict[int, int] = {}
    for number, other in steps:
        far = _distance(matches, number, other)
        if number not in above or far > _distance(matches, number, above[number]):
            above[number] = other
    return [_last(number, above) for number in range(len(matches))]


def _distance(matches: Sequence[Match], number: int, other: int) -> int:
    """How many of the matches were told between two of them."""
    times = sorted(told_at(m) for m in matches)
    return abs(times.index(told_at(matches[number])) - times.index(told_at(matches[other])))


def _last(number: int, above: Mapping[int, int]) -> int:
    """The end of a chain; all its steps lead the same way in time, so that it ends."""
    while number in above:
        number = above[number]
    return number


def _led(matches: Sequence[Match], top: Sequence[int]) -> list[Match]:
    """The matches with each top at the best place of those that lead to it; scores stay with the places."""
    best = {leader: top.index(leader) for leader in set(top)}
    order = sorted(range(len(matches)), key=lambda n: (best[n], 0) if top[n] == n else (n, 1))
    return [replace(matches[n], score=matches[place].score) for place, n in enumerate(order)]
