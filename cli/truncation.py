"""Mark answers that were truncated at their token limit, and name the option that raises it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import cmt_sdk
from cmt_cli.output import echo, pluralize


def mark_truncated(
    pieces: Iterable[str], answer: Callable[[], cmt_sdk.Answer | None]
) -> Iterator[str]:
    """Yield the pieces of an answer, and an ellipsis if it was truncated.

    Args:
        pieces: The pieces of the answer's text.
        answer: Called after the last piece; returns the finished answer.
    """
    yield from pieces
    done = answer()
    if done is not None and done.truncated:
        yield "…"


def report_truncation(answer: cmt_sdk.Answer | None) -> None:
    """Print on stderr that an answer was truncated, and the option that allows more tokens."""
    if answer is not None and answer.truncated:
        length = pluralize(answer.answer_tokens, "token")
        more = 4 * answer.answer_tokens
        echo(f"the answer was truncated at {length}: --max-tokens {more} allows more", err=True)
