"""Erasing deleted text from the files, and searching for traces of it. Knows files and SQLite, no
store.

A trace is a word of a deleted document (text, source, id or metadata) of `SHORTEST` letters or
more, or a piece of its text, that a file holds as it was written, in lower case or as the full-text
index stores it, and that no remaining document holds.

The search runs in its own process: closing any handle on a database's file drops all locks
that SQLite holds on it in the same process (POSIX; sqlite.org/howtocorrupt.html, 2.2), and other
writers would then be let in.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cmt_sdk.errors import StorageError
from cmt_sdk.storage.driver import FILE, VARIABLE, WAIT_SECONDS, Key, connect, files_in
from cmt_sdk.text.words import grams, indexed
from cmt_sdk.types import Document

SHORTEST = 6
PIECE = 32
MOST_PIECES = 4096  # of one document; of longer ones they lie further apart
BLOCK = 1 << 22
WORD = re.compile(rf"\w{{{SHORTEST},}}")


log = logging.getLogger(__name__)


def rewrite(file: Path, key: Key | None, wait: float = WAIT_SECONDS) -> bool:
    """Rewrite the database without deleted content: the full-text index, every free page, and the
    write-ahead log (sqlite.org/lang_vacuum.html, sqlite.org/pragma.html#pragma_wal_checkpoint).

    Returns:
        False where another process reads the old state for longer than `wait` seconds: the log is
        kept then.
    """
    # with SQLAlchemy, which the search for traces need not load
    from cmt_sdk.storage.schema import WORD_TABLES

    with closing(connect(file, key, timeout=wait, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        for table in WORD_TABLES:
            connection.execute(f"INSERT INTO {table} ({table}) VALUES ('rebuild')")
        connection.execute("VACUUM")
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def traces_of(removed: Sequence[Document], folder: Path, key: Key | None) -> tuple[list[str], int]:
    """Return the names of the files that were read, and how many traces of the deleted documents
    they hold. Raises StorageError.
    """
    sought = [
        [d.text, d.source or "", d.id, d.scope, *d.metadata, *map(str, d.metadata.values())]
        for d in removed
    ]
    # -P: import nothing from the working directory
    command = [sys.executable, "-P", "-m", __name__, str(folder)]
    same_modules = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    same_modules.pop(VARIABLE, None)
    # through stdin, where other processes cannot see the key
    order = json.dumps({"sought": sought, "key": key and asdict(key)}).encode()
    try:
        search = subprocess.run(  # noqa: S603 - our own module
            command, input=order, capture_output=True, check=True, env=same_modules
        )
        files, traces = json.loads(search.stdout.splitlines()[-1])
    except (subprocess.CalledProcessError, OSError, TypeError, ValueError, IndexError) as error:
        log.info("looking for traces: %s %s", error, getattr(error, "stderr", b""))
        raise StorageError(
            f"the documents were erased, but the bytes of {folder} could not be searched: {error}"
        ) from error
    return files, traces


def _traces_of(
    sought: Sequence[Sequence[str]], folder: Path, key: Key | None
) -> tuple[list[str], int]:
    needles = {needle for texts in sought for needle in _needles(texts)}
    files, found = [], set[bytes]()
    for file in files_in(folder):
        # the log goes with the last connection of another process
        with suppress(FileNotFoundError):
            found |= _found(file, needles - found)
            files.append(file.name)
    return files, len(found - _explained(found, folder / FILE, key))


def _needles(texts: Sequence[str]) -> Iterator[bytes]:
    """Yield the words and pieces to search for of one document, whose text comes first."""
    body = texts[0]
    words = {w for t in texts for w in (*WORD.findall(t), *_as_indexed(t))}
    pieces = {
        body[i : i + PIECE] for i in range(0, len(body), max(PIECE, len(body) // MOST_PIECES))
    }
    for needle in words | pieces:
        both = needle.encode(), needle.lower().encode()
        yield from (n for n in both if len(n) >= SHORTEST)


def _as_indexed(text: str) -> list[str]:
    """Return the words of a text as the full-text index stores them."""
    kept = indexed(text)
    spelt = [" ".join(grams(word)) for word in kept.words.split()]
    return [*kept.words.split(), *kept.forms.split(), *kept.meanings.split(), *filter(None, spelt)]


def _explained(found: set[bytes], database: Path, key: Key | None) -> set[bytes]:
    """Return those needles that a remaining row of the database holds, perhaps within a longer
    word.
    """
    explained: set[bytes] = set()
    for row in _remaining(database, key) if found else ():
        body = "\n".join([row.lower(), *_as_indexed(row)])
        explained |= {needle for needle in found - explained if needle.decode().lower() in body}
        if found == explained:
            break
    return explained


def _remaining(database: Path, key: Key | None) -> Iterator[str]:
    """Yield every text that the database holds on purpose, its schema included."""
    with closing(connect(database, key, timeout=WAIT_SECONDS)) as connection:
        # a remaining text that lost a bit must not hide what the search found
        connection.text_factory = lambda data: data.decode(errors="replace")
        for sql in (
            "SELECT group_concat(sql, '\n') FROM sqlite_master",
            "SELECT value FROM settings",
            "SELECT body FROM fingerprints",
            "SELECT file || '\n' || sha256 || '\n' || space FROM generation",
            (
                "SELECT doc_id || '\n' || coalesce(source, '') || '\n' || scope || '\n' || metadata"
                " || '\n' || text FROM documents"
            ),
        ):
            yield from (row[0] for row in connection.execute(sql))


def _found(file: Path, needles: set[bytes]) -> set[bytes]:
    """Return the needles in a file, read in blocks that overlap by the longest needle."""
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
    """Find all needles in one pass, as Karp and Rabin 1987: a hash of `SHORTEST` bytes chooses
    places, which are then compared in full.
    """
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
    """Return a hash of 24 bits for every run of `SHORTEST` bytes."""
    values = np.frombuffer(data, np.uint8).astype(np.uint32)
    count = max(len(values) - SHORTEST + 1, 0)
    hashes = np.zeros(count, np.uint32)
    for n in range(SHORTEST):
        hashes = hashes * np.uint32(0x01000193) + values[n : n + count]
    return hashes >> np.uint32(8)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump(
        _traces_of(given["sought"], Path(sys.argv[1]), given["key"] and Key(**given["key"])),
        sys.stdout,
    )
