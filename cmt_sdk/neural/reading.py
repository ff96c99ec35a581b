"""Memories as a prefix that the model attends to: placed one after another, every head with its own
entries.

Knows the layout of `kv` memories and nothing of prompts or generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmt_sdk.neural.attention import attend_rows
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import codes_of
from cmt_sdk.neural.quantization import dequantize
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.types import PackedMemory

# Passages read apart from each other compete for the question's attention as equals; that the
# search ranked one of them first has to be said. On 40 questions over five passages each, F1 rose
# from 37 to 49.
PRIOR = -1.0


@dataclass
class Prefix:
    """A cache for one question: entries of the notes first, padded to a layer's longest head, then
    the new tokens.

    keys, values: by layer [1, kv_heads, padded + room, d]. bias: by layer [1, kv_heads, 1, padded +
    room], added to the logits: an entry's prior, and -inf where padding is. entries: by layer, the
    padded length. position: of the first new token.
    """

    keys: list[Tensor]
    values: list[Tensor]
    bias: list[Tensor]
    entries: list[int]
    position: int
    is_compileable = False

    def __post_init__(self) -> None:
        self._filled = list(self.entries)

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens before the next one, as transformers counts them."""
        return self.position + self._filled[layer] - self.entries[layer]

    def update(
        self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Add a layer's new keys and values [1, kv_heads, m, d]; returns all of the layer's."""
        start = self._filled[layer]
        end = start + key.shape[2]
        self.keys[layer][:, :, start:end] = key
        self.values[layer][:, :, start:end] = value
        self._filled[layer] = end
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

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
        """Attention of query [b, heads, m, d] over the notes and, as mask [b, 1, m, m] allows, the
        new tokens.

        Returns [b, m, heads, d]; b is 1 in serving. The query heads of a group become rows of their
        key-value head: no key is copied.
        """
        batch, heads, count, width = query.shape
        kv_heads, total = key.shape[1], key.shape[2]
        bias = self.bias[layer][..., : total - count].expand(-1, -1, count, -1)
        whole = torch.cat([bias, mask.expand(-1, kv_heads, -1, -1)], dim=3)
        if count > 1:
            whole = whole.repeat(1, 1, heads // kv_heads, 1)
        rows = query.reshape(batch, kv_heads, -1, width)
        attended = attend_rows(rows, key, value, whole, scaling, cap)
        return attended.reshape(batch, heads, count, width).transpose(1, 2)


def causal(count: int, like: Tensor) -> Tensor:
    """The additive mask [1, 1, count, count] with which each new token sees itself and those before
    it.
    """
    return like.new_full((count, count), float("-inf")).triu(1)[None, None]


@dataclass(frozen=True)
class _Places:
    """Where every entry of all memories goes: its row (layer * kv_heads + head), position, slot in
    its row, and memory.
    """

    row: Tensor
    position: Tensor
    slot: Tensor
    per_row: NDArray[Any]
    memory: Tensor
    end: int


def _places(memories: Sequence[PackedMemory], head: int, rows: int) -> _Places:
    found_rows, positions, slots, owners = [], [], [], []
    filled, start = np.full(rows, head), head
    for number, memory in enumerate(memories):
        kept = np.unpackbits(memory.arrays["kept"].view(np.uint8), axis=1, count=memory.tokens)
        row, position = np.nonzero(kept)
        counts = kept.sum(1, dtype=np.int64)
        first = np.cumsum(counts) - counts
        found_rows.append(row)
        positions.append(position + start)
        slots.append(np.arange(len(row)) - first[row] + filled[row])
        owners.append(np.full(len(row), number))
        filled = filled + counts
        start += memory.tokens
    return _Places(
        _joined(found_rows), _joined(positions), _joined(slots), filled, _joined(owners), start
    )


def _joined(parts: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts]))


@torch.inference_mode()
def place(
    lm: FrozenModel, rotary: Rotary, memories: Sequence[PackedMemory], room: int, prior: float = 0.0
) -> Prefix:
    """The prefix [head of the prompt | memory 1 | memory 2 | ...] with room for `room` new tokens.

    No token of a passage is processed: codes become keys and values, keys are turned to their new
    positions. `prior` is added to the attention logits of all memories but the last.
    """
    layers, kv_heads, width = lm.kv_shape
    head = lm.head_cache(1)
    places = _places(memories, len(lm.head_ids), layers * kv_heads)
    entries = places.per_row.reshape(layers, kv_heads).max(1)
    lengths = np.repeat(entries + room, kv_heads)
    starts = torch.from_numpy(np.cumsum(lengths) - lengths)
    target = (starts[places.row] + places.slot).to(lm.device)
    flat = torch.zeros(2, int(lengths.sum()), width, dtype=lm.dtype, device=lm.device)
    if memories:
        keys, values = _decoded(memories, places.row, lm)
        turned = rotary.turn(
            keys, places.position.to(lm.device), places.row.to(lm.device) // kv_heads
        )
        flat[0].index_copy_(0, target, turned.to(lm.dtype))
        flat[1].index_copy_(0, target, values)
    last = places.memory == len(memories) - 1
    priors = torch.zeros(len(flat[0]), dtype=lm.dtype, device=lm.device)
    priors[target] = torch.where(last, 0.0, prior).to(lm.device, lm.dtype)
    bias = _bias(places.per_row, priors, lengths, entries, kv_heads)
    prefix = Prefix([], [], [], entries.tolist(), places.end)
    for layer, (block, mask) in enumerate(
        zip(_by_layer(flat, lengths, kv_heads), bias, strict=True)
    ):
        block[0, :, : len(lm.head_ids)] = head.layers[layer].keys[0]
        block[1, :, : len(lm.head_ids)] = head.layers[layer].values[0]
        prefix.keys.append(block[0][None])
        prefix.values.append(block[1][None])
        prefix.bias.append(mask)
    prefix.__post_init__()
    return prefix


def _decoded(
    memories: Sequence[PackedMemory], row: Tensor, lm: FrozenModel
) -> tuple[Tensor, Tensor]:
    """Keys (fp32, at position 0) and values (the model's type) of all entries, in the order of the
    memories.
    """
    keys = torch.cat([dequantize(codes_of(m, "key")) for m in memories])
    values = torch.cat([dequantize(codes_of(m, "value")) for m in memories])
    rows = len(memories[0].arrays["key_mean"])
    means = torch.from_numpy(
        np.concatenate([m.arrays["key_mean"] for m in memories]).astype(np.float32)
    )
    counts = torch.tensor([len(m.arrays["key_codes"]) for m in memories])
    owner = torch.arange(len(memories)).repeat_interleave(counts)
    keys += means[owner * rows + row]
    return keys.to(lm.device), values.to(lm.device, lm.dtype)


def _by_layer(flat: Tensor, lengths: NDArray[Any], kv_heads: int) -> list[Tensor]:
    """Views [2, kv_heads, padded + room, d] of the flat buffer, one a layer."""
    sizes = lengths.reshape(-1, kv_heads).sum(1).tolist()
    return [
        part.reshape(2, kv_heads, -1, flat.shape[2]) for part in torch.split(flat, sizes, dim=1)
    ]


def _bias(
    per_row: NDArray[Any],
    priors: Tensor,
    lengths: NDArray[Any],
    entries: NDArray[Any],
    kv_heads: int,
) -> list[Tensor]:
    """A layer's additive masks [1, kv_heads, 1, padded + room]: the priors, and -inf where padding
    is.
    """
    masks = []
    by_layer = torch.split(priors, lengths.reshape(-1, kv_heads).sum(1).tolist())
    for layer, count in enumerate(entries):
        rows = slice(layer * kv_heads, (layer + 1) * kv_heads)
        steps = np.arange(lengths[rows.start])
        padding = torch.from_numpy((steps[None] >= per_row[rows, None]) & (steps[None] < count)).to(
            priors.device
        )
        masks.append(
            by_layer[layer].reshape(kv_heads, -1).masked_fill(padding, float("-inf"))[None, :, None]
        )
    return masks
