"""Which KV entries matter: KVzip's query-agnostic score (Kim et al. 2025, arXiv 2505.23416). Pure
tensor code.

After a passage the model is made to repeat it; an entry's score is the largest attention that any
repeating query, of any query head in its group, pays to it. All layers and heads then share one
budget.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmt_sdk.neural.attention import capped

REPEAT = "Repeat the notes:\n"


class RepeatScores:
    """Watches one forward pass over [head | passage | cue | passage again] and keeps each entry's
    score.

    start: index of the passage's first key. lengths: tokens of each row's passage, [batch]. cue:
    tokens between.
    """

    def __init__(self, start: int, lengths: Tensor, cue: int) -> None:
        self._start = start
        self._longest = int(lengths.max())
        steps = torch.arange(self._longest, device=lengths.device)
        self._inside = steps[None] < lengths[:, None]
        # Row and column of every repeating query, counted from the end of the head, clipped at the
        # row's end.
        self._query = (lengths[:, None] + cue + steps[None]).clamp(max=2 * self._longest + cue - 1)
        self._scores: list[Tensor] = []

    def see(
        self, layer: int, query: Tensor, key: Tensor, scaling: float, cap: float | None = None
    ) -> None:
        """Keep the layer's scores [batch, kv_heads, longest]."""
        assert layer == len(self._scores), "one forward pass, layer after layer"  # noqa: S101 - a fact of this file
        batch, heads, _, width = query.shape
        kv_heads, total = key.shape[1], key.shape[2]
        rows = self._query[:, None, :, None].expand(batch, heads, self._longest, width)
        asked = query.gather(2, rows).reshape(batch, kv_heads, -1, width)
        weights = capped((asked @ key.transpose(2, 3)).float().mul_(scaling), cap)
        visible = (
            torch.arange(total, device=key.device)[None, None]
            <= (self._query + self._start)[:, :, None]
        )
        groups = heads // kv_heads
        weights.masked_fill_(~visible.repeat(1, groups, 1)[:, None], float("-inf"))
        paid = weights.softmax(-1)[..., self._start : self._start + self._longest]
        paid.masked_fill_(~self._inside.repeat(1, groups)[:, None, :, None], 0.0)
        self._scores.append(paid.amax(2).masked_fill(~self._inside[:, None], -1.0))

    def result(self) -> Tensor:
        """Scores [batch, layers, kv_heads, longest]; -1 beyond a row's passage."""
        return torch.stack(self._scores, dim=1)


def best(scores: Tensor, length: int, keep: float) -> Tensor:
    """The entries to keep, bool [layers, kv_heads, length]: the best `keep` share over all layers
    and heads.
    """
    scores = scores[..., :length]
    count = max(1, round(keep * scores.numel()))
    if count >= scores.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[scores.flatten().topk(count).indices] = True
    return chosen.reshape(scores.shape)
