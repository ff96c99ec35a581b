"""Making deleted text vanish from the files, and looking for what is left of it. Knows files and SQLite, no store.

A trace is a word of a removed document (text, source, id or metadata), of `SHORTEST` letters or more, that stands in a file,
as it was written or in lower case, though nothing that remains holds it. Of a document without such words, whose text may
live on elsewhere, pieces of its text are looked for.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from cmt_sdk.storage.connection import FILE, WAIT_SECONDS, files_in
from cmt_sdk.types import Document

SHORTEST = 6
PIECE = 32
BLOCK = 1 << 22
WORD = re.compile(rf"\w{{{SHORTEST},}}")


def erase(file: Path) -> None:
    """Rewrite the database without deleted content: the full-text index, the write-ahead log, and every free page.

    Where another process reads for longer than the wait allows, the log stays: `traces_of` then says so.
    """
    with closing(sqlite3.connect(file, timeout=WAIT_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("INSERT INTO passage_text (passage_text) VALUES ('rebuild')")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def traces_of(removed: Sequence[Document], folder: Path) -> tuple[list[str], int]:
    """Names of the files that were read, and how many traces of the removed documents they hold."""
    needles = {needle for document in removed for needle in _needles(document)}
    files, found = [], set[bytes]()
    for file in files_in(folder):
        with suppress(FileNotFoundError):  # the log goes with the last connection of another process
            found |= _found(file, needles - found)
            files.append(file.name)
    return files, len(found - _explained(found, folder / FILE))


def _needles(document: Document) -> Iterator[bytes]:
    told = [document.text, document.source or "", document.id]
    told += [v for v in document.metadata.values() if isinstance(v, str)]
    words = {w for t in told for w in WORD.findall(t)}
    pieces = [document.text[i : i + PIECE] for i in range(0, len(document.text), PIECE)]
    for needle in words or pieces:
        both = needle.encode(), needle.lower().encode()
        yield from (n for n in both if len(n) >= SHORTEST)


def _explained(found: set[bytes], database: Path) -> set[bytes]:
    """Those needles that stand in the files because something that remains holds them, perhaps within a longer word."""
    explained: set[bytes] = set()
    for row in _remaining(database) if found else ():
        body = row.lower()
        explained |= {needle for needle in found - explained if needle.decode().lower() in body}
        if found == explained:
            break
    return explained


def _remaining(database: Path) -> Iterator[str]:
    """Everything that the database holds on purpose, its own schema too."""
    with closing(sqlite3.connect(database, timeout=WAIT_SECONDS)) as connection:
        for sql in (
            "SELECT group_concat(sql, '\n') FROM sqlite_master",
            "SELECT value FROM settings",
            "SELECT body FROM fingerprints",
            "SELECT file || '\n' || sha256 || '\n' || space FROM generation",
            "SELECT doc_id || '\n' || coalesce(source, '') || '\n' || scope || '\n' || metadata || '\n' || text FROM documents",
        ):
            yield from (row[0] for row in connection.execute(sql))


def _found(file: Path, needles: set[bytes]) -> set[bytes]:
    """Needles in a file, read in blocks that overlap by the longest of them."""
    found: set[bytes] = set()
    overlap = max(map(len, needles), default=0)
    with file.open("rb") as data:
        before = b""
        while (block := data.read(BLOCK)) and found != needles:
            window = before + block
            found |= _in_window(window, needles - found)
            before = window[-overlap:]
    return found


def _in_window(window: bytes, needles: set[bytes]) -> set[bytes]:
    """One pass for all needles: places are chosen by a hash of `SHORTEST` bytes, and then compared in full."""
    by_start: dict[bytes, set[bytes]] = {}
    for needle in needles:
        by_start.setdefault(needle[:SHORTEST], set()).add(needle)
    found: set[bytes] = set()
    wanted = np.zeros(1 << 24, bool)
    wanted[[_hashes(start)[0] for start in by_start]] = True
    for at in np.flatnonzero(wanted[_hashes(window)]).tolist():
        same = by_start.get(window[at : at + SHORTEST], set())
        here = {needle for needle in same if window.startswith(needle, at)}
        same -= here
        found |= here
    return found


def _hashes(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """24 bits for every run of `SHORTEST` bytes."""
    values = np.frombuffer(data, np.uint8).astype(np.uint32)
    count = max(len(values) - SHORTEST + 1, 0)
    hashes = np.zeros(count, np.uint32)
    for n in range(SHORTEST):
        hashes = hashes * np.uint32(0x01000193) + values[n : n + count]
    return hashes >> np.uint32(8)
