"""An answer that ended at its limit of tokens: a mark at its end, and how to get more of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import cmt_sdk
from cmt_cli.output import amount, say


def marked(pieces: Iterable[str], answer: Callable[[], cmt_sdk.Answer | None]) -> Iterator[str]:
    """The pieces of an answer, and an ellipsis where it was cut.

    `answer` is asked for once they are all there.
    """
    yield from pieces
    whole = answer()
    if whole is not None and whole.truncated:
        yield "…"


def tell_if_cut(answer: cmt_sdk.Answer | None) -> None:
    """Say on stderr that an answer was cut, and which option allows more."""
    if answer is not None and answer.truncated:
        more = 4 * answer.answer_tokens
        say(
            f"the answer was cut at {amount(answer.answer_tokens, 'token')}: --max-tokens {more}"
            " allows more",
            err=True,
        )
