"""Advisory byte-range locks, so that two processes do not encode the same passage: fcntl(2).

A passage's number is a byte of an empty file; the process that has locked the byte encodes the
passage. The operating system drops the locks of a process that dies. They save work and protect no
data: where the file system has none, two processes can encode the same passage. `Memory`
objects of one process on one folder share their locks. Knows files, no passage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cmt_sdk.config.settings import MEMORY_FILES

FILE = MEMORY_FILES[1]
HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def claimed(folder: Path, numbers: Sequence[int], most: int) -> Iterator[list[int]]:
    """Lock the first `most` of these numbers that no other process has locked; yield them. They are
    unlocked when the block ends.
    """
    lock = _locker()
    handle = _opened(folder / FILE)
    if lock is None or handle is None:
        yield list(numbers[:most])
        return
    try:
        mine: list[int] = []
        for number in numbers:
            if len(mine) == most:
                break
            if lock(handle, number):
                mine.append(number)
        yield mine
    finally:
        os.close(handle)


def _opened(file: Path) -> int | None:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None


def _locker() -> Callable[[int, int], bool] | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None

    def lock(handle: int, number: int) -> bool:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            return error.errno not in HELD  # a file system without locks does not block
        return True

    return lock
