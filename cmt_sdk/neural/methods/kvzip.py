"""KVzip: which KV entries of a passage matter, without knowing the question (Kim et al. 2025, arXiv
2505.23416, section 3). Pure tensor code.

1. After the passage the model reads a cue, "Repeat the notes:", and the passage again, in one
   forward pass. What it looks back at while it repeats the passage is what any question needs.
2. The score of an entry (one token in one layer and key-value head) is the largest attention weight
   that any repeating query, of any query head in its group, pays to it.
3. The entries with the largest scores are kept; all layers and heads share one budget.

In comments: B passages, H query heads, KV key-value heads, group = H / KV, d values per head, n
keys of the pass, longest = tokens of the longest passage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmt_sdk.neural.attention import capped


class RepeatScores:
    """Observes one forward pass over [prefix | passage | cue | passage again] and computes every
    entry's score.

    Args:
        start: Index of the passage's first key: the length of the prefix.
        lengths: Tokens of each row's passage, [batch].
        cue: Tokens of the cue.
    """

    def __init__(self, start: int, lengths: Tensor, cue: int) -> None:
        self._start = start
        self._longest = int(lengths.max())
        steps = torch.arange(self._longest, device=lengths.device)  # (longest,)
        self._inside = steps[None] < lengths[:, None]  # (B, longest)
        # The index of every repeating query, counted from the end of the prefix: query i of a row
        # repeats token i, and stands behind the row's passage and the cue. Queries of shorter
        # passages' padding are clipped to the last index.
        last = 2 * self._longest + cue - 1
        self._query = (lengths[:, None] + cue + steps[None]).clamp(max=last)  # (B, longest)
        self._scores: list[Tensor] = []

    def see(
        self, layer: int, query: Tensor, key: Tensor, scaling: float, cap: float | None = None
    ) -> None:
        """Compute and keep the layer's scores [batch, kv_heads, longest].

        1. Choose the repeating queries of each row.
        2. Compute their attention weights over all keys of the pass, as the layer itself does.
        3. Keep the weights of the passage's keys, and of each key the largest one.

        Args:
            layer: Number of the layer.
            query: [batch, heads, m, d], rotated.
            key: [batch, kv_heads, n, d], rotated.
            scaling: Factor of the attention logits.
            cap: Limit of the attention logits, None without one.
        """
        assert layer == len(self._scores), "one forward pass, layer after layer"  # noqa: S101 - a fact of this file
        batch, heads, _, width = query.shape
        kv_heads = key.shape[1]
        total = key.shape[2]
        group = heads // kv_heads  # query heads per key-value head
        index = self._query[:, None, :, None].expand(batch, heads, self._longest, width)
        repeating = query.gather(2, index)  # (B, H, longest, d)
        # The heads of a group become rows of their key-value head, as in `attention.attend`.
        rows = repeating.reshape(batch, kv_heads, -1, width)  # (B, KV, group * longest, d)
        # In place where it can be: these are the largest tensors of the pass.
        products = (rows @ key.transpose(2, 3)).float().mul_(scaling)
        logits = capped(products, cap)  # (B, KV, group * longest, n)
        # A repeating query sees every key up to itself.
        keys = torch.arange(total, device=key.device)[None, None]  # (1, 1, n)
        visible = keys <= (self._query + self._start)[:, :, None]  # (B, longest, n)
        hidden = ~visible.repeat(1, group, 1)[:, None]  # (B, 1, group * longest, n)
        logits.masked_fill_(hidden, float("-inf"))
        passage = slice(self._start, self._start + self._longest)
        weights = logits.softmax(-1)[..., passage]  # (B, KV, group * longest, longest)
        # Queries of the padding repeat nothing.
        repeats_nothing = ~self._inside.repeat(1, group)  # (B, group * longest)
        weights.masked_fill_(repeats_nothing[:, None, :, None], 0.0)
        scores = weights.amax(2)  # (B, KV, longest)
        # Below every weight, so that padding is never chosen.
        self._scores.append(scores.masked_fill(~self._inside[:, None], -1.0))

    def result(self) -> Tensor:
        """Scores [batch, layers, kv_heads, longest] in [0, 1]; -1 beyond a row's passage."""
        return torch.stack(self._scores, dim=1)


def top_share(scores: Tensor, length: int, keep: float) -> Tensor:
    """Choose the entries with the largest scores over all layers and heads together.

    Args:
        scores: [layers, kv_heads, >= length].
        length: Tokens of the passage.
        keep: The share of entries to keep.

    Returns:
        bool [layers, kv_heads, length], True for the entries to keep; at least one is.
    """
    scores = scores[..., :length]  # (L, KV, length)
    count = max(1, round(keep * scores.numel()))
    if count >= scores.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    best = scores.flatten().topk(count).indices  # (count,) into layers, heads and tokens together
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[best] = True
    return chosen.reshape(scores.shape)
