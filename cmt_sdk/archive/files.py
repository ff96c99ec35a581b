"""Files that appear complete or not at all, and the operating system's errors, translated."""

from __future__ import annotations

import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cmt_sdk.errors import NotFound, StorageDamaged, StorageDenied, StorageError, StorageFull
from cmt_sdk.system.disk import flush_folder

PARTIAL = ".partial"


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the name `path` once it is complete and on the disk; otherwise it is
    removed. What a killed process left of it is removed too.
    """
    _remove_left_over(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        flush_folder(path.parent)
    finally:
        Path(name).unlink(missing_ok=True)


def _remove_left_over(path: Path) -> None:
    """Remove the partial files of processes that are gone."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        with suppress(OSError), left.open("rb") as file:
            if _lock(file.fileno()):
                left.unlink()


def _lock(handle: int) -> bool:
    """Lock a file that is being written; False where another process has it, or where there are no
    locks.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate the operating system's errors about `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path}: there is no such file or folder") from error
    except PermissionError as error:
        raise StorageDenied(f"{path}: the operating system denies access") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"{path}: the disk is full; free some space and try again") from error
        # a damaged table of contents makes the reader seek to before the file's beginning
        if error.errno == errno.EINVAL:
            raise StorageDamaged(
                f"{path} is damaged: export it again, or use another copy"
            ) from error
        raise StorageError(f"{path}: {error.strerror or error}") from error
