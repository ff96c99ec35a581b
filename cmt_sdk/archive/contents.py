"""Reads an archive: checks its members, then yields its documents and compressed passages one by
one. Knows no store.
"""

from __future__ import annotations

import json
import stat
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from cmt_sdk.archive.layout import (
    DOCUMENTS,
    LARGEST_ROW,
    LARGEST_SHARD,
    MANIFEST,
    CompressedRow,
    Manifest,
    Row,
    parse_compressed,
    parse_document,
    parse_manifest,
    shard_names,
)
from cmt_sdk.archive.records import ArchivedPassage, Wanted
from cmt_sdk.errors import StorageDamaged
from cmt_sdk.system.open_files import refuse_open
from cmt_sdk.types import CompressedPassage, Document, Encoded

JSON_GROWTH = 6  # bytes of JSON per byte of text at most: control characters


@contextmanager
def opened(path: Path, longest: int) -> Iterator[Contents]:
    """Open an archive whose documents have texts of at most `longest` UTF-8 bytes."""
    refuse_open(path)
    with path.open("rb") as file:
        yield Contents(path, file, longest)


class Contents:
    """The contents of an archive, read in pieces. Made by `opened`.

    Raises:
        StorageNewer: a later release wrote it.
        StorageDamaged: it cannot be right.
    """

    def __init__(self, path: Path, file: IO[bytes], longest: int) -> None:
        self._path = path
        self._longest_line = JSON_GROWTH * longest + LARGEST_ROW
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, struct.error) as error:
            raise StorageDamaged(
                f"{path} is no archive, or is damaged ({error}): fetch or copy it again"
            ) from error
        self.manifest = self._check_members()

    def _check_members(self) -> Manifest:
        """Check that the members are those that the manifest names; return the manifest."""
        members = self._zip.infolist()
        names = {m.filename for m in members}
        if MANIFEST not in names:
            raise StorageDamaged(f"{self._path} is no archive of a memory: it has no {MANIFEST}")
        with self._sound(MANIFEST):
            row = _object(self._read(MANIFEST))
        manifest = parse_manifest(row, self._where(MANIFEST))
        if len(members) != manifest.member_count or names != manifest.members():
            raise StorageDamaged(
                f"{self._path}: members are missing, twice there, or do not belong there"
            )
        for member in members:
            self._check(member)
        if sum(m.file_size for m in members) > self._path.stat().st_size:
            raise StorageDamaged(f"{self._path}: its members claim more bytes than the file has")
        return manifest

    def documents(self) -> Iterator[list[Document]]:
        """Yield the versions of one document after another, oldest first."""
        documents = versions = 0
        rows = (parse_document(row, where) for where, row in self._rows(DOCUMENTS))
        for name, group in groupby(rows, key=lambda d: d.id):
            history = list(group)
            numbers = [d.version for d in history]
            current = [d.current for d in history]
            if numbers != sorted(set(numbers)) or current != [False] * (len(history) - 1) + [True]:
                raise StorageDamaged(
                    f"{self._path}: the versions of document {name!r:.60} are not in order"
                )
            documents += 1
            versions += len(history)
            yield history
        if (documents, versions) != (self.manifest.documents, self.manifest.versions):
            raise StorageDamaged(
                f"{self._path}: {documents} documents, the manifest says {self.manifest.documents}"
            )

    def spans(self, document: Document) -> None:
        """Return None: an archive holds texts, which are split again by the same rules."""

    def shards(self, wanted: Wanted) -> Iterator[Iterator[ArchivedPassage]]:  # noqa: ARG002
        """Yield the compressed passages of one shard after another."""
        return (self.compressed(shard) for shard in range(self.manifest.shards))

    def compressed(self, shard: int) -> Iterator[ArchivedPassage]:
        """Yield the compressed passages of one shard, which is held in memory."""
        rows_name, arrays_name = shard_names(shard)
        rows = [parse_compressed(row, where) for where, row in self._rows(rows_name)]
        with self._sound(arrays_name):
            arrays = load(self._read(arrays_name))
        expected = {f"{n}.memory.{name}" for n, row in enumerate(rows) for name in row.arrays}
        if set(arrays) != expected | {f"{n}.key" for n in range(len(rows))}:
            raise StorageDamaged(
                f"{self._where(arrays_name)}: not the arrays that {rows_name} names"
            )
        for number, row in enumerate(rows):
            yield self._memory(row, arrays, number, self._where(f"{rows_name}, line {number + 1}"))

    def check(self) -> None:
        """Read all shards. Raises StorageDamaged unless they are sound and hold as many compressed
        passages as the manifest declares.
        """
        found = sum(1 for shard in range(self.manifest.shards) for _ in self.compressed(shard))
        if found != self.manifest.memories:
            raise StorageDamaged(
                f"{self._path}: {found} compressed passages, the manifest says"
                f" {self.manifest.memories}"
            )

    def _memory(
        self, row: CompressedRow, arrays: Mapping[str, NDArray[np.generic]], number: int, where: str
    ) -> ArchivedPassage:
        fingerprint = self.manifest.fingerprints.get(row.fingerprint)
        embedding = arrays[f"{number}.key"]
        if fingerprint is None:
            raise StorageDamaged(
                f"{where}: the manifest has no fingerprint {row.fingerprint!r:.40}"
            )
        if (
            embedding.dtype != np.float32
            or embedding.ndim != 1
            # in float64: the square of a large float32 overflows
            or not abs(float(np.linalg.norm(embedding.astype(np.float64))) - 1) < 0.01
        ):
            raise StorageDamaged(
                f"{where}: its embedding is not a vector of float32 and of length 1"
            )
        memory = CompressedPassage(
            row.kind, row.tokens, {n: arrays[f"{number}.memory.{n}"] for n in row.arrays}
        )
        encoded = Encoded(memory, embedding.astype(np.float32), row.fidelity)
        return ArchivedPassage(row.document, row.content, fingerprint, encoded, row.seal or "")

    def _rows(self, name: str) -> Iterator[tuple[str, Row]]:
        """Yield the lines of a member as objects, each with its place for messages."""
        with self._sound(name), self._zip.open(name) as member:
            number = 0
            while line := member.readline(self._longest_line + 1):
                number += 1
                place = f"{name}, line {number}"
                if len(line) > self._longest_line:
                    raise StorageDamaged(
                        f"{self._where(place)}: over {self._longest_line} bytes: longer than any"
                        " text here"
                    )
                with self._sound(place):
                    row = _object(line)
                yield self._where(place), row

    def _read(self, name: str) -> bytes:
        self._check(self._zip.getinfo(name))
        return self._zip.read(name)

    def _check(self, member: zipfile.ZipInfo) -> None:
        """Raise StorageDamaged unless a member is a plain, uncompressed file, no larger than its
        kind may be.
        """
        plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG) and not member.is_dir()
        stored = (
            member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        )
        if not plain or not stored or member.flag_bits & 1:
            raise StorageDamaged(
                f"{self._where(member.filename)}: only plain, uncompressed members are read"
            )
        limit = {MANIFEST: LARGEST_ROW, DOCUMENTS: sys.maxsize}.get(member.filename, LARGEST_SHARD)
        if member.file_size > limit:
            raise StorageDamaged(
                f"{self._where(member.filename)}: {member.file_size} bytes, the limit is {limit}"
            )

    def _where(self, place: str) -> str:
        return f"{self._path}, {place}"

    @contextmanager
    def _sound(self, place: str) -> Iterator[None]:
        """Translate the errors of the zip, JSON and safetensors readers."""
        try:
            yield
        except (
            zipfile.BadZipFile,
            SafetensorError,
            EOFError,
            NotImplementedError,
            RecursionError,
        ) as error:
            raise StorageDamaged(f"{self._where(place)}: damaged ({error})") from error
        except (ValueError, KeyError, struct.error) as error:
            # an impossible number, text or name
            raise StorageDamaged(f"{self._where(place)}: damaged ({error!r:.200})") from error


def _object(line: bytes) -> Row:
    """Return one JSON object. Raises ValueError for anything else, and for NaN and lone surrogates,
    which no database takes.
    """
    row = json.loads(line.decode(), parse_constant=_no_number)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one kind of error for all that is wrong with a line
    if b"\\u" in line:
        json.dumps(row, ensure_ascii=False).encode()
    return row


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")
