"""Several memories read side by side, each by a row of its own: one pass for all of them. Knows no
prompt.

A prefix (neural.reading) puts memories one after another, for one reader; here each stands alone at
the same place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, cat
from torch.nn.functional import pad

from cmt_sdk.neural.attention import attend_rows
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.reading import place
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.types import PackedMemory


@dataclass
class Abreast:
    """A cache for several readings: entries of the notes of each row, then the row's new tokens,
    which are not kept.

    keys, values: by layer [batch, kv_heads, entries, d]. bias: by layer [batch, kv_heads, 1,
    entries], added to the attention logits: 0, and -inf where padding is. starts: the position of
    each row's first new token.
    """

    keys: list[Tensor]
    values: list[Tensor]
    bias: list[Tensor]
    starts: Sequence[int]
    is_compileable = False

    def get_seq_length(self, _layer: int = 0) -> int:
        """Tokens before the new ones, of the row that has most."""
        return max(self.starts)

    def update(
        self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """A layer's keys and values [batch, kv_heads, entries + m, d], with the new ones."""
        return cat([self.keys[layer], key], dim=2), cat([self.values[layer], value], dim=2)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        scaling: float,
        cap: float | None = None,
    ) -> Tensor:
        """Attention of query [batch, heads, m, d] over notes and new tokens; returns [batch, m,
        heads, d]. As in Prefix.
        """
        batch, heads, count, width = query.shape
        kv_heads = key.shape[1]
        whole = cat(
            [self.bias[layer].expand(-1, -1, count, -1), mask.expand(batch, kv_heads, -1, -1)],
            dim=3,
        )
        rows = query.reshape(batch, kv_heads, -1, width)
        attended = attend_rows(
            rows, key, value, whole.repeat(1, 1, heads // kv_heads, 1), scaling, cap
        )
        return attended.reshape(batch, heads, count, width).transpose(1, 2)


def abreast(lm: FrozenModel, rotary: Rotary, memories: Sequence[PackedMemory]) -> Abreast:
    """Each memory alone behind the head of the prompt, as a question would read it."""
    prefixes = [place(lm, rotary, [memory], 0) for memory in memories]
    made = Abreast([], [], [], [p.position for p in prefixes])
    for layer in range(len(prefixes[0].keys)):
        most = max(p.entries[layer] for p in prefixes)
        made.keys.append(cat([_filled(p.keys[layer], most, 0.0) for p in prefixes]))
        made.values.append(cat([_filled(p.values[layer], most, 0.0) for p in prefixes]))
        made.bias.append(
            cat(
                [_filled(p.bias[layer].transpose(2, 3), most, -math.inf) for p in prefixes]
            ).transpose(2, 3)
        )
    return made


def _filled(entries: Tensor, most: int, filler: float) -> Tensor:
    """Entries [1, kv_heads, n, d] with rows of `filler` behind them, `most` in all."""
    return pad(entries, (0, 0, 0, most - entries.shape[2]), value=filler)
