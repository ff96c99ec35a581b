"""What a message wants: the probe's scores of its sentences become one Intent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from cmt_sdk.text.splitting.boundaries import sentence_ends
from cmt_sdk.types import Intent, Vector
from cmt_sdk.understanding.utterances import LABELS

IntentScores = Callable[[Sequence[str]], Vector]  # n texts to scores [n, labels]

WHOLE = 400  # characters: a longer message is judged by its parts and its beginning
PARTS = 24  # parts of a message that are judged; more are joined
APART = (("forgets", "agrees"), ("forgets", "tells"), ("forgets", "remembers"))
SHORTEST = 2  # letters or digits of a part that stands by itself
_AT = {name: column for column, name in enumerate(LABELS.values())}


def understand(text: str, intent_scores: IntentScores) -> Intent:
    """What the message seems to want, by the scores of the whole and of its sentences.

    Calls `intent_scores` once.
    """
    parts = _parts(text)
    rows = intent_scores([text[:WHOLE], *parts] if len(parts) > 1 else parts)
    # A long letter can score above 0 on both; "tells" is then the higher one.
    if rows[0][_AT["machine"]] > max(0.0, rows[0][_AT["tells"]]):
        return Intent(text, machine=True)
    named = [_labels(row) for row in rows[-len(parts) :]]
    has = frozenset().union(*named)
    asking = [labels for labels in named if "asks" in labels]
    return Intent(
        text,
        statement=_statement(text, parts, named),
        asked=" ".join(p for p, labels in zip(parts, named, strict=True) if "asks" in labels),
        remembers="remembers" in has,
        forgets="forgets" in has,
        chats=all("chats" in labels for labels in asking) if asking else "chats" in has,
        general=bool(asking) and all("general" in labels for labels in asking),
        agrees="agrees" in has,
    )


def _statement(text: str, parts: Sequence[str], named: Sequence[frozenset[str]]) -> str:
    """The part worth keeping: all but the questions where most parts tell something."""
    telling = [_is_statement(labels) for labels in named]
    if 2 * sum(telling) > len(parts):
        telling = [
            kept or "asks" not in labels for kept, labels in zip(telling, named, strict=True)
        ]
    if all(telling):
        return text.strip()
    return " ".join(part for part, kept in zip(parts, telling, strict=True) if kept)


def _is_statement(labels: frozenset[str]) -> bool:
    return bool(labels & {"tells", "remembers"}) and "forgets" not in labels


def _labels(row: Vector) -> frozenset[str]:
    """The labels above their thresholds, of which one excludes another; at least the nearest
    one.
    """
    found = {name for name, column in _AT.items() if row[column] > 0}
    for pair in APART:
        if found.issuperset(pair):
            found.discard(min(pair, key=lambda name: float(row[_AT[name]])))
    if "general" in found and "chats" not in found:
        found.add("asks")
    return frozenset(found or {max(_AT, key=lambda name: float(row[_AT[name]]))})


def _parts(text: str) -> list[str]:
    """The sentences and lines of a text, at most PARTS; what has no letters joins what is
    before.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    found: list[str] = []
    for line in lines:
        places = [0, *sentence_ends(line), len(line)]
        for start, end in pairwise(places):
            part = line[start:end].strip()
            if found and sum(map(str.isalnum, part)) < SHORTEST:
                found[-1] = f"{found[-1]} {part}".strip()
            elif part:
                found.append(part)
    step = -(-len(found) // PARTS)
    return [" ".join(found[n : n + step]) for n in range(0, len(found), step)] or [text]
