"""The bytes of a memory: round trips, the documented table read with numpy alone, and hostile
bytes.
"""

import struct
import zlib
from math import prod

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cmt_sdk.errors import InvalidInput, StorageDamaged, StorageNewer
from cmt_sdk.storage.blob import pack, unpack
from cmt_sdk.types import CompressedPassage

HEADER, ENTRY = 24, 48

SAMPLE = CompressedPassage(
    "kv",
    7,
    {
        "codes": np.arange(10, dtype=np.uint8).reshape(5, 2),
        "scales": np.array([[0.5], [-2.0], [65504.0]], np.float16),
        "means": np.array([1.5, -0.25], np.float32),
    },
)


def sealed(data: bytes) -> bytes:
    """The bytes with the checksum that fits them, as a forger would write it."""
    checksum = zlib.crc32(data[HEADER:], zlib.crc32(data[: HEADER - 4]))
    return data[: HEADER - 4] + struct.pack("<I", checksum) + data[HEADER:]


def rewritten(at: int, form: str, *values: object) -> bytes:
    """The sample with some bytes changed and its checksum made to fit."""
    data = bytearray(pack(SAMPLE))
    struct.pack_into(form, data, at, *values)
    return sealed(bytes(data))


def equal(one: CompressedPassage, other: CompressedPassage) -> bool:
    """Same kind, tokens, names and order, and the same bytes of the same type and shape."""
    if (one.kind, one.tokens, list(one.arrays)) != (other.kind, other.tokens, list(other.arrays)):
        return False
    pairs = zip(one.arrays.values(), other.arrays.values(), strict=True)
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs
    )


names = st.text("abcdefgh_é", min_size=1, max_size=8)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
arrays = st.sampled_from(["u1", "<f2", "<f4"]).flatmap(lambda dtype: hnp.arrays(dtype, shapes))
memories = st.builds(
    CompressedPassage,
    st.sampled_from(["kv", "soft", "", "eightlet"]),
    st.integers(0, 2**32 - 1),
    st.dictionaries(names, arrays),
)


@settings(max_examples=50, deadline=None)
@given(memories)
def test_what_is_packed_comes_back(memory):
    """Every kind, count of tokens, name, shape (empty and scalar ones too), value and NaN."""
    assert equal(unpack(pack(memory)), memory)


def test_other_layouts_in_memory_are_stored_alike():
    """A transposed, a strided and a big-endian array are stored by their values."""
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    for given_array in (
        plain.copy().T.copy().T,
        np.repeat(plain, 2, axis=1)[:, ::2],
        plain.astype(">f4"),
    ):
        assert pack(CompressedPassage("kv", 1, {"a": given_array})) == pack(
            CompressedPassage("kv", 1, {"a": plain})
        )


def test_arrays_come_back_as_aligned_read_only_views():
    """No byte is copied, so loading costs nothing, and nobody can write into a stored memory."""
    data = bytearray(pack(SAMPLE))
    for array in unpack(memoryview(data)).arrays.values():
        assert np.shares_memory(array, np.frombuffer(data, np.uint8))
        assert not array.flags.writeable
    starts = [struct.unpack_from("<I", data, HEADER + n * ENTRY + 40)[0] for n in range(3)]
    assert [start % 16 for start in starts] == [0, 0, 0]


def test_the_documented_table_is_enough_to_read_a_memory():
    """Python's struct and numpy alone, by docs/format.md: header, table, arrays, checksum."""
    data = pack(SAMPLE)
    magic, version, count, tokens, kind, checksum = struct.unpack("<4sHHI8sI", data[:24])
    assert (magic, version, count, tokens, kind) == (b"CMTM", 1, 3, 7, b"kv\0\0\0\0\0\0")
    assert checksum == zlib.crc32(data[:20] + data[24:])
    read = {}
    for n in range(count):
        name, dtype, axes, zero, *shape, offset, size = struct.unpack(
            "<16s4sHH4III", data[24 + 48 * n : 72 + 48 * n]
        )
        assert zero == 0
        array = np.frombuffer(data[offset : offset + size], "<" + dtype.rstrip(b"\0").decode())
        read[name.rstrip(b"\0").decode()] = array.reshape(shape[:axes])
    assert read["codes"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert read["scales"].tolist() == [[0.5], [-2.0], [65504.0]]
    assert read["means"].tolist() == [1.5, -0.25]
    # header, table, filler up to 176, and 16 bytes an array
    assert len(data) == 24 + 3 * 48 + 8 + 16 + 16 + 16


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("doubles", np.zeros(2)),
        ("objects", np.array([None])),
        ("axes", np.zeros((1,) * 5, np.uint8)),
        ("a_name_too_long_by_far", np.zeros(2, np.uint8)),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(name, array):
    """Nothing is cut short or converted in silence; the message names the array."""
    with pytest.raises(InvalidInput, match=name):
        pack(CompressedPassage("kv", 1, {name: array}))


def test_every_truncation_is_noticed():
    """However much is missing at the end, from one byte to all."""
    data = pack(SAMPLE)
    for length in range(len(data)):
        with pytest.raises(StorageDamaged):
            unpack(data[:length])
    with pytest.raises(StorageDamaged):
        unpack(data + b"\0")


def test_every_flipped_bit_is_noticed():
    """Anywhere, the header too: a memory with another number of tokens would be put in the wrong
    place.
    """
    data = pack(SAMPLE)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((StorageDamaged, StorageNewer)):
            unpack(bytes(flipped))


def test_a_later_format_is_named():
    """The message says which format it is, which one this release reads, and what to do."""
    with pytest.raises(StorageNewer, match=r"format 3, this release reads up to 2: update cmt-sdk"):
        unpack(rewritten(4, "<H", 3))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 500,
        pack(SAMPLE)[:HEADER],
        rewritten(6, "<H", 65535),  # more arrays than the table holds
        rewritten(12, "8s", b"\xff\xfe"),  # a kind that is no text
        rewritten(24, "16s", b"\xff\xfe"),  # a name that is no text
        rewritten(40, "4s", b"O8"),  # Python objects
        rewritten(44, "<H", 5),  # five axes
        rewritten(44, "<H", 65535),
        rewritten(48, "<I", 2**32 - 1),  # a shape beyond all memory
        rewritten(48, "<IIII", *[2**32 - 1] * 4),
        rewritten(48, "<IIII", 2**31, 2, 0, 0),  # a product that 32 bits would read as 0
        # no bytes along one axis, too many along the others
        rewritten(44, "<HH4III", 4, 0, *[2**31] * 3, 0, 168, 0),
        rewritten(64, "<I", 2**32 - 1),  # an offset outside
        rewritten(68, "<I", 2**32 - 1),  # a size outside
    ],
)
def test_hostile_bytes_with_a_fitting_checksum_are_refused(data):
    """A forger can make the checksum fit: counts, names, types, shapes and offsets are checked all
    the same.
    """
    with pytest.raises(StorageDamaged):
        unpack(sealed(data) if len(data) >= HEADER else data)


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, len(pack(SAMPLE)) - 1))
@example(b"CMTM\1\0\1\0", 0)
def test_any_bytes_give_a_memory_or_our_error(noise, at):
    """Noise anywhere under a fitting checksum: never another exception, and never an array outside
    the bytes.
    """
    data = bytearray(pack(SAMPLE))
    data[at : at + len(noise)] = noise
    try:
        memory = unpack(sealed(bytes(data)))
    except (StorageDamaged, StorageNewer):
        return
    assert all(prod(a.shape) * a.itemsize <= len(data) for a in memory.arrays.values())
