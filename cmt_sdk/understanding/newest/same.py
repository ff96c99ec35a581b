"""Which passages state a value of the same fact as the best one. Pure: knows no store, no model.

Two measures decide: the probe's score for both texts, the older before the newer (`probe`), and
whether the model expects each word of the question after both. After "My brother lives in Oslo."
the word "sister" of "Where does my sister live?" comes as a surprise; after "I moved to Berlin last
week." no word of "Where do I live?" does. The sum over the words decides little: a rephrased fact
loses some nats on every word, another fact many on one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import inf

from cmt_sdk.types import Match, Vector
from cmt_sdk.understanding.newest.probe import LONGEST

CONTESTED = 6  # matches that are looked at, the best ones
NEAR = 0.35  # cosine of two embeddings below which passages are taken to be of different things
MAX_GAP = 12.0  # largest gap between the likelihoods of the question, either way, in nats
ALIKE = 0.9  # the same for passages that are too long for the probe: versions of one text
SURPRISE = 2.9  # largest gap on one word of the question, in nats, for two passages of one fact
# Log odds by the probe's score and the largest such surprise, up to MOST. Fitted to 72 pairs with
# their questions and to 172 of the dialogues in examples/conversations, neither of which the probe
# was fitted to; of the 60 updates among these it finds 52, of the 184 others it takes 22 for one.
PROBE, WORD, BIAS, MOST = 3.7, -0.14, 0.65, 8.0
# A newer passage's words replace an older answer if their log probability is at least LIKELY and
# above the older one's - NEWER * (the probe's score) - LEAD. Where the probe's score is below
# LEAST, the two are not compared. Chosen on the dialogues in
# examples/conversations: of 40 questions about what changed the newer passage answers 34, of 29
# about something else none.
LEAD = 0.5
NEWER = 6.0
LIKELY = -5.0
LEAST = -0.3


def stated_at(match: Match) -> tuple[str, datetime, int]:
    """When a passage was stated, to be compared: the day that its document names, or that on which
    the memory took its text; then that moment, then the place in the order of storing.
    """
    moment = match.document.updated_at or datetime.min.replace(tzinfo=UTC)
    return match.date or moment.date().isoformat(), moment, match.passage.id


def contested(matches: Sequence[Match], embeddings: Mapping[int, Vector]) -> list[int]:
    """The indices of the matches that may state another value of the same fact as the best match:
    of another document, near it in meaning, and of near likelihood.
    """
    best = matches[0]
    found = []
    for index, match in enumerate(matches[1:CONTESTED], 1):
        if match.passage.document_id == best.passage.document_id:
            continue
        one, other = embeddings.get(best.passage.id), embeddings.get(match.passage.id)
        least = NEAR if is_short(best) and is_short(match) else ALIKE
        if (
            one is not None
            and other is not None
            and _apart(best, match) <= MAX_GAP
            and float(one @ other) >= least
        ):
            found.append(index)
    return found


def is_short(match: Match) -> bool:
    """Whether the probe can judge a passage."""
    return match.passage.tokens <= LONGEST


def is_statement(match: Match) -> bool:
    """Whether a passage is what a user stated in a conversation, by the metadata of its document.

    Passages of files differ in more than time: an answer from one of them is never replaced by
    words of another file.
    """
    return match.document.metadata.get("role") == "user"


def are_statements(one: Match, other: Match) -> bool:
    """Whether both are what a user stated in a conversation."""
    return is_statement(one) and is_statement(other)


def in_order(one: Match, other: Match) -> tuple[Match, Match]:
    """Two matches, the older one first."""
    return (one, other) if stated_at(one) < stated_at(other) else (other, one)


def _apart(one: Match, other: Match) -> float:
    if one.likelihood is None or other.likelihood is None:
        return 0.0
    return abs(one.likelihood - other.likelihood)


def is_newer(match: Match, older: Match) -> bool:
    """Whether a short statement is of another document than the older one, and later."""
    is_other = match.passage.document_id != older.passage.document_id
    is_later = stated_at(match) > stated_at(older)
    return is_other and are_statements(match, older) and is_short(match) and is_later


def renews(newer: float, older: float, score: float) -> float:
    """By how many nats an answer in a newer passage's words is worth more than the older answer;
    above 0 the newer one replaces it.

    Args:
        newer: The log probability of the answer in the newer passage's words.
        older: That of the best answer in the older passage's words.
        score: The probe's score of the two passages.
    """
    return newer - older + NEWER * score + LEAD if newer >= LIKELY else -inf


def is_same_fact(one: Sequence[float], other: Sequence[float], score: float | None = None) -> bool:
    """Whether two passages state values of the same fact, the one that a question asks for.

    `one` and `other` are the log probabilities of its tokens after each of them, `score` is the
    probe's, if there is one.
    """
    surprise = max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0.0)
    if score is None:
        return surprise <= SURPRISE
    return PROBE * score + WORD * min(surprise, MOST) + BIAS > 0.0


def newest_first(matches: Sequence[Match], same: Collection[int]) -> list[Match]:
    """The matches with the newest of `same` at the best place of these, and the others of them
    marked as superseded by it.
    """
    newest = max(same, key=lambda n: stated_at(matches[n]))
    name = matches[newest].document.id
    marked = [
        replace(m, superseded_by=name) if n in same and n != newest else m
        for n, m in enumerate(matches)
    ]
    return _led(marked, newest, min(same))


def oldest_first(matches: Sequence[Match], same: Collection[int]) -> list[Match]:
    """The matches with the oldest of `same` at the best place of these; none is marked."""
    return _led(matches, min(same, key=lambda n: stated_at(matches[n])), min(same))


def _led(matches: Sequence[Match], leader: int, place: int) -> list[Match]:
    """The matches with one of them moved up to a place; scores stay with the places."""
    rest = [m for n, m in enumerate(matches) if n != leader]
    order = [*rest[:place], matches[leader], *rest[place:]]
    return [replace(m, score=at.score) for m, at in zip(order, matches, strict=True)]
