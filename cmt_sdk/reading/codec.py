"""The codec of kv memories: entries as small integers in a basis of each head, compressed.

A transform coder. Per layer and key-value head, and for keys and values apart, a basis turns an
entry, less the head's mean, into coordinates that hardly depend on each other and are all rounded
to whole numbers: of a coordinate that varies little almost every code is 0, and one that never
matters is not stored. The codes of coordinates that vary alike stand together, and zstandard
compresses them. The codec of a model is fitted once (training.codec); docs/format.md has the bytes.

In comments: rows = layers * kv_heads, T tokens, d values per head, n entries, 2 stands for keys and
values. Knows numpy and zstandard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from cmt_sdk.errors import ModelError, StorageDamaged
from cmt_sdk.reading.limits import MAX_PASSAGE_TOKENS
from cmt_sdk.types import CompressedPassage

KIND = "kv2"
LIMIT = 127  # of a code, to either side
LARGEST = 65_504.0  # value of a basis, that of a half: what is decoded is a number
# Bytes that any memory may expand to; larger ones expand to MOST_GROWTH times theirs at most.
ANY_SIZE = 2**24
MOST_GROWTH = 200
DAMAGED = "run `cmt check --repair`, or `cmt reencode` to make it again from the text"

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]
Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class Entries:
    """The entries of a memory, decoded.

    Attributes:
        kept: 1 for each entry that is there, [rows, T].
        keys: At position 0, [n, d], row by row, then by token.
        values: The same shape.
    """

    kept: Bits
    keys: Floats
    values: Floats


@dataclass(frozen=True)
class Codec:
    """Encodes and decodes the entries of one model.

    Attributes:
        mean: Of a head's keys and values, [2, rows, d].
        basis: What a code of 1 adds to the mean, [2, rows, d, d], one line per coordinate.
        classes: [2, rows, d], which coordinates vary alike; 0 for one that is not stored. They
            never rise along a row.
    """

    mean: Floats
    basis: Floats
    classes: NDArray[np.uint8]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]], rows: int, width: int) -> Codec:
        """The codec in a file's tensors.

        Args:
            tensors: By name.
            rows: Layers times key-value heads of the model.
            width: Values per head.

        Raises:
            KeyError: A tensor is missing.
            TypeError: A tensor is of another model, or holds values that are no numbers.
        """
        mean, basis = (tensors[name].astype(np.float32) for name in ("mean", "basis"))
        classes = tensors["classes"].astype(np.uint8)
        shapes = mean.shape, basis.shape, classes.shape
        if shapes != ((2, rows, width), (2, rows, width, width), (2, rows, width)):
            raise TypeError(f"a codec of shape {basis.shape}, not {(2, rows, width, width)}")
        if not (np.isfinite(mean).all() and (np.abs(basis) <= LARGEST).all()):
            raise TypeError("a codec with values that are no numbers, or too large")
        if (np.diff(classes.astype(np.int16), axis=2) > 0).any():
            raise TypeError("a codec whose classes are not in order")
        return cls(mean, basis, classes)

    # -- encode -----------------------------------------------------------------------------------

    def encode(self, keys: Floats, values: Floats, kept: NDArray[Any]) -> CompressedPassage:
        """The memory of a passage.

        Args:
            keys: The kept entries at position 0, [n, d], row by row, then by token.
            values: The same shape.
            kept: Whether an entry is kept, [rows, T].

        Raises:
            ModelError: The codec cannot encode.
        """
        counts = kept.sum(1, dtype=np.int64)  # (rows,)
        ends = np.cumsum(counts)
        codes = []
        for entries, mean, forward, stored in zip(
            (keys, values), self.mean, self._forward, self._stored, strict=True
        ):
            for row, (end, count) in enumerate(zip(ends, counts, strict=True)):
                part = (entries[end - count : end] - mean[row]) @ forward[row, :, : stored[row]]
                codes.append(np.rint(part.T).clip(-LIMIT, LIMIT).astype(np.int8).reshape(-1))
        runs = self._runs
        natural = np.concatenate(codes)
        pieces = np.split(natural, np.cumsum(runs.sizes(counts))[:-1])
        by_class = [
            np.concatenate([pieces[n] for n in runs.order if runs.classes[n] == number])
            for number in np.unique(runs.classes)
        ]
        arrays = {
            "kept": _compressed([np.packbits(kept, axis=1)]),
            "codes": _compressed(by_class),
        }
        return CompressedPassage(KIND, kept.shape[1], arrays)

    @cached_property
    def _forward(self) -> Floats:
        """The coordinates of what a value adds, [2, rows, d, d]: the bases' inverses."""
        try:
            inverse: Floats = np.linalg.inv(self.basis.astype(np.float64)).astype(np.float32)
        except np.linalg.LinAlgError:
            inverse = np.full_like(self.basis, np.nan)
        if not np.isfinite(inverse).all():
            raise ModelError(
                "the codec of the adapter has a basis that cannot be inverted: make one with"
                " `cmt train --part codec`, or store passages with codec='4bit'"
            )
        return inverse

    # -- decode -----------------------------------------------------------------------------------

    def decode(self, memory: CompressedPassage) -> Entries:
        """The entries of a memory of this codec.

        Raises:
            StorageDamaged: It cannot be one.
        """
        kept, counts, stream = self._checked(memory)
        natural = self._runs.natural(stream, counts).astype(np.float32)
        decoded = np.empty((2, int(counts.sum()), self.mean.shape[2]), np.float32)
        ends, at = np.cumsum(counts), 0
        for out, mean, basis, stored in zip(
            decoded, self.mean, self.basis, self._stored, strict=True
        ):
            for row, (end, count) in enumerate(zip(ends, counts, strict=True)):
                used = stored[row]
                part = natural[at : at + used * count].reshape(used, count)
                at += used * count
                np.matmul(part.T, basis[row, :used], out=out[end - count : end])
                out[end - count : end] += mean[row]
        return Entries(kept, *decoded)

    def is_valid(self, memory: CompressedPassage) -> bool:
        """Whether a memory from elsewhere is one of this codec, and complete: then it is decoded
        without an error.
        """
        try:
            self._checked(memory)
        except StorageDamaged:
            return False
        return True

    def _checked(self, memory: CompressedPassage) -> tuple[Bits, Whole, NDArray[np.int8]]:
        """What a memory holds.

        Returns:
            Which entries are kept [rows, T], how many of each row [rows], and all codes in the
            order of the stream.

        Raises:
            StorageDamaged: It cannot be one of this codec.
        """
        rows = self.mean.shape[1]
        if memory.kind != KIND or not 0 < memory.tokens <= MAX_PASSAGE_TOKENS:
            raise StorageDamaged(
                f"a memory of kind {memory.kind!r} and {memory.tokens} tokens is none of the codec"
                f" (kind {KIND!r}, 1 to {MAX_PASSAGE_TOKENS} tokens): {DAMAGED}"
            )
        packed = _expanded(memory, "kept", rows * -(-memory.tokens // 8))
        bits = packed.reshape(rows, -1)
        kept = np.unpackbits(bits, axis=1, count=memory.tokens)
        counts = kept.sum(1, dtype=np.int64)  # (rows,)
        size = int((counts * self._stored.sum(0)).sum())
        stream = _expanded(memory, "codes", size).view(np.int8)
        if stream.min(initial=0) < -LIMIT:
            raise StorageDamaged(
                f"array 'codes' has the code {stream.min()}, codes are {-LIMIT} to {LIMIT}:"
                f" {DAMAGED}"
            )
        return kept, counts, stream

    # -- the order of the codes -------------------------------------------------------------------

    @cached_property
    def _stored(self) -> Whole:
        """How many coordinates of each row are stored, its first ones, [2, rows]."""
        stored: Whole = (self.classes > 0).sum(2, dtype=np.int64)
        return stored

    @cached_property
    def _runs(self) -> _Runs:
        """The runs of its stored coordinates."""
        kind, row, _ = np.nonzero(self.classes)
        found = np.stack([kind, row, self.classes[self.classes > 0]])  # (3, coordinates)
        starts = np.flatnonzero((np.diff(found, axis=1, prepend=-1) != 0).any(0))
        _, rows, classes = found[:, starts]
        lengths = np.diff(starts, append=found.shape[1])
        return _Runs(rows, lengths, classes, np.argsort(classes, kind="stable"))


@dataclass(frozen=True)
class _Runs:
    """Neighbouring coordinates of one class in one row, by kind, then row, then coordinate: the
    natural order. Their codes stand together in the stream too.

    Attributes:
        rows: The row of each run, [runs].
        lengths: Its coordinates, [runs].
        classes: Its class, [runs].
        order: The numbers of the runs in the order of the stream, [runs]: by class, otherwise as
            they are.
    """

    rows: Whole
    lengths: Whole
    classes: Whole
    order: Whole

    def sizes(self, counts: Whole) -> Whole:
        """The codes of each run, [runs], where each row has `counts` entries, [rows]."""
        return self.lengths * counts[self.rows]

    def natural(self, stream: NDArray[np.int8], counts: Whole) -> NDArray[np.int8]:
        """The codes of a stream in natural order."""
        sizes = self.sizes(counts)[self.order]
        ends = np.cumsum(sizes)
        pieces = [stream[:0]] * len(sizes)
        for number, start, end in zip(
            self.order.tolist(), (ends - sizes).tolist(), ends.tolist(), strict=True
        ):
            pieces[number] = stream[start:end]
        return np.concatenate([stream[:0], *pieces])


def _compressed(parts: Sequence[NDArray[Any]]) -> Bits:
    """Parts one after another as one frame, with tables of their own for each part: 4 % fewer bytes
    of codes than where zstandard divides them itself. Codes are nearly noise: to search longer, as
    level 19 does by itself, takes five times as long for 3 % more bytes.
    """
    found = [part.tobytes() for part in parts]
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19,
        strategy=zstandard.STRATEGY_BTOPT,
        search_log=1,
        min_match=4,
        window_log=17,
        hash_log=16,
        chain_log=16,
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    writer = compressor.compressobj(size=sum(map(len, found)))
    made = []
    for part in filter(None, found):
        made += [writer.compress(part), writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    made.append(writer.flush())
    return np.frombuffer(b"".join(made), np.uint8)


def _expanded(memory: CompressedPassage, name: str, size: int) -> Bits:
    """An array of a memory, which zstandard compressed, if it has `size` bytes.

    Raises:
        StorageDamaged: It has not, or is too small to be worth so many.
    """
    array = memory.arrays.get(name)
    if array is None or array.dtype != np.uint8 or array.ndim != 1:
        raise StorageDamaged(f"a memory has no compressed array {name!r}: {DAMAGED}")
    data = array.tobytes()
    if size > max(ANY_SIZE, MOST_GROWTH * len(data)):
        raise StorageDamaged(
            f"array {name!r} of {len(data)} bytes claims {size}, more than {MOST_GROWTH} times as"
            f" many: {DAMAGED}"
        )
    try:
        # Before anything is made: the frame itself says how many bytes it has.
        claimed = zstandard.frame_content_size(data)
        if claimed != size:
            raise StorageDamaged(
                f"array {name!r} claims {claimed} bytes, its entries need {size}: {DAMAGED}"
            )
        expanded = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise StorageDamaged(f"array {name!r} is damaged ({error}): {DAMAGED}") from error
    if len(expanded) != size:
        raise StorageDamaged(
            f"array {name!r} has {len(expanded)} bytes, its entries need {size}: {DAMAGED}"
        )
    return np.frombuffer(expanded, np.uint8)
