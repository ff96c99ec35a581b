"""KVzip: which KV entries of a passage matter, without knowing the question (Kim et al. 2025, arXiv
2505.23416). Pure tensor code.

1. After the passage the model reads a cue, "Repeat the notes:", and the passage again.
2. The score of an entry (one token in one layer and key-value head) is the largest attention weight
   that any repeating query, of any query head in its group, pays to it.
3. The entries with the largest scores are kept; all layers and heads share one budget.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmt_sdk.neural.attention import capped

REPEAT = "Repeat the notes:\n"


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
        steps = torch.arange(self._longest, device=lengths.device)
        self._inside = steps[None] < lengths[:, None]  # (B, longest)
        # Row and index of every repeating query, counted from the end of the prefix; queries of the
        # padding are clipped to the last index.
        last = 2 * self._longest + cue - 1
        self._query = (lengths[:, None] + cue + steps[None]).clamp(max=last)  # (B, longest)
        self._scores: list[Tensor] = []

    def see(
        self, layer: int, query: Tensor, key: Tensor, scaling: float, cap: float | None = None
    ) -> None:
        """Compute the layer's scores [batch, kv_heads, longest].

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
        rows = repeating.reshape(batch, kv_heads, -1, width)  # (B, KV, group * longest, d)
        logits = capped((rows @ key.transpose(2, 3)).float().mul_(scaling), cap)
        # A repeating query sees every key up to itself.
        keys = torch.arange(total, device=key.device)[None, None]
        visible = keys <= (self._query + self._start)[:, :, None]  # (B, longest, n)
        logits.masked_fill_(~visible.repeat(1, group, 1)[:, None], float("-inf"))
        passage = slice(self._start, self._start + self._longest)
        weights = logits.softmax(-1)[..., passage]  # (B, KV, group * longest, longest)
        # Queries of the padding repeat nothing.
        weights.masked_fill_(~self._inside.repeat(1, group)[:, None, :, None], 0.0)
        scores = weights.amax(2)  # (B, KV, longest)
        self._scores.append(scores.masked_fill(~self._inside[:, None], -1.0))

    def result(self) -> Tensor:
        """Scores [batch, layers, kv_heads, longest]; -1 beyond a row's passage."""
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
    scores = scores[..., :length]
    count = max(1, round(keep * scores.numel()))
    if count >= scores.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[scores.flatten().topk(count).indices] = True
    return chosen.reshape(scores.shape)
