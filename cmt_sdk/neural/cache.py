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
        """Tokens before the next one, as transformers counts them: of the longest row.

        A position and not a number of entries: pruned memories have fewer entries than positions.
        """
        return max(self.starts) + self._written.get(layer, 0)

    def update(
        self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Add a layer's new keys and values; transformers calls this once per layer and pass.

        Args:
            key: [batch, kv_heads, m, d], rotated.
            value: The same shape.
            layer: Number of the layer.

        Returns:
            All keys and values of the layer [batch, kv_heads, entries + m, d]; with room, the new
            tokens of earlier passes among the entries.
        """
        if not self.room:
            joined_keys = torch.cat([self.keys[layer], key], dim=2)  # (B, KV, entries + m, d)
            joined_values = torch.cat([self.values[layer], value], dim=2)
            return joined_keys, joined_values
        # Written in place: joining would copy all entries for every token of an answer.
        written = self._written.get(layer, 0)
        start = self.keys[layer].shape[2] - self.room + written
        end = start + key.shape[2]
        self.keys[layer][:, :, start:end] = key
        self.values[layer][:, :, start:end] = value
        self._written[layer] = written + key.shape[2]
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

        Returns:
            Named arguments for `FrozenModel.forward`. `memory_cache` reaches `attention` through
            every layer of the model.
        """
        device = tokens.device
        if offsets is None:
            written = self._written.get(0, 0)  # between two passes all layers agree
            offsets = torch.arange(written, written + tokens.shape[1], device=device)  # (m,)
        if mask is None:
            mask = causal_mask(tokens.shape[1], self.bias[0])
        starts = torch.tensor(self.starts, device=device)
        return {
            "input_ids": tokens,
            "position_ids": starts[:, None] + offsets,  # (B, m)
            "attention_mask": mask,
            "memory_cache": self,
        }

    def with_room(self, room: int) -> MemoryCache:
        """A copy of this cache, which has none, with space for `room` new tokens."""
        return replace(
            self,
            keys=[pad(t, (0, 0, 0, room)) for t in self.keys],  # (B, KV, entries + room, d)
            values=[pad(t, (0, 0, 0, room)) for t in self.values],
            bias=[pad(t, (0, room)) for t in self.bias],  # (B, KV, 1, entries + room), open
            room=room,
        )

    def branched(self, rows: int) -> MemoryCache:
        """The entries and new tokens of the only row so far, as a cache without room for `rows`
        continuations. The rows share the memory of the tensors.
        """
        keys: list[Tensor] = []
        values: list[Tensor] = []
        bias: list[Tensor] = []
        for layer in range(len(self.keys)):
            # Up to the last token that was written; the rest of the room stays behind.
            end = self.keys[layer].shape[2] - self.room + self._written.get(layer, 0)
            keys.append(self.keys[layer][:, :, :end].expand(rows, -1, -1, -1))  # (rows, KV, end, d)
            values.append(self.values[layer][:, :, :end].expand(rows, -1, -1, -1))
            bias.append(self.bias[layer][..., :end].expand(rows, -1, -1, -1))  # (rows, KV, 1, end)
        start = self.starts[0] + self._written.get(0, 0)
        return MemoryCache(keys, values, bias, [start] * rows)


def stacked(caches: Sequence[MemoryCache]) -> MemoryCache:
    """One cache without room whose rows are those of several caches without room.

    Layer by layer, rows with fewer entries are padded behind them, closed by a bias of -inf.
    """
    keys: list[Tensor] = []
    values: list[Tensor] = []
    bias: list[Tensor] = []
    for layer in range(len(caches[0].keys)):
        longest = max(cache.keys[layer].shape[2] for cache in caches)
        missing = [longest - cache.keys[layer].shape[2] for cache in caches]
        pairs = list(zip(caches, missing, strict=True))
        padded_keys = [pad(c.keys[layer], (0, 0, 0, n)) for c, n in pairs]
        padded_values = [pad(c.values[layer], (0, 0, 0, n)) for c, n in pairs]
        padded_bias = [pad(c.bias[layer], (0, n), value=-math.inf) for c, n in pairs]
        keys.append(torch.cat(padded_keys))  # (B, KV, longest, d)
        values.append(torch.cat(padded_values))
        bias.append(torch.cat(padded_bias))  # (B, KV, 1, longest)
    starts = [start for cache in caches for start in cache.starts]
    tokens_read = sum(cache.tokens_read for cache in caches)
    return MemoryCache(keys, values, bias, starts, tokens_read=tokens_read)


def causal_mask(count: int, like: Tensor) -> Tensor:
    """The additive mask that shows each token itself and those before it.

    Args:
        count: Number of tokens.
        like: Gives the mask its type and device.

    Returns:
        [1, 1, count, count].
    """
    closed = like.new_full((count, count), -math.inf)
    return closed.triu(1)[None, None]  # (1, 1, count, count)
