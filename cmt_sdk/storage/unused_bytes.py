"""Clears the unused bytes of a database file in place: free pages, and the gaps within pages.

`secure_delete` overwrites what is deleted, but not the copies of rows that SQLite leaves in a gap
when it moves them to another page. Knows the file format (sqlite.org/fileformat2.html), no table.
The database must not be encrypted.

Safe at any moment: SQLite reads none of these bytes, so a file that is half cleared is whole. Runs
in a process of its own, for closing the file drops all locks that SQLite holds on it in the same
process (POSIX; sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from struct import unpack_from
from typing import BinaryIO

from cmt_sdk.storage.driver import connect

HEADER = 100  # bytes before the first page's own header
INTERIOR = {2, 5}  # of an index, of a table
LEAF = {10, 13}
DONE, BUSY = 0, 3  # exit codes

log = logging.getLogger(__name__)


def clear_elsewhere(file: Path, wait: float) -> bool | None:
    """Clear the unused bytes in another process.

    Returns:
        False where other processes read an old state, or write, for longer than `wait` seconds;
        None where the file cannot be cleared in place.
    """
    command = [sys.executable, "-P", "-m", __name__, str(file), str(wait)]
    same_modules = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(command, check=False, capture_output=True, env=same_modules)  # noqa: S603 - our own module
    except (OSError, TypeError) as error:
        log.info("clearing %s: %s", file, error)
        return None
    if done.returncode not in (DONE, BUSY):
        log.info("clearing %s: %s", file, done.stderr.decode(errors="replace"))
        return None
    return done.returncode == DONE


def _clear(file: Path, wait: float) -> bool:
    """Clear the unused bytes while no other process can write.

    Returns False where the log cannot be emptied.
    """
    with (
        closing(connect(file, None, timeout=wait, isolation_level=None)) as db,
        file.open("r+b", buffering=0) as data,
    ):
        if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            return False
        db.execute("BEGIN IMMEDIATE")
        if file.with_name(f"{file.name}-wal").stat().st_size:  # somebody wrote in between
            return False
        roots = db.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
        for at, length in unused(data, [1, *(row[0] for row in roots)]):
            data.seek(at)
            data.write(bytes(length))
        os.fsync(data.fileno())
        # a commit: other connections read the pages that they hold again, before they write them
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute(f"PRAGMA user_version = {int(version)}")
        db.execute("COMMIT")
        return not db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]


def unused(data: BinaryIO, roots: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield where unused bytes begin that are not all zero, and how many they are.

    Args:
        data: a database file with an empty log.
        roots: the first pages of its b-trees.

    Raises:
        ValueError: a page that is not as the format says.
    """
    head = data.read(HEADER)
    size = unpack_from(">H", head, 16)[0]
    size = 65536 if size == 1 else size
    for page, content in _trees(data, size, roots):
        for start, end in _gaps(content, HEADER if page == 1 else 0):
            if content.count(0, start, end) < end - start:
                yield (page - 1) * size + start, end - start
    trunk = unpack_from(">I", head, 32)[0]
    seen = set[int]()
    while trunk and trunk not in seen:
        seen.add(trunk)
        content, first = _read(data, size, trunk), (trunk - 1) * size
        trunk, count = unpack_from(">2I", content)
        end = 8 + 4 * count
        if any(content[end:]):
            yield first + end, size - end
        for page in unpack_from(f">{count}I", content, 8):
            if any(_read(data, size, page)):
                yield (page - 1) * size, size


def _read(data: BinaryIO, size: int, page: int) -> bytes:
    data.seek((page - 1) * size)
    content = data.read(size)
    if page < 1 or len(content) != size:
        raise ValueError(f"page {page} is not in the file")
    return content


def _trees(data: BinaryIO, size: int, roots: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of every page of these b-trees."""
    due = list(roots)
    seen = set[int]()
    while due:
        page = due.pop()
        if page in seen:
            raise ValueError(f"page {page} is in two places")
        seen.add(page)
        content = _read(data, size, page)
        due += _children(content, HEADER if page == 1 else 0)
        yield page, content


def _children(content: bytes, header: int) -> list[int]:
    """Return the pages below one of a b-tree."""
    if content[header] in LEAF:
        return []
    if content[header] not in INTERIOR:
        raise ValueError(f"a page of kind {content[header]} is in a b-tree")
    count = unpack_from(">H", content, header + 3)[0]
    cells = unpack_from(f">{count}H", content, header + 12)
    return [unpack_from(">I", content, at)[0] for at in (header + 8, *cells)]


def _gaps(content: bytes, header: int) -> Iterator[tuple[int, int]]:
    """Yield where the unused parts of a page of a b-tree begin and end: before its cells, and in
    the free blocks between them.
    """
    block, count, cells = unpack_from(">3H", content, header + 1)
    start = header + (12 if content[header] in INTERIOR else 8) + 2 * count
    cells = cells or 65536
    if not start <= cells <= len(content):
        raise ValueError("the cells of a page begin outside it")
    yield start, cells
    while block:
        following, length = unpack_from(">2H", content, block)
        if block < cells or block + length > len(content) or 0 < following <= block:
            raise ValueError("a free block of a page is outside it")
        yield block + 4, block + length
        block = following


if __name__ == "__main__":
    sys.exit(DONE if _clear(Path(sys.argv[1]), float(sys.argv[2])) else BUSY)
