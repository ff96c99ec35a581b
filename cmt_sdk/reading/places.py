"""Where the entries of kv memories go in a cache. Knows the bits of a kv memory, no model.

A row is one key-value head of one layer; heads keep different numbers of entries, so rows differ in
length. rows = layers * kv_heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.types import CompressedPassage

Whole = NDArray[np.int64]


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

    row: Whole
    position: Whole
    slot: Whole
    memory: Whole
    per_row: NDArray[Any]
    end: int


def places_of(bits: Sequence[NDArray[np.uint8]], prefix_length: int, rows: int) -> Places:
    """Find the place of each entry.

    Positions count the tokens of the passages, kept or not; slots count the entries of a row. So a
    pruned memory keeps the distances between its tokens, and takes up less space.

    Args:
        bits: Which entries each memory holds, 0 or 1, [rows, tokens], in the order in which the
            memories are read.
        prefix_length: Tokens before them.
        rows: Layers times key-value heads.
    """
    found_rows = []
    positions = []
    slots = []
    owners = []
    filled = np.full(rows, prefix_length)  # (rows,) entries of each row so far
    start = prefix_length  # the position of the memory's first token
    for number, kept in enumerate(bits):
        # The entries of a memory are in the order of its bits: row by row, then by token.
        row, position = np.nonzero(kept)  # (n,) each, n entries of this memory
        counts = kept.sum(1, dtype=np.int64)  # (rows,)
        first = np.cumsum(counts) - counts  # (rows,) index of each row's first entry in `row`
        place_in_memory = np.arange(len(row)) - first[row]  # (n,) among the entries of its row
        found_rows.append(row)
        positions.append(position + start)
        slots.append(place_in_memory + filled[row])
        owners.append(np.full(len(row), number))
        filled = filled + counts
        start += kept.shape[1]
    return Places(
        row=_joined(found_rows),
        position=_joined(positions),
        slot=_joined(slots),
        memory=_joined(owners),
        per_row=filled,
        end=start,
    )


def _joined(parts: Sequence[NDArray[Any]]) -> Whole:
    """Arrays of whole numbers as one [n]; empty without parts."""
    return np.concatenate([np.zeros(0, np.int64), *parts])
