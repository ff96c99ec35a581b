"""The bytes of a compressed passage: named little-endian arrays behind a fixed header, with a
checksum. docs/format.md describes them.

Knows numpy and the CompressedPassage; knows neither the database nor what the arrays mean.
"""

from __future__ import annotations

import struct
import zlib
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.errors import InvalidInput, StorageDamaged, StorageNewer
from cmt_sdk.types import CompressedPassage

MAGIC = b"CMTM"
VERSION = 2
SINCE = {"kv2": 2}  # the format that first had a kind; that of all others is 1
ALIGN = 16
HEADER = struct.Struct("<4sHHI8s")  # magic, version, arrays, tokens, kind
CHECKSUM = struct.Struct("<I")  # CRC-32 of all other bytes
ENTRY = struct.Struct("<16s4sHHIIIIII")  # name, dtype, dimensions, 0, shape (4), offset, bytes
TABLE = HEADER.size + CHECKSUM.size
DTYPES: dict[bytes, np.dtype[Any]] = {
    b"u1": np.dtype("<u1"),
    b"f2": np.dtype("<f2"),
    b"f4": np.dtype("<f4"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


def pack(passage: CompressedPassage) -> bytes:
    """Return the bytes of a compressed passage. Raises InvalidInput for arrays that the format
    cannot hold.
    """
    start = TABLE + ENTRY.size * len(passage.arrays)
    entries, data, offset = [], [], -(-start // ALIGN) * ALIGN
    data.append(bytes(offset - start))
    for name, given in passage.arrays.items():
        array = np.asarray(given, given.dtype.newbyteorder("<"))
        code = CODES.get(array.dtype)
        if code is None or array.ndim > 4 or len(name.encode()) > 16:
            raise InvalidInput(
                f"array {name!r} ({given.dtype}, {given.ndim} axes) has no place in the format:"
                " give uint8, float16 or float32, at most 4 axes, and a name of at most 16 bytes"
            )
        shape = (*array.shape, 0, 0, 0, 0)[:4]
        entries.append(ENTRY.pack(name.encode(), code, array.ndim, 0, *shape, offset, array.nbytes))
        filled = -(-array.nbytes // ALIGN) * ALIGN
        data.append(array.tobytes() + bytes(filled - array.nbytes))
        offset += filled
    body = b"".join(entries) + b"".join(data)
    version = SINCE.get(passage.kind, 1)
    header = HEADER.pack(MAGIC, version, len(passage.arrays), passage.tokens, passage.kind.encode())
    return header + CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body


def unpack(data: bytes | memoryview) -> CompressedPassage:
    """Return the compressed passage that the bytes hold; its arrays are read-only views of them.

    Raises:
        StorageNewer: a later release wrote the bytes.
        StorageDamaged: `pack` did not write them.
    """
    view = memoryview(data).toreadonly()
    if len(view) < TABLE:
        raise StorageDamaged(
            f"a compressed passage of {len(view)} bytes is shorter than its header of {TABLE}"
        )
    magic, version, count, tokens, kind = HEADER.unpack_from(view)
    if magic != MAGIC:
        raise StorageDamaged(
            f"a compressed passage begins with {bytes(magic)!r} instead of {MAGIC!r}"
        )
    if version > VERSION:
        raise StorageNewer(
            f"a compressed passage has format {version}, this release reads up to {VERSION}:"
            " update cmt-sdk"
        )
    (checksum,) = CHECKSUM.unpack_from(view, HEADER.size)
    if zlib.crc32(view[TABLE:], zlib.crc32(view[: HEADER.size])) != checksum:
        raise StorageDamaged("a compressed passage's checksum does not fit its bytes")
    try:
        arrays = dict(_array(view, TABLE + n * ENTRY.size) for n in range(count))
        return CompressedPassage(kind.rstrip(b"\0").decode(), tokens, arrays)
    except (struct.error, KeyError, ValueError) as error:
        # not UTF-8, or no bytes along an axis and too many along another
        raise StorageDamaged(
            f"a compressed passage's table of arrays is damaged: {error}"
        ) from error


def _array(view: memoryview, at: int) -> tuple[str, NDArray[np.generic]]:
    name, code, ndim, _, *rest = ENTRY.unpack_from(view, at)
    shape, offset, size = tuple(rest[: min(ndim, 4)]), rest[4], rest[5]
    dtype = DTYPES[code.rstrip(b"\0")]
    if ndim > 4 or prod(shape) * dtype.itemsize != size or offset + size > len(view):
        raise StorageDamaged(
            f"array {name!r} of {ndim} axes and shape {shape} does not fit {size} bytes at {offset}"
        )
    return name.rstrip(b"\0").decode(), np.ndarray(shape, dtype, view, offset)
