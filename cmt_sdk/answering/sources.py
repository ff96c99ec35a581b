"""The sources of an answer: the passages read and those they supersede. No store, no model."""

from __future__ import annotations

from collections.abc import Sequence

from cmt_sdk.text.provenance import Trace, first_of
from cmt_sdk.types import Match, Source


def sources_of(
    matches: Sequence[Match], found: Sequence[Trace], older: Sequence[Match]
) -> list[Source]:
    """The passages that were read, best first, then those that they supersede.

    The passage that the answer is from comes before all others.
    """
    read = zip([*matches, *older], [*found, *[Trace()] * len(older)], strict=True)
    sources = [_source(m, t, rank) for rank, (m, t) in enumerate(read, 1)]
    first = first_of(found)
    return sources if first is None else [sources[first], *sources[:first], *sources[first + 1 :]]


def _source(match: Match, trace: Trace, rank: int) -> Source:
    p, document = match.passage, match.document
    return Source(
        document_id=p.document_id,
        passage_id=p.id,
        source=document.source,
        start=p.start,
        end=p.end,
        text=p.text,
        score=match.score,
        why=match.why,
        heading=p.heading,
        rank=rank,
        holds_answer=trace.holds,
        answer_start=None if trace.start is None else p.start + trace.start,
        answer_end=None if trace.end is None else p.start + trace.end,
        date=match.date,
        updated_at=document.updated_at.isoformat() if document.updated_at else None,
        superseded_by=match.superseded_by,
    )
