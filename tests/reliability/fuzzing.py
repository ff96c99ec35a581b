"""What is fuzzed: bytes as a stored memory, as one of a codec, and as an archive. Hypothesis drives
it in the short form, atheris in the long.

python -m tests.reliability.fuzzing blob|codec|archive CORPUS -max_total_time=300      (libFuzzer's
options; needs atheris)
"""

from __future__ import annotations

import io
import json
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors.numpy import save

from cmt_sdk.archive.contents import opened
from cmt_sdk.archive.files import disk_errors
from cmt_sdk.errors import CMTError, StorageDamaged, StorageNewer
from cmt_sdk.reading.codec import Codec
from cmt_sdk.storage.blob import pack, unpack
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import CompressedPassage

HEADER = 24
LONGEST = 10_000  # UTF-8 bytes that a text in the archive may have
SAMPLE = CompressedPassage(
    "kv",
    7,
    {"codes": np.arange(10, dtype=np.uint8).reshape(5, 2), "scales": np.ones((3, 1), np.float16)},
)


RANDOM = np.random.default_rng(0)
CODEC = Codec.of(
    {
        "mean": RANDOM.standard_normal((2, 3, 4)),
        "basis": RANDOM.standard_normal((2, 3, 4, 4)),
        "classes": np.tile(np.array([3, 2, 2, 0]), (2, 3, 1)),
    },
    rows=3,
    width=4,
)


def coded(tokens: int) -> CompressedPassage:
    """A memory of the codec."""
    kept = RANDOM.random((3, tokens)) < 0.5
    entries = RANDOM.standard_normal((2, int(kept.sum()), 4)).astype(np.float32)
    return CODEC.encode(*entries, kept)


def blob(data: bytes) -> None:
    """Bytes as a memory, once as they are and once with a checksum that fits: a memory within its
    bytes, or our error.
    """
    for whole in (data, sealed(data)):
        try:
            memory = unpack(whole)
        except (StorageDamaged, StorageNewer):
            continue
        assert all(
            prod(a.shape) * a.itemsize == a.nbytes <= len(whole) for a in memory.arrays.values()
        )
        for array in memory.arrays.values():
            array.tobytes()  # touches every byte that it claims


def codec(data: bytes) -> None:
    """Bytes as memories of a codec: entries that are numbers, or our error."""
    for memory in coded_memories(data):
        decodes(memory)


def coded_memories(data: bytes) -> list[CompressedPassage]:
    """Bytes as a memory, with a checksum that fits; and as one whose tokens they begin with, then
    its kept bits, then its codes, or the frame that holds these.
    """
    tokens, kept = 1 + (data[0] if data else 0) % 8, framed(data[1:4])
    tried = [
        CompressedPassage("kv2", tokens, {"kept": kept, "codes": codes})
        for codes in (framed(data[4:]), np.frombuffer(data[4:], np.uint8))
    ]
    with suppress(StorageDamaged, StorageNewer):
        tried.append(unpack(sealed(data)))
    return tried


def framed(data: bytes) -> NDArray[np.uint8]:
    """Bytes as the codec stores them, as a frame."""
    return np.frombuffer(zstandard.compress(data, 1), np.uint8)


def decodes(memory: CompressedPassage) -> bool:
    """Whether the codec decodes a memory: to entries that are numbers, and as many as its bits say.

    What decodes is valid, and nothing else.
    """
    try:
        entries = CODEC.decode(memory)
    except StorageDamaged:
        assert not CODEC.is_valid(memory)
        return False
    shape = (int(entries.kept.sum()), CODEC.mean.shape[2])
    assert entries.kept.shape == (CODEC.mean.shape[1], memory.tokens)
    assert entries.keys.shape == entries.values.shape == shape
    assert np.isfinite(entries.keys).all()
    assert np.isfinite(entries.values).all()
    assert CODEC.is_valid(memory)
    return True


def sealed(data: bytes) -> bytes:
    """The bytes with the checksum that fits them, as a forger would write it."""
    if len(data) < HEADER:
        return data
    checksum = zlib.crc32(data[HEADER:], zlib.crc32(data[: HEADER - 4]))
    return data[: HEADER - 4] + struct.pack("<I", checksum) + data[HEADER:]


