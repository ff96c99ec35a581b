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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.errors import StorageError
from cmt_sdk.storage.driver import FILE, VARIABLE, WAIT_SECONDS, Connection, Key, connect, files_in
from cmt_sdk.storage.unused_bytes import clear_elsewhere
from cmt_sdk.text.words import grams, indexed
from cmt_sdk.types import Document

SHORTEST = 6
PIECE = 32
MOST_PIECES = 4096  # of one document; of longer ones they lie further apart
BLOCK = 1 << 22
SMALL = 1 << 25  # bytes of a database that is rewritten rather than cleared
LARGELY = 4  # and one of whose pages more than one in so many is free
ROWS = 1000  # remaining documents that are looked through together
WORD = re.compile(rf"\w{{{SHORTEST},}}")


HASH_BITS = 16
MIXER = np.uint32(0x9E3779B1)  # Knuth's multiplier, made odd
T = TypeVar("T")
Numbers = NDArray[np.uint32]
log = logging.getLogger(__name__)


def erase(file: Path, key: Key | None, wait: float = WAIT_SECONDS) -> bool:
    """Erase deleted content from the database: from the full-text index, unused bytes, and the
    write-ahead log.

    A small file, an encrypted one and one that is largely free is rewritten. Elsewhere the index is
    merged, and the unused bytes are overwritten in place: rewriting would copy every memory.

    Returns:
        False where another process reads the old state for longer than `wait` seconds: the log is
        kept then.
    """
    with closing(connect(file, key, timeout=wait, isolation_level=None)) as connection:
        free, pages, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("freelist_count", "page_count", "page_size")
        )
    if key is not None or pages * size <= SMALL or free > pages // LARGELY:
        return rewrite(file, key, wait)
    if not _merge_words(file, wait):
        return False
    cleared = clear_elsewhere(file, wait)
    return rewrite(file, key, wait) if cleared is None else cleared


def rewrite(file: Path, key: Key | None, wait: float = WAIT_SECONDS) -> bool:
    """Rewrite the database without deleted content (sqlite.org/lang_vacuum.html,
    sqlite.org/pragma.html#pragma_wal_checkpoint); return as `erase` does.
    """
    return _commanded("rebuild", file, key, wait, "VACUUM")


def _merge_words(file: Path, wait: float) -> bool:
    """Merge the full-text index into one part, which leaves out what was deleted
    (sqlite.org/fts5.html#the_optimize_command).
    """
    return _commanded("optimize", file, None, wait)


def _commanded(command: str, file: Path, key: Key | None, wait: float, *more: str) -> bool:
    # with SQLAlchemy, which the search for traces need not load
    from cmt_sdk.storage.schema import WORD_TABLES

    with closing(connect(file, key, timeout=wait, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        for table in WORD_TABLES:
            connection.execute(f"INSERT INTO {table} ({table}) VALUES ('{command}')")
        for statement in more:
            connection.execute(statement)
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

    First all texts as they are, then the rows in whose indexed words the rest stands, then the
    indexed words of every row.
    """
    explained: set[bytes] = set()
    if not found:
        return explained
    with closing(connect(database, key, timeout=WAIT_SECONDS)) as connection:
        # a remaining text that lost a bit must not hide what the search found
        connection.text_factory = lambda data: data.decode(errors="replace")
        for bodies in _batches(_remaining(connection)):
            explained |= _held("\0".join(bodies).lower(), found - explained)
            if found == explained:
                return explained
        for row in chain(_indexed_with(connection, found - explained), _remaining(connection)):
            body = "\n".join([row.lower(), *_as_indexed(row)])
            explained |= _held(body, found - explained)
            if found == explained:
                break
    return explained


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(rows)
    while some := list(islice(rest, ROWS)):
        yield some


def _held(body: str, needles: set[bytes]) -> set[bytes]:
    return {needle for needle in needles if needle.decode().lower() in body}


DOCUMENT = (
    "SELECT doc_id || '\n' || coalesce(source, '') || '\n' || scope || '\n' || metadata || '\n' ||"
    " text FROM documents"
)


def _remaining(connection: Connection) -> Iterator[str]:
    """Yield every text that the database holds on purpose, its schema included."""
    for sql in (
        "SELECT group_concat(sql, '\n') FROM sqlite_master",
        "SELECT value FROM settings",
        "SELECT body FROM fingerprints",
        "SELECT file || '\n' || sha256 || '\n' || space FROM generation",
        DOCUMENT,
    ):
        yield from (row[0] for row in connection.execute(sql))


def _indexed_with(connection: Connection, needles: set[bytes]) -> Iterator[str]:
    """Yield a document for each needle that stands in the words that the full-text index keeps of
    a remaining one.
    """
    rows = connection.execute(
        "SELECT p.document_key, t.c0 || '\n' || f.c0 || '\n' || f.c1 || '\n' || f.c2"
        " FROM passages p"
        " JOIN passage_text_content t ON t.id = p.id JOIN passage_forms_content f ON f.id = p.id"
    )
    left = set(needles)
    keys = set[int]()
    for some in _batches(rows):
        held = _held("\0".join(words for _, words in some), left)
        left -= held
        keys |= {
            next(key for key, words in some if needle.decode().lower() in words) for needle in held
        }
        if not left:
            break
    for key in keys:
        yield from (row[0] for row in connection.execute(f"{DOCUMENT} WHERE key = ?", (key,)))


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
    """Find all needles in one pass, as Karp and Rabin 1987: hashes choose places, which are then
    compared in full.

    Four bytes are hashed at every second place, where a needle has begun there or one byte before;
    then its first `SHORTEST` bytes.
    """
    by_start: dict[bytes, set[bytes]] = {}
    for needle in needles:
        by_start.setdefault(needle[:SHORTEST], set()).add(needle)
    if len(window) < SHORTEST or not needles:
        return set()
    starts = b"".join(by_start)
    begins = np.arange(0, len(starts), SHORTEST)
    first = _table(_at(starts, np.concatenate([begins, begins + 1])))
    second = _table(_mixed(starts, begins))
    found: set[bytes] = set()
    for offset in (0, 2):
        words = np.frombuffer(window, "<u4", (len(window) - offset) // 4, offset)
        here = 4 * np.flatnonzero(first[_hashed(words)]) + offset
        places = np.concatenate([here, here - 1])
        places = places[(places >= 0) & (places <= len(window) - SHORTEST)]
        for at in places[second[_hashed(_mixed(window, places))]].tolist():
            same = by_start.get(window[at : at + SHORTEST], set())
            held = {needle for needle in same if window.startswith(needle, at)}
            same -= held
            found |= held
    return found


def _at(data: bytes, places: NDArray[np.intp]) -> Numbers:
    """Return the four-byte numbers that begin at some places."""
    every: Numbers = np.ndarray((len(data) - 3,), "<u4", data, strides=(1,))
    return every[places]


def _mixed(data: bytes, places: NDArray[np.intp]) -> Numbers:
    """Return a number for the `SHORTEST` bytes that begin at each place."""
    return _at(data, places) ^ (_at(data, places + SHORTEST - 4) * MIXER)


def _table(values: Numbers) -> NDArray[np.bool_]:
    """Return which hashes some numbers have."""
    table = np.zeros(1 << HASH_BITS, bool)
    table[_hashed(values)] = True
    return table


def _hashed(values: Numbers) -> Numbers:
    return (values * MIXER) >> np.uint32(32 - HASH_BITS)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump(
        _traces_of(given["sought"], Path(sys.argv[1]), given["key"] and Key(**given["key"])),
        sys.stdout,
    )
