"""The entries of kv memories as a cache, in numpy: decoded, rotated to their positions and placed.
The arrays of a memory are those of docs/format.md. Knows no session.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.cpu.network import Cache, value
from cmt_sdk.cpu.shape import Shape
from cmt_sdk.reading.codec import KIND as CODED
from cmt_sdk.reading.codec import Codec, Entries
from cmt_sdk.reading.codes import decoded
from cmt_sdk.reading.places import kept_bits, places_of
from cmt_sdk.reading.uncompressed import KIND as UNCOMPRESSED
from cmt_sdk.reading.uncompressed import biases_of, entries_of, uncompressed
from cmt_sdk.types import CompressedPassage

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prefix:
    """The entries of a prompt's prefix.

    Attributes:
        keys: [layers, kv_heads, p, head_dim], rotated.
        values: The same shape.
    """

    keys: Floats
    values: Floats

    @property
    def length(self) -> int:
        """Tokens of the prefix."""
        return int(self.keys.shape[2])


@dataclass(frozen=True)
class Layout:
    """Makes caches for one model.

    Attributes:
        shape: The model's sizes.
        prefix: The entries before all memories.
        codec: Decodes memories that it made; None where the model has none.
    """

    shape: Shape
    prefix: Prefix
    codec: Codec | None = None
    # What the codec made of memories, by their id(), as long as they live: the best candidates are
    # put in order, and then read.
    _known: dict[int, Entries] = field(default_factory=dict, compare=False, repr=False)

    def empty(self, rows: int = 1) -> Cache:
        """A cache without a prefix: one entry a head, closed."""
        s = self.shape
        zeros = value(np.zeros((rows, s.kv_heads, 1, s.head), np.float32))
        closed = value(np.full((rows, s.kv_heads, 1, 1), -math.inf, np.float32))
        return Cache([zeros] * s.layers, [zeros] * s.layers, [closed] * s.layers, [0] * rows)

    def cache(self, rows: Sequence[Sequence[CompressedPassage]], bias: float = 0.0) -> Cache:
        """A cache of one row of memories per prompt, each behind the prefix.

        1. Find each entry's head, position and slot; pad every head of a layer to the longest.
        2. Decode one memory after another, and rotate its keys to their positions.
        3. Write the biases: `bias` for all memories of a row but the last, -inf for padding.

        Args:
            rows: The memories of each row, in the order in which they are read.
            bias: Of the entries of all memories of a row but the last, if they are compressed.
        """
        s = self.shape
        heads = s.layers * s.kv_heads
        entries = [[self._decoded(memory) for memory in memories] for memories in rows]
        places = [places_of([e.kept for e in row], self.prefix.length, heads) for row in entries]
        per_row = np.stack([p.per_row for p in places])  # (B, heads)
        longest = per_row.reshape(len(rows), s.layers, s.kv_heads).max((0, 2))  # (L,)
        # A layer's block is [B, kv_heads, longest]; all blocks lie one behind the other.
        sizes = len(rows) * s.kv_heads * longest
        blocks = np.cumsum(sizes) - sizes  # (L,)
        keys = np.zeros((int(sizes.sum()), s.head), np.float32)
        values = np.zeros_like(keys)
        biases = np.full(len(keys), -math.inf, np.float32)
        layer_of, head_of = np.divmod(np.arange(heads), s.kv_heads)
        for b, (memories, row, place) in enumerate(zip(rows, entries, places, strict=True)):
            starts = blocks[layer_of] + (b * s.kv_heads + head_of) * longest[layer_of]  # (heads,)
            first = (starts[:, None] + np.arange(self.prefix.length)).reshape(-1)
            keys[first] = self.prefix.keys.reshape(-1, s.head)
            values[first] = self.prefix.values.reshape(-1, s.head)
            biases[first] = 0.0
            targets = starts[place.row] + place.slot  # (n,), n entries of all memories of the row
            biases[targets] = biases_of(memories, bias)[place.memory]
            end = 0
            for memory in row:
                start, end = end, end + int(memory.kept.sum())
                keys[targets[start:end]] = self._rotated(memory.keys, place.position[start:end])
                values[targets[start:end]] = memory.values
        cut = blocks[1:]

        def by_layer(flat: Floats, *tail: int) -> list[Any]:
            return [
                value(part.reshape(len(rows), s.kv_heads, *tail)) for part in np.split(flat, cut)
            ]

        return Cache(
            by_layer(keys, -1, s.head),
            by_layer(values, -1, s.head),
            by_layer(biases, 1, -1),
            [place.end for place in places],
        )

    def _decoded(self, memory: CompressedPassage) -> Entries | FourBitEntries:
        """The entries of a memory: in the codes of a codec or of four bits, or not compressed.

        Raises:
            StorageDamaged: It is not one of this model.
        """
        if memory.kind == UNCOMPRESSED:
            return entries_of(memory)
        if self.codec is None or memory.kind != CODED:
            return FourBitEntries(memory)
        known = self._known.get(id(memory))
        if known is None:
            known = self._known[id(memory)] = self.codec.decode(memory)
            weakref.finalize(memory, self._known.pop, id(memory), None)
        return known

    def uncompressed(self, cache: Cache) -> CompressedPassage:
        """The tokens that a cache of one row has taken in, as a passage with all its entries."""
        s = self.shape
        heads = s.layers * s.kv_heads
        keys, values = (
            np.concatenate([cache.past[f"{kind}{layer}"].numpy()[0] for layer in range(s.layers)])
            for kind in ("past_key", "past_value")
        )  # (heads, n, head_dim) each
        positions = np.tile(np.arange(cache.read) + cache.starts[0], heads)
        keys = self._rotated(keys.reshape(-1, s.head), positions, back=True)
        return uncompressed(keys.reshape(values.shape), values)

    def _rotated(self, keys: Floats, positions: NDArray[np.int64], *, back: bool = False) -> Floats:
        """Keys [n, head_dim] at position 0, rotated to their positions [n]; or `back` to 0."""
        cos, sin = _rotation(self.shape)
        half = self.shape.head // 2
        a, b = keys[:, :half], keys[:, half:]
        c, s = cos.take(positions, axis=0), sin.take(positions, axis=0)
        s = -s if back else s
        rotated = np.empty_like(keys)
        np.subtract(a * c, b * s, out=rotated[:, :half])
        np.add(b * c, a * s, out=rotated[:, half:])
        return rotated


@dataclass(frozen=True)
class FourBitEntries:
    """As Entries, of a memory in codes of four bits: decoded when they are asked for, so that those
    of one memory at a time take space.

    Attributes:
        memory: The memory.
    """

    memory: CompressedPassage

    @cached_property
    def kept(self) -> NDArray[np.uint8]:
        """As in Entries."""
        return kept_bits(self.memory)

    @property
    def keys(self) -> Floats:
        """As in Entries."""
        means = self.memory.arrays["key_mean"].astype(np.float32)
        keys = decoded(self.memory, "key")
        keys += means.repeat(self.kept.sum(1, dtype=np.int64), axis=0)
        return keys

    @property
    def values(self) -> Floats:
        """As in Entries."""
        return decoded(self.memory, "value")


@lru_cache(maxsize=4)
def _rotation(shape: Shape) -> tuple[Floats, Floats]:
    return shape.rotation()
