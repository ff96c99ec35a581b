"""Database files that are open in this process: nothing else here may open them. Knows paths, no
database.

Closing any handle on such a file drops all locks that SQLite holds on it in the same process
(POSIX; "How To Corrupt An SQLite Database File", 2.2), and other processes may then write at the
same time.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

from cmt_sdk.errors import InvalidInput

# reentrant: garbage collection may close a memory, and call `release`, while this thread holds it
_lock = threading.RLock()
_open: Counter[Path] = Counter()


def _in_child() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may hold it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def register(database: Path) -> None:
    """Record that this process opened a database, and the files that SQLite keeps next to it."""
    with _lock:
        _open[database] += 1


def release(database: Path) -> None:
    """Record that one opening of the file ended."""
    with _lock:
        _open[database] -= 1
        if _open[database] <= 0:
            del _open[database]


def refuse_open(path: Path) -> None:
    """Raise InvalidInput for a file, by whatever name, that belongs to a memory which is open in
    this process.
    """
    try:
        given = path.stat()
    except (OSError, ValueError):
        return  # opening it raises the error
    with _lock:
        databases = list(_open)
    files = [d.with_name(d.name + suffix) for d in databases for suffix in ("", "-wal", "-shm")]
    for file in files:
        try:
            same = os.path.samestat(given, file.stat())
        except OSError:
            continue
        if same:
            raise InvalidInput(
                f"{path} is part of a memory that is open: `cmt export` writes a copy that can be"
                " read"
            )
