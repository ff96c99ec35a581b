"""Where the entries of kv memories go in a cache: rows, slots, and the biases that close padding.

A row is one key-value head of one layer. Heads keep different numbers of entries, so rows differ in
length; all of them lie one behind the other in one flat buffer, [row 0 | row 1 | ...], and the rows
of a layer are padded to its longest. So one copy places the entries of all memories, layers and
heads. Knows the bits of a kv memory, no model. rows = layers * kv_heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmt_sdk.types import CompressedPassage


def kept_bits(memory: CompressedPassage) -> NDArray[np.uint8]:
    """Which entries a memory holds, 0 or 1, [rows, tokens]."""
    return np.unpackbits(memory.arrays["kept"].view(np.uint8), axis=1, count=memory.tokens)


@dataclass(frozen=True)
class Places:
    """Where the n entries of all memories go.

    Attributes:
        row: [n], layer * kv_heads + head.
        position: [n], in the prompt.
        slot: [n], index in the row.
        memory: [n], number of the memory.
        per_row: [rows], entries of each row, the prefix included.
        end: The first position after all memories.
    """

    row: Tensor
    position: Tensor
    slot: Tensor
    memory: Tensor
    per_row: NDArray[Any]
    end: int


def places_of(memories: Sequence[CompressedPassage], prefix_length: int, rows: int) -> Places:
    """Find the place of each entry.

    Positions count the tokens of the passages, kept or not; slots count the entries of a row. So a
    pruned memory keeps the distances between its tokens, and takes up less space.

    Args:
        memories: The memories, in the order in which they are read.
        prefix_length: Tokens before them.
        rows: Layers times key-value heads.
    """
    found_rows = []
    positions = []
    slots = []
    owners = []
    filled = np.full(rows, prefix_length)  # (rows,) entries of each row so far
    start = prefix_length  # the position of the memory's first token
    for number, memory in enumerate(memories):
        # The codes of a memory are in the order of its bits: row by row, then by token.
        kept = kept_bits(memory)  # (rows, tokens)
        row, position = np.nonzero(kept)  # (n,) each, n entries of this memory
        counts = kept.sum(1, dtype=np.int64)  # (rows,)
        first = np.cumsum(counts) - counts  # (rows,) index of each row's first entry in `row`
        place_in_memory = np.arange(len(row)) - first[row]  # (n,) among the entries of its row
        found_rows.append(row)
        positions.append(position + start)
        slots.append(place_in_memory + filled[row])
        owners.append(np.full(len(row), number))
        filled = filled + counts
        start += memory.tokens
    return Places(
        row=_joined(found_rows),
        position=_joined(positions),
        slot=_joined(slots),
        memory=_joined(owners),
        per_row=filled,
        end=start,
    )


def _joined(parts: Sequence[NDArray[Any]]) -> Tensor:
    """Arrays of whole numbers as one tensor int64 [n]; empty without parts."""
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts]))


def blocks_by_layer(flat: Tensor, lengths: NDArray[Any], kv_heads: int) -> list[Tensor]:
    """The flat buffer [2, n, d] of keys and values as views, one per layer.

    Args:
        flat: The buffer, row after row.
        lengths: Slots of each row, [rows], the same in a layer.
        kv_heads: Rows per layer.

    Returns:
        By layer, [2, kv_heads, padded + room, d].
    """
    sizes = lengths.reshape(-1, kv_heads).sum(1).tolist()  # by layer, slots of all its rows
    parts = torch.split(flat, sizes, dim=1)
    return [part.reshape(2, kv_heads, -1, flat.shape[2]) for part in parts]


def biases_by_layer(
    biases: Tensor,
    per_row: NDArray[Any],
    lengths: NDArray[Any],
    entries: NDArray[Any],
    kv_heads: int,
) -> list[Tensor]:
    """The biases of each layer, with -inf where padding is.

    Args:
        biases: [n], in the order of the flat buffer.
        per_row: Entries of each row, [rows].
        lengths: Slots of each row, [rows]: entries, padding and room.
        entries: Entries of each layer's longest row, [layers].
        kv_heads: Rows per layer.

    Returns:
        By layer, [1, kv_heads, 1, padded + room].
    """
    made = []
    by_layer = torch.split(biases, lengths.reshape(-1, kv_heads).sum(1).tolist())
    for layer, longest in enumerate(entries):
        rows = slice(layer * kv_heads, (layer + 1) * kv_heads)
        slots = np.arange(lengths[rows.start])[None]  # (1, padded + room)
        # The room stays open: the mask of the new tokens decides there.
        is_padding = (slots >= per_row[rows, None]) & (slots < longest)  # (KV, padded + room)
        closed = torch.from_numpy(is_padding).to(biases.device)
        layer_biases = by_layer[layer].reshape(kv_heads, -1)  # (KV, padded + room)
        masked = layer_biases.masked_fill(closed, float("-inf"))
        made.append(masked[None, :, None])  # (1, KV, 1, padded + room)
    return made
