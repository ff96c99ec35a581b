"""How probable each span of a text is as the complete answer: the answer is chosen among the
text's own words.

Stretches that begin with the same word share a row. One forward pass reads all rows after a
question that is read once.
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
    """Stretches that begin with the same word.

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
    """
    rows = [row for n in range(len(words)) if (row := _row(lm, text, words, n)).ends]
    if not rows:
        return []
    tokens = padded([row.ids for row in rows], lm.device, lm.end_id)  # (rows, m)
    branches = _branched(cache, position, len(rows))
    states = lm.forward(branches, **branches.inputs(tokens))  # (rows, m, d)
    first = next_logits.log_softmax(-1)
    stops = torch.tensor(sorted(lm.stop_ids), device=lm.device)
    found: list[AnswerSpan] = []
    for row, hidden in zip(rows, states, strict=True):
        found += _scored(lm, row, hidden, first, stops)
    return found


def _row(lm: FrozenModel, text: str, words: Sequence[tuple[int, int]], first: int) -> _Row:
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
    steps = torch.tensor(row.ids[1:], device=logs.device)
    following = logs[:-1].gather(1, steps[:, None])[:, 0]  # (m - 1)
    complete = torch.cat([first[row.ids[:1]], following]).cumsum(0)  # (m)
    ended = complete + logs[:, stops].logsumexp(1)
    return [AnswerSpan(text, float(ended[count - 1]), count) for text, count in row.ends]


def _branched(cache: Any, position: int, rows: int) -> MemoryCache:
    """What a cache of one row holds, for this many continuations."""
    if isinstance(cache, MemoryCache):
        return cache.branched(rows)
    keys = [layer.keys for layer in cache.layers]  # (1, KV, n, d)
    values = [layer.values for layer in cache.layers]
    bias = [k.new_zeros(1, k.shape[1], 1, k.shape[2]) for k in keys]
    return MemoryCache(keys, values, bias, [position]).branched(rows)
