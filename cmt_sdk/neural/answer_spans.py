"""How probable each span of a text is as the complete answer: the answer is chosen among the
text's own words.

1. Spans that begin with the same word share a row: the tokens of the longest one.
2. The question is read once; its cache is branched to one row per first word.
3. One forward pass reads all rows.
4. The probability of a span is that of its tokens, one after another, and of an end after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cmt_sdk.neural.batching import padded
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.reading.spans import scored, span_rows
from cmt_sdk.types import AnswerSpan


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
    rows = span_rows(lm.ids, text, words)
    if not rows:
        return []
    tokens = padded([row.ids for row in rows], lm.device, lm.end_id)  # (rows, m)
    branches = _branched(cache, position, len(rows))
    states = lm.forward(branches, **branches.inputs(tokens))  # (rows, m, d)
    first = next_logits.cpu().numpy()
    found: list[AnswerSpan] = []
    for row, hidden in zip(rows, states, strict=True):
        logits = lm.logits(hidden[: len(row.ids)]).cpu().numpy()  # (m, vocabulary)
        found += scored(row, first, logits, lm.stop_ids)
    return found


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
