"""The cache that a model reads memories from: keys, values and attention biases, layer by layer.

Knows no model, no prompt and no compression method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, eq=False)
class MemoryCache:
    """Entries of the prompt's prefix and of memories, followed by the new tokens that read them.

    A row of the batch is one prompt. Layers differ in their number of entries. Within a layer,
    heads and rows with fewer entries than the longest one are padded, and -inf in `bias` closes the
    padding to attention.

    Attributes:
        keys: By layer, [batch, kv_heads, entries + room, d], rotated to their positions.
        values: By layer, the same shape.
        bias: By layer, [batch, kv_heads, 1, entries + room], added to the attention logits.
        starts: By row, the position of the first new token.
        room: The number of new tokens that the tensors have space for. New tokens are written in
            place and kept, for greedy decoding. With 0 they are joined to the entries for one pass
            and not kept; gradients then flow through the entries.
        tokens_read: Tokens that the model processed to build the cache: 0 for stored KV entries.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    bias: Sequence[Tensor]
    starts: Sequence[int]
    room: int = 0
    tokens_read: int = 0
    # by layer, the new tokens that `update` has written
    _written: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    is_compileable = False  # transformers asks every cache

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens before the next one, as transformers counts them: of the longest row."""
        return max(self.starts) + self._written.get(layer, 0)

    def update(
        self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Add a layer's new keys and values [batch, kv_heads, m, d]; return all of the layer's.

        transformers calls this once per layer and forward pass.
        """
        if not self.room:
            joined_keys = torch.cat([self.keys[layer], key], dim=2)  # (B, H, entries + m, d)
            joined_values = torch.cat([self.values[layer], value], dim=2)
            return joined_keys, joined_values
        start = self.keys[layer].shape[2] - self.room + self._written.get(layer, 0)
        end = start + key.shape[2]
        self.keys[layer][:, :, start:end] = key
        self.values[layer][:, :, start:end] = value
        self._written[layer] = self._written.get(layer, 0) + key.shape[2]
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def inputs(
        self, tokens: Tensor, offsets: Tensor | None = None, mask: Tensor | None = None
    ) -> dict[str, Any]:
        """The arguments of a forward pass over new tokens that read this cache.

        Args:
            tokens: Ids [batch, m].
            offsets: Position of each token after its row's start [batch, m]; 0, 1, 2, ... if left
                out.
            mask: Additive mask [1 or batch, 1, m, m] among the new tokens; causal if left out.
        """
        device = tokens.device
        if offsets is None:
            written = self._written.get(0, 0)
            offsets = torch.arange(written, written + tokens.shape[1], device=device)
        starts = torch.tensor(self.starts, device=device)
        return {
            "input_ids": tokens,
            "position_ids": starts[:, None] + offsets,  # (B, m)
            "attention_mask": causal_mask(tokens.shape[1], self.bias[0]) if mask is None else mask,
            "memory_cache": self,
        }

    def with_room(self, room: int) -> MemoryCache:
        """A copy of this cache with space for `room` new tokens."""
        return replace(
            self,
            keys=[pad(t, (0, 0, 0, room)) for t in self.keys],
            values=[pad(t, (0, 0, 0, room)) for t in self.values],
            bias=[pad(t, (0, room)) for t in self.bias],
            room=room,
        )

    def branched(self, rows: int) -> MemoryCache:
        """The entries and new tokens of the only row so far, as a cache without room for `rows`
        continuations.
        """
        keys: list[Tensor] = []
        values: list[Tensor] = []
        bias: list[Tensor] = []
        for layer, written in enumerate(self._written.get(n, 0) for n in range(len(self.keys))):
            end = self.keys[layer].shape[2] - self.room + written
            keys.append(self.keys[layer][:, :, :end].expand(rows, -1, -1, -1))
            values.append(self.values[layer][:, :, :end].expand(rows, -1, -1, -1))
            bias.append(self.bias[layer][..., :end].expand(rows, -1, -1, -1))
        return MemoryCache(keys, values, bias, [self.starts[0] + self._written.get(0, 0)] * rows)


def stacked(caches: Sequence[MemoryCache]) -> MemoryCache:
    """One cache without room whose rows are those of several caches without room."""
    keys: list[Tensor] = []
    values: list[Tensor] = []
    bias: list[Tensor] = []
    for layer in range(len(caches[0].keys)):
        longest = max(cache.keys[layer].shape[2] for cache in caches)
        missing = [longest - cache.keys[layer].shape[2] for cache in caches]
        pairs = list(zip(caches, missing, strict=True))
        keys.append(torch.cat([pad(c.keys[layer], (0, 0, 0, n)) for c, n in pairs]))
        values.append(torch.cat([pad(c.values[layer], (0, 0, 0, n)) for c, n in pairs]))
        bias.append(torch.cat([pad(c.bias[layer], (0, n), value=-math.inf) for c, n in pairs]))
    starts = [start for cache in caches for start in cache.starts]
    return MemoryCache(keys, values, bias, starts, tokens_read=sum(c.tokens_read for c in caches))


def causal_mask(count: int, like: Tensor) -> Tensor:
    """The additive mask [1, 1, count, count] that shows each token itself and those before it.

    `like` gives the mask its type and device.
    """
    return like.new_full((count, count), -math.inf).triu(1)[None, None]
