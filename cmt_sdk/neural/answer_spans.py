"""How probable each span of a text is as the complete answer: the answer is chosen among the
text's own words.

1. Spans that begin with the same word share a row: the tokens of the longest one.
2. The question is read once; its cache is branched to one row per first word.
3. One forward pass reads all rows.
4. The probability of a span is that of its tokens, one after another, and of an end after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cmt_sdk.neural.batching import padded
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.types import AnswerSpan

MAX_WORDS = 6  # of a span
MAX_TOKENS = 16


@dataclass(frozen=True)
class _Row:
    """Spans that begin with the same word.

    Attributes:
        ids: Token ids of the longest span.
        ends: Each span with its number of tokens.
    """

    ids: list[int]
    ends: list[tuple[str, int]]


def span_likelihoods(
    lm: FrozenModel,
    cache: Any,
    position: int,
    next_logits: Tensor,
    text: str,
    words: Sequence[tuple[int, int]],
) -> list[AnswerSpan]:
    """The spans of a text, each with its log probability as the complete answer.

    Args:
        lm: The model.
        cache: MemoryCache of one row, or transformers' cache, with everything before the answer.
        position: Of the answer's first token.
        next_logits: Logits [vocabulary] of the answer's first token.
        text: The text that holds the answer.
        words: The first character of each word of the text, and the one after its last.

    Returns:
        By first word, then by length; empty where no span is short enough.
    """
    rows = [row for n in range(len(words)) if (row := _row_from(lm, text, words, n)).ends]
    if not rows:
        return []
    tokens = padded([row.ids for row in rows], lm.device, lm.end_id)  # (rows, m)
    branches = _branched(cache, position, len(rows))
    states = lm.forward(branches, **branches.inputs(tokens))  # (rows, m, d)
    first = next_logits.log_softmax(-1)  # (vocabulary,)
    stops = torch.tensor(sorted(lm.stop_ids), device=lm.device)
    found: list[AnswerSpan] = []
    for row, hidden in zip(rows, states, strict=True):
        found += _scored(lm, row, hidden, first, stops)
    return found


def _row_from(lm: FrozenModel, text: str, words: Sequence[tuple[int, int]], first: int) -> _Row:
    """The spans that begin with the word of this number."""
    ids: list[int] = []
    ends: list[tuple[str, int]] = []
    for last in range(first, min(first + MAX_WORDS, len(words))):
        span = text[words[first][0] : words[last][1]]
        longer = lm.ids(span)
        if len(longer) > MAX_TOKENS:
            break
        if longer[: len(ids)] != ids:  # the next word changes the tokens before it
            ends = [end for end in ends if longer[: end[1]] == ids[: end[1]]]
        ids = longer
        ends.append((span, len(ids)))
    return _Row(ids, ends)


def _scored(
    lm: FrozenModel, row: _Row, states: Tensor, first: Tensor, stops: Tensor
) -> list[AnswerSpan]:
    """Score the spans of a row.

    Args:
        lm: The model.
        row: The row.
        states: Hidden states [m, d] of its tokens and padding.
        first: Log probabilities [vocabulary] of the answer's first token.
        stops: Ids of the tokens that end an answer.
    """
    logs = lm.logits(states[: len(row.ids)]).log_softmax(-1)  # (m, vocabulary)
    steps = torch.tensor(row.ids[1:], device=logs.device)  # (m - 1,)
    # The state of a token predicts the next one; the question's last state predicts the first.
    following = logs[:-1].gather(1, steps[:, None])[:, 0]  # (m - 1,)
    complete = torch.cat([first[row.ids[:1]], following]).cumsum(0)  # (m,)
    ended = complete + logs[:, stops].logsumexp(1)  # (m,) any of the tokens may end it
    return [AnswerSpan(text, float(ended[count - 1]), count) for text, count in row.ends]


def _branched(cache: Any, position: int, rows: int) -> MemoryCache:
    """The entries of a cache of one row, for this many continuations.

    A text's cache becomes a MemoryCache without biases, so that both are read by `attend`.
    """
    if isinstance(cache, MemoryCache):
        return cache.branched(rows)
    keys = [layer.keys for layer in cache.layers]  # (1, KV, n, d)
    values = [layer.values for layer in cache.layers]
    bias = [k.new_zeros(1, k.shape[1], 1, k.shape[2]) for k in keys]  # (1, KV, 1, n)
    return MemoryCache(keys, values, bias, [position]).branched(rows)
