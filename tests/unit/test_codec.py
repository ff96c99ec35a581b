"""The codec of kv memories: round trips, the documented bytes read with numpy and zstandard alone,
and bytes that no codec wrote.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zstandard

from cmt_sdk.errors import ModelError, StorageDamaged
from cmt_sdk.reading.codec import ANY_SIZE, Codec
from cmt_sdk.reading.limits import MAX_PASSAGE_TOKENS
from cmt_sdk.storage.blob import pack, unpack
from cmt_sdk.types import CompressedPassage

ROWS, WIDTH, TOKENS = 6, 8, 21
DEVIATIONS = np.array([9.0, 5.0, 2.0, 1.0, 0.8, 0.3, 0.2, 0.01])  # of the coordinates, in steps
CLASSES = np.array([6, 5, 4, 3, 3, 1, 1, 0], np.uint8)


def tensors():
    """Those of a codec whose last coordinate is not stored, and half of whose rows store fewer."""
    random = np.random.default_rng(1)
    turned = np.linalg.qr(random.standard_normal((2, ROWS, WIDTH, WIDTH)))[0]
    classes = np.tile(CLASSES, (2, ROWS, 1))
    classes[1, ::2, 4:] = 0
    return {
        "mean": random.standard_normal((2, ROWS, WIDTH)),
        "basis": 0.5 * turned,
        "classes": classes,
    }


CODEC = Codec.of(tensors(), ROWS, WIDTH)


def passage(codec=CODEC, tokens=TOKENS, share=0.4):
    """Kept bits, keys and values as the codec expects them."""
    random = np.random.default_rng(2)
    kept = random.random((ROWS, tokens)) < share
    row = np.nonzero(kept)[0]
    steps = random.standard_normal((2, len(row), WIDTH)) * DEVIATIONS
    steps *= (codec.classes > 0)[:, row]  # what is not stored does not vary here
    found = np.einsum("knj,knjd->knd", steps, codec.basis[:, row]) + codec.mean[:, row]
    return kept, *found.astype(np.float32)


def memory():
    """A memory of it."""
    kept, keys, values = passage()
    return CODEC.encode(keys, values, kept)


def changed(made, **arrays):
    """A memory with other arrays; bytes become arrays."""
    given = {
        n: np.frombuffer(a, np.uint8) if isinstance(a, bytes) else a for n, a in arrays.items()
    }
    return replace(made, arrays={**made.arrays, **given})


def test_entries_come_back_within_half_a_step():
    """In the basis of their head, with the bits that say where they are."""
    kept, keys, values = passage()
    made = CODEC.encode(keys, values, kept)
    assert (made.kind, made.tokens) == ("kv2", TOKENS)
    found = CODEC.decode(made)
    np.testing.assert_array_equal(found.kept, kept)
    row = np.nonzero(kept)[0]
    for kind, (theirs, mine) in enumerate(((keys, found.keys), (values, found.values))):
        inverse = np.linalg.inv(CODEC.basis[kind])[row]
        steps = np.einsum("nd,ndj->nj", mine - theirs, inverse)
        assert np.abs(steps).max() < 0.501
        assert np.abs(steps).max() > 0.4


def test_it_is_read_with_numpy_and_zstandard_alone():
    """As docs/format.md says: the container's arrays, then codes by class, kind, row, coordinate
    and token.
    """
    made = unpack(pack(memory()))
    given = tensors()
    expand = zstandard.ZstdDecompressor().decompress
    bits = np.frombuffer(expand(made.arrays["kept"].tobytes()), np.uint8)
    kept = np.unpackbits(bits.reshape(ROWS, -1), axis=1, count=made.tokens)
    codes = np.frombuffer(expand(made.arrays["codes"].tobytes()), np.int8)
    at, steps = 0, np.zeros((2, ROWS, WIDTH, made.tokens))
    for number in range(1, 256):
        for kind, row, column in np.argwhere(given["classes"] == number):
            count = int(kept[row].sum())
            steps[kind, row, column, :count] = codes[at : at + count]
            at += count
    assert at == len(codes)
    found = CODEC.decode(made)
    first = 0
    for row, count in enumerate(kept.sum(1, dtype=int)):
        for kind, entries in enumerate((found.keys, found.values)):
            expected = steps[kind, row, :, :count].T @ given["basis"][kind, row]
            np.testing.assert_allclose(
                entries[first : first + count], expected + given["mean"][kind, row], atol=1e-5
            )
        first += count


def test_a_passage_may_keep_everything_or_one_entry():
    """And a code beyond the largest is the largest."""
    for share, tokens in ((1.1, 1), (1.1, 300), (0.02, 9)):
        kept, keys, values = passage(tokens=tokens, share=share)
        found = CODEC.decode(CODEC.encode(keys, values, kept))
        np.testing.assert_array_equal(found.kept, kept)
    kept, keys, values = passage(tokens=2)
    far = CODEC.decode(CODEC.encode(keys + 1e6, values, kept))
    assert np.isfinite(far.keys).all()
    assert np.abs(far.keys).max() < 1000


def test_codes_take_little_more_than_their_entropy():
    """That of a long passage's codes, class by class."""
    kept, keys, values = passage(tokens=2000)
    made = CODEC.encode(keys, values, kept)
    codes = zstandard.decompress(made.arrays["codes"].tobytes())
    counts, bits, at = kept.sum(1), 0.0, 0
    for number in range(1, 7):
        size = int(((CODEC.classes == number).sum(2) * counts).sum())
        _, times = np.unique(np.frombuffer(codes[at : at + size], np.uint8), return_counts=True)
        bits -= (times * np.log2(times / max(1, size))).sum()
        at += size
    assert bits / 8 < made.arrays["codes"].nbytes < 1.08 * bits / 8


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean", lambda a: a[:, :, :4]),
        ("basis", lambda a: a[:1]),
        ("basis", lambda a: np.where(a == a[0, 0, 0, 0], np.nan, a)),
        ("classes", lambda a: a[:, :3]),
        ("classes", lambda a: a[:, :, ::-1]),
    ],
)
def test_a_codec_of_another_model_is_refused(name, change):
    """Other shapes, no numbers, and classes out of order."""
    given = tensors()
    with pytest.raises(TypeError, match="codec"):
        Codec.of({**given, name: change(given[name])}, ROWS, WIDTH)
    with pytest.raises(KeyError):
        Codec.of({n: a for n, a in given.items() if n != name}, ROWS, WIDTH)


