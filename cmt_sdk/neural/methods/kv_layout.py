"""The flat buffer that the entries of kv memories are placed in, and the biases that close padding.

The rows of `reading.places` lie one behind the other in it, [row 0 | row 1 | ...], and the rows of
a layer are padded to its longest. So one copy places the entries of all memories, layers and heads.
Knows no model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
