"""The sources of an answer: the passages read and those they supersede. No store, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cmt_sdk.text.provenance import Trace, first_of, verbatim
from cmt_sdk.types import Citation, Match, Source


def sources_of(
    answer: str, matches: Sequence[Match], found: Sequence[Trace], older: Sequence[Match]
) -> tuple[list[Source], list[Citation]]:
    """The passages that were read, best first, then those that they supersede; and where the answer
    stands verbatim in those that hold it.

    The passage that the answer is from comes before all others.
    """
    read = zip([*matches, *older], [*found, *[Trace()] * len(older)], strict=True)
    sources = [_source(m, t, rank) for rank, (m, t) in enumerate(read, 1)]
    first = first_of(found)
    if first is not None:
        sources = [sources[first], *sources[:first], *sources[first + 1 :]]
    cited = [_cited(answer, source) for source in sources]
    return [source for source, _ in cited], [span for _, span in cited if span is not None]


def _cited(answer: str, source: Source) -> tuple[Source, Citation | None]:
    """A source with the place where the answer stands verbatim in its text, if it does."""
    if source.answer_start is None:  # it does not hold the answer, or its heading does
        return source, None
    place = verbatim(answer, source.text, source.answer_start - source.start)
    if place is None:
        return source, None
    start, end = (at + source.start for at in place)
    text = source.text[slice(*place)]
    citation = Citation(source.document_id, source.source, start, end, text)
    return replace(source, answer_start=start, answer_end=end), citation


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