def test_a_basis_without_an_inverse_is_named():
    """Of an adapter from elsewhere: memories are read, and none is made."""
    given = tensors()
    flat = Codec.of({**given, "basis": given["basis"] * 0}, ROWS, WIDTH)
    kept, keys, values = passage()
    with pytest.raises(ModelError, match="cmt train --part codec"):
        flat.encode(keys, values, kept)
    assert flat.is_valid(memory())


def with_code(frame, code):
    """A frame of codes whose last one is another."""
    codes = np.frombuffer(zstandard.decompress(frame), np.int8).copy()
    codes[-1] = code
    return zstandard.compress(codes.tobytes())


def claiming(frame, size):
    """A frame of some megabytes whose header says another size; its blocks stay."""
    at = 4 + 1 + (not frame[4] & 0x20)  # magic, descriptor, and a window where it has one
    made = frame[:at] + size.to_bytes(4, "little") + frame[at + 4 :]
    assert zstandard.frame_content_size(made) == size
    return made


def test_what_no_codec_wrote_is_refused():
    """Frames that are cut, lengthened, of another size or none, other types, other tokens, and a
    code that none is; the largest codes are sound.
    """
    made = memory()
    sound = {name: array.tobytes() for name, array in made.arrays.items()}
    nothing = zstandard.compress(b"")
    forged = [
        *(changed(made, **{name: data[:-1]}) for name, data in sound.items()),
        *(changed(made, **{name: data + b"\0"}) for name, data in sound.items()),
        *(changed(made, **{name: nothing}) for name in sound),
        *(changed(made, **{name: b""}) for name in sound),
        *(changed(made, **{name: b"not a frame"}) for name in sound),
        *(changed(made, **{name: made.arrays[name].astype(np.float16)}) for name in sound),
        *(changed(made, **{name: made.arrays[name][None]}) for name in sound),
        changed(made, kept=zstandard.compress(b"\xff" * (ROWS * 3))),
        changed(made, codes=with_code(sound["codes"], -128)),
        replace(made, arrays={"kept": made.arrays["kept"]}),
        replace(made, kind="kv"),
        replace(made, tokens=0),
        replace(made, tokens=TOKENS + 8),
        replace(made, tokens=MAX_PASSAGE_TOKENS + 1),
    ]
    largest = [changed(made, codes=with_code(sound["codes"], code)) for code in (-127, 127)]
    assert all(CODEC.is_valid(m) for m in (made, *largest))
    for number, other in enumerate(forged):
        assert not CODEC.is_valid(other), number
        with pytest.raises(StorageDamaged, match="cmt reencode"):
            CODEC.decode(other)


def test_a_frame_that_expands_to_gigabytes_is_not_expanded(monkeypatch):
    """Neither one that says so, nor one that hides its size, nor one that claims less."""
    expanded = []
    real = zstandard.ZstdDecompressor

    class Watched:
        def decompress(self, data, **options):
            found = real().decompress(data, **options)
            expanded.append(len(found))
            return found

    monkeypatch.setattr(zstandard, "ZstdDecompressor", Watched)
    zeros = bytes(8 * ANY_SIZE)
    bomb = zstandard.compress(zeros)
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
    every = zstandard.compress(b"\xff" * (ROWS * MAX_PASSAGE_TOKENS // 8))
    made = memory()
    sound = zstandard.frame_content_size(made.arrays["codes"].tobytes())
    for codes in (bomb, hidden, claiming(bomb, sound)):
        assert not CODEC.is_valid(changed(made, codes=codes))
        assert not CODEC.is_valid(changed(made, kept=codes))
        whole = replace(changed(made, kept=every, codes=codes), tokens=MAX_PASSAGE_TOKENS)
        assert not CODEC.is_valid(whole)
    assert max(expanded, default=0) <= ROWS * MAX_PASSAGE_TOKENS // 8


def test_the_container_names_its_format():
    """2 for a memory of a codec, so that earlier releases refuse it with the remedy; 1 for all
    others.
    """
    assert pack(memory())[4:6] == b"\x02\0"
    assert pack(CompressedPassage("kv", 1, {}))[4:6] == b"\x01\0"
    assert unpack(pack(memory())).arrays.keys() == {"kept", "codes"}
