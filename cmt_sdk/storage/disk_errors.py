"""Errors of SQLite and of the operating system, translated into this package's errors."""

from __future__ import annotations

import errno
import sqlite3  # for the numbers of its errors
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from cmt_sdk.errors import (
    CMTError,
    StorageDamaged,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageLocked,
)
from cmt_sdk.storage import driver
from cmt_sdk.storage.driver import FILE

FULL = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
)
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
REFUSED: tuple[type[Exception], ...] = (*driver.Error, OSError)
DAMAGE = (
    "no such table",
    "no such column",
    "malformed",
    "Could not decode to UTF-8",
    "invalid fts5 file format",
)


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Translate errors of the disk and the database into this package's errors."""
    try:
        yield
    except DBAPIError as error:
        raise _as_ours(error.orig, folder) from error
    except REFUSED as error:
        raise _as_ours(error, folder) from error


def _as_ours(error: BaseException | None, folder: Path) -> CMTError:
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return StorageFull(
                f"no space left for {folder}: free some and try again; what was stored is safe"
            )
        return StorageDenied(
            f"{folder} cannot be used: {error}; give a folder that you may write to"
        )
    code = getattr(error, "sqlite_errorcode", 0)
    if code in FULL:
        return StorageFull(
            f"the disk of {folder} refused a write ({error}): free space; what was stored is safe"
        )
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageLocked(
            f"{folder} was busy for {driver.WAIT_SECONDS} s: another process is writing; try again"
        )
    if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StorageDenied(
            f"{folder / FILE} cannot be opened for writing ({error}): check the permissions"
        )
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or any(
        s in str(error) for s in DAMAGE
    ):
        return StorageDamaged(
            f"{folder / FILE} is damaged ({error}): run `cmt check --repair`, or restore a backup"
        )
    return StorageError(f"{folder}: {error}")
