"""How probable each span of a text is as the complete answer: the answer is chosen among the
text's own words. Knows no model.

1. Spans that begin with the same word share a row: the tokens of the longest one.
2. The question is read once; its cache is branched to one row per first word.
3. One forward pass reads all rows.
4. The probability of a span is that of its tokens, one after another, and of an end after them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from cmt_sdk.reading.decoding import Logits, log_softmax
from cmt_sdk.types import AnswerSpan

MAX_WORDS = 6  # of a span
MAX_TOKENS = 16


@dataclass(frozen=True)
class SpanRow:
    """Spans that begin with the same word.

    Attributes:
        ids: Token ids of the longest span.
        ends: Each span with its number of tokens.
    """

    ids: list[int]
    ends: list[tuple[str, int]]


def span_rows(
    to_ids: Callable[[str], list[int]], text: str, words: Sequence[tuple[int, int]]
) -> list[SpanRow]:
    """The spans of a text by their first word.

    Args:
        to_ids: Token ids of a text, nothing added.
        text: The text that holds the answer.
        words: The first character of each word of the text, and the one after its last.
    """
    rows = [_row_from(to_ids, text, words, n) for n in range(len(words))]
    return [row for row in rows if row.ends]


def _row_from(
    to_ids: Callable[[str], list[int]], text: str, words: Sequence[tuple[int, int]], first: int
) -> SpanRow:
    """The spans that begin with the word of this number."""
    ids: list[int] = []
    ends: list[tuple[str, int]] = []
    for last in range(first, min(first + MAX_WORDS, len(words))):
        span = text[words[first][0] : words[last][1]]
        longer = to_ids(span)
        if len(longer) > MAX_TOKENS:
            break
        if longer[: len(ids)] != ids:  # the next word changes the tokens before it
            ends = [end for end in ends if longer[: end[1]] == ids[: end[1]]]
        ids = longer
        ends.append((span, len(ids)))
    return SpanRow(ids, ends)


def scored(row: SpanRow, first: Logits, logits: Logits, stops: Collection[int]) -> list[AnswerSpan]:
    """The spans of a row, each with its log probability as the complete answer.

    Args:
        row: The row.
        first: Logits [vocabulary] of the answer's first token.
        logits: Logits [m, vocabulary] after each of the row's m tokens.
        stops: Ids of the tokens that end an answer.
    """
    logs = log_softmax(logits[: len(row.ids)])  # (m, vocabulary)
    # The logits of a token predict the next one; the question's last ones predict the first.
    following = logs[np.arange(len(row.ids) - 1), row.ids[1:]]  # (m - 1,)
    complete = np.concatenate([log_softmax(first)[row.ids[:1]], following]).cumsum()  # (m,)
    ends = np.exp(logs[:, sorted(stops)]).sum(1)  # (m,) any of the tokens may end it
    ended = complete + np.log(np.maximum(ends, np.finfo(np.float32).tiny))
    return [AnswerSpan(text, float(ended[count - 1]), count) for text, count in row.ends]
