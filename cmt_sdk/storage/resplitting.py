"""Which passages of a document stay when it is split again. Pure: knows rows and spans, no
database.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from cmt_sdk.types import Span


@dataclass(frozen=True, slots=True)
class Matched:
    """The difference between a document's stored passages and its new spans.

    Attributes:
        moved: ids of passages that stay at another place, with their new ordinals and spans.
        new: ordinals and spans of passages to insert.
        gone: ids of passages whose content no span has.
    """

    moved: list[tuple[int, int, Span]] = field(default_factory=list)
    new: list[tuple[int, Span]] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)


def matched(stored: Sequence[Row[Any]], old: str, new: str, spans: Sequence[Span]) -> Matched:
    """Match stored passages of the text `old` to spans of the text `new` by their content.

    The content of a passage, its heading and its text, is all that its compressed form and its
    embedding are made of. Of several passages with one content each is matched once, in order.

    Args:
        stored: rows with id, ordinal, start, stop, tokens and heading, in order.
        old: the text that the rows belong to.
        new: the text that the spans belong to.
        spans: the passages that the document is to have.
    """
    found = Matched()
    ready: dict[tuple[str, str], deque[Row[Any]]] = defaultdict(deque)
    for row in stored:
        if isinstance(row.start, int) and isinstance(row.stop, int):  # else the row is damaged
            ready[row.heading, old[row.start : row.stop]].append(row)
    kept = set()
    for ordinal, span in enumerate(spans):
        same = ready.get((span.heading, new[span.start : span.end]))
        if not same:
            found.new.append((ordinal, span))
            continue
        row = same.popleft()
        kept.add(row.id)
        now = (ordinal, span.start, span.end, span.tokens)
        if now != (row.ordinal, row.start, row.stop, row.tokens):
            found.moved.append((row.id, ordinal, span))
    found.gone.extend(row.id for row in stored if row.id not in kept)
    return found