def members() -> dict[str, bytes]:
    """A sound archive's members: two documents, one in two versions, and a memory."""
    row = {
        "id": "a",
        "version": 1,
        "current": False,
        "text": "Old.",
        "source": "a.md",
        "scope": "user/ann",
        "metadata": {"n": 1},
    }
    times = {"created_at": "2025-03-03T09:30:00+00:00", "updated_at": None, "expires_at": None}
    rows = [row | times, row | times | {"version": 2, "current": True, "text": "New."}]
    rows.append(row | times | {"id": "b", "current": True, "text": "Another."})
    manifest = {"format": 1, "documents": 2, "versions": 3, "memories": 1, "shards": 1}
    prints = {FINGERPRINT.id: {f: getattr(FINGERPRINT, f) for f in FINGERPRINT.__slots__}}
    memory = {
        "document": "a",
        "content": "0" * 64,
        "fingerprint": FINGERPRINT.id,
        "kind": "fake",
        "tokens": 1,
        "arrays": ["bytes"],
    }
    key = np.zeros(8, np.float32)
    key[0] = 1
    return {
        "manifest.json": json.dumps(manifest | {"fingerprints": prints}).encode(),
        "documents.jsonl": b"".join(json.dumps(r).encode() + b"\n" for r in rows),
        "memories/00000.jsonl": json.dumps(memory).encode() + b"\n",
        "memories/00000.safetensors": save(
            {"0.key": key, "0.memory.bytes": np.arange(4, dtype=np.uint8)}
        ),
    }


def zipped(contents: Mapping[str, bytes]) -> bytes:
    """A zip file of these members, stored, with checksums that fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return out.getvalue()


def archive(data: bytes) -> None:
    """The first byte chooses: the rest is the whole file, or one member in an archive that is sound
    otherwise.

    Either is read to its end, or refused in our words.
    """
    choice, rest = (data[0] if data else 0) % 5, data[1:]
    names = list(members())
    whole = rest if choice == 4 else zipped(members() | {names[choice]: rest})
    with tempfile.NamedTemporaryFile(dir=_fast_folder(), suffix=".cmt") as file:
        file.write(whole)
        file.flush()
        read(Path(file.name))


def read(path: Path) -> int:
    """Everything that an import reads before it stores; 0 where it is refused."""
    try:
        with disk_errors(path), opened(path, LONGEST) as contents:
            texts = [d.text for versions in contents.documents() for d in versions]
            contents.check()
    except CMTError:
        return 0
    return len(texts)


def _fast_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - the name is tempfile's


def seeds(target: str) -> list[bytes]:
    """Sound inputs that mutation starts from."""
    if target == "blob":
        return [pack(SAMPLE), pack(CompressedPassage("soft", 0, {}))]
    if target == "codec":
        short = coded(8)
        frames = [short.arrays[name].tobytes() for name in ("kept", "codes")]
        bits, codes = (zstandard.decompress(frame) for frame in frames)
        beginning = b"\7" + bits  # 8 tokens: a byte of bits for each of the three rows
        return [pack(short), pack(coded(40)), beginning + codes, beginning + frames[1]]
    whole = members()
    return [*(bytes([n]) + data for n, data in enumerate(whole.values())), b"\x04" + zipped(whole)]


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "blob": blob,
    "codec": codec,
    "archive": archive,
}


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Its functions and those of its classes: what guides the mutation."""
    for value in vars(module).values():
        if getattr(value, "__module__", "") == module.__name__:
            inside = vars(value).values() if isinstance(value, type) else [value]
            yield from (f for f in inside if isinstance(f, FunctionType))


def main() -> None:
    """Fuzz one target from its seeds until libFuzzer's limits say stop; it exits with another code
    on a finding.
    """
    import atheris

    target, corpus = sys.argv[1], Path(sys.argv[2])
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    for name in (
        "cmt_sdk.storage.blob",
        "cmt_sdk.reading.codec",
        "cmt_sdk.archive.contents",
        "cmt_sdk.archive.layout",
        "zipfile",
    ):
        for function in _functions(sys.modules[name]):
            atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
