"""Writes an archive from a store: documents first, then their compressed passages, one shard at a
time.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from cmt_sdk.archive.files import disk_errors, new_file
from cmt_sdk.archive.layout import (
    DOCUMENTS,
    MANIFEST,
    SHARD_BYTES,
    CompressedRow,
    Manifest,
    digest,
    document_row,
    shard_names,
)
from cmt_sdk.archive.records import BATCH, documents_of
from cmt_sdk.archive.seals import Seal
from cmt_sdk.errors import AlreadyExists, InvalidInput
from cmt_sdk.ports import Store
from cmt_sdk.system.open_files import refuse_open
from cmt_sdk.types import Encoded, Fingerprint, Passage

ZIP = b"PK\x03\x04"  # the first bytes of a zip file
NAME_AT = 30  # the offset of its first member's name


def write(
    store: Store,
    path: Path,
    *,
    overwrite: bool = False,
    seal: Seal | None = None,
    settings: Mapping[str, Any] | None = None,
) -> int:
    """Write the current documents with their histories and stored compressed passages.

    A pending passage is written as text alone; expired documents are left out. Only the
    owner can read the file.

    Args:
        store: The store to read.
        path: The file to write.
        overwrite: Replace an existing archive.
        seal: Seals the compressed passages. A reader makes unsealed ones again from the text.
        settings: Those of the memory that a copy of it is to have.

    Returns:
        The number of documents.

    Raises:
        AlreadyExists: The file exists; one that is no archive is never replaced.
        NotFound: There is no such folder.
        InvalidInput: The path is a folder, or a file of an open memory.
        StorageFull, StorageDenied: The file cannot be written.
    """
    if path.is_dir():
        raise InvalidInput(
            f"{path} is a folder: give the name of a file in it, such as {path / 'memory.cmt'}"
        )
    refuse_open(path)
    if path.exists() and not _is_replaceable(path):
        raise AlreadyExists(
            f"{path} is there already and is no archive of a memory, so it is not replaced: choose"
            " another name, or move it away first"
        )
    if path.exists() and not overwrite:
        raise AlreadyExists(
            f"{path} is there already; choose another name, or give overwrite=True (`cmt`:"
            " --overwrite)"
        )
    with disk_errors(path), new_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        documents, versions = _write_documents(archive, store)
        shards = _Shards(archive, seal)
        for passage, encoded, fingerprint in _memories(store):
            shards.add(passage, encoded, fingerprint)
        shards.close()
        counts = (documents, versions, shards.memories, shards.count)
        manifest = Manifest(*counts, shards.fingerprints, settings or {})
        archive.writestr(_member(MANIFEST), json.dumps(manifest.row(), indent=1))
    return documents


def _is_replaceable(path: Path) -> bool:
    """Return whether an archive may replace a file: an archive, even a partial one, or none."""
    if not path.is_file():
        return False
    with disk_errors(path), path.open("rb") as file:
        header = file.read(NAME_AT + len(DOCUMENTS))
    return not header or (header.startswith(ZIP) and header[NAME_AT:] == DOCUMENTS.encode())


def _write_documents(archive: zipfile.ZipFile, store: Store) -> tuple[int, int]:
    documents = versions = 0
    with archive.open(_member(DOCUMENTS), "w", force_zip64=True) as out:
        for document in documents_of(store):
            history = store.history(document.id)
            out.write(b"".join(_line(document_row(version)) for version in history))
            documents += bool(history)
            versions += len(history)
    return documents, versions


def _memories(store: Store) -> Iterator[tuple[Passage, Encoded, Fingerprint]]:
    for document in documents_of(store):
        passages = store.passages_of(document.id)
        for start in range(0, len(passages), BATCH):
            batch = passages[start : start + BATCH]
            stored = store.encodings([p.id for p in batch])
            for passage in batch:
                if passage.id in stored:
                    yield passage, *stored[passage.id]


@dataclass
class _Shards:
    """Collects compressed passages and writes them to the archive, one shard at a time."""

    archive: zipfile.ZipFile
    seal: Seal | None
    count: int = 0
    memories: int = 0
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    _rows: list[CompressedRow] = field(default_factory=list)
    _arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    _bytes: int = 0

    def add(self, passage: Passage, encoded: Encoded, fingerprint: Fingerprint) -> None:
        memory = encoded.compressed
        line = len(self._rows)
        self.fingerprints[fingerprint.id] = fingerprint
        content = digest(passage)
        seal = self.seal.of(content, fingerprint.id, encoded) if self.seal else None
        made_of = (passage.document_id, content, fingerprint.id)
        row = CompressedRow(
            *made_of, memory.kind, memory.tokens, tuple(memory.arrays), encoded.fidelity, seal
        )
        self._rows.append(row)
        self._arrays[f"{line}.key"] = np.asarray(encoded.embedding, np.float32, order="C")
        self._arrays |= {
            f"{line}.memory.{n}": np.asarray(a, order="C") for n, a in memory.arrays.items()
        }
        self._bytes += memory.nbytes + encoded.embedding.nbytes
        if self._bytes >= SHARD_BYTES:
            self.close()

    def close(self) -> None:
        """Write the collected compressed passages, if any, as a shard."""
        if not self._rows:
            return
        rows, arrays = shard_names(self.count)
        self.archive.writestr(_member(rows), b"".join(_line(asdict(row)) for row in self._rows))
        self.archive.writestr(_member(arrays), save(self._arrays))
        self.count += 1
        self.memories += len(self._rows)
        self._rows = []
        self._arrays = {}
        self._bytes = 0


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # dated 1980: the same memory makes the same file
    info.external_attr = 0o600 << 16
    return info
