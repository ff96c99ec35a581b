"""Stop sequences: end an answer, given in pieces, before the first stop text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import cmt_sdk

Pieces = AsyncGenerator[str | cmt_sdk.Answer]


async def stop_at(pieces: Pieces, stops: Sequence[str]) -> Pieces:
    """Yield an answer up to the first of the stop texts, then the Answer with that text.

    The end of the text is held back while it may be the beginning of a stop text. The model
    generates on to its own end: the Answer has its sources and token counts.

    Args:
        pieces: Pieces of text that end with an Answer.
        stops: The stop texts.
    """
    text = ""
    shown = 0
    is_stopped = False
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, cmt_sdk.Answer):
                if not is_stopped and len(text) > shown:
                    yield text[shown:]
                yield replace(piece, text=text.strip(), truncated=False) if is_stopped else piece
                return
            if is_stopped:
                continue
            text += piece
            found = [
                at for stop in stops if (at := text.find(stop, max(0, shown - len(stop)))) >= 0
            ]
            if found:
                is_stopped = True
                text = text[: min(found)]
            safe = len(text) if is_stopped else len(text) - _partial_match_length(text, stops)
            if safe > shown:
                yield text[shown:safe]
                shown = safe


def _partial_match_length(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text may begin a stop text."""
    lengths = (
        n
        for stop in stops
        for n in range(min(len(stop) - 1, len(text)), 0, -1)
        if text.endswith(stop[:n])
    )
    return max(lengths, default=0)


async def collect_answer(pieces: AsyncIterator[str | cmt_sdk.Answer]) -> cmt_sdk.Answer:
    """Return the Answer that ends the pieces."""
    *_, answer = [piece async for piece in pieces]
    assert not isinstance(answer, str)  # noqa: S101 - the last piece is the Answer
    return answer
