"""Texts that end an answer. Knows pieces of text, no model and no route."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import cmt_sdk

Pieces = AsyncGenerator[str | cmt_sdk.Answer]


async def stop_at(pieces: Pieces, stops: Sequence[str]) -> Pieces:
    """An answer in pieces up to the first of the stop texts, then the Answer with that text.

    A piece that may begin a stop text is held back. The model reads on to its own end: the Answer
    has what it read from.
    """
    said, shown, is_over = "", 0, False
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, cmt_sdk.Answer):
                if not is_over and len(said) > shown:
                    yield said[shown:]
                yield replace(piece, text=said.strip(), truncated=False) if is_over else piece
                return
            if is_over:
                continue
            said += piece
            found = [
                at for stop in stops if (at := said.find(stop, max(0, shown - len(stop)))) >= 0
            ]
            if found:
                is_over, said = True, said[: min(found)]
            free = len(said) if is_over else len(said) - _partial_match_length(said, stops)
            if free > shown:
                yield said[shown:free]
                shown = free


def _partial_match_length(said: str, stops: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop text."""
    lengths = (
        n
        for stop in stops
        for n in range(min(len(stop) - 1, len(said)), 0, -1)
        if said.endswith(stop[:n])
    )
    return max(lengths, default=0)


async def collect_answer(pieces: AsyncIterator[str | cmt_sdk.Answer]) -> cmt_sdk.Answer:
    """The Answer that ends the pieces."""
    *_, answer = [piece async for piece in pieces]
    assert not isinstance(answer, str)  # noqa: S101 - pieces end with it
    return answer
