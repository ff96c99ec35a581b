"""Reliable copies of a database, made while others write. Knows files and SQLite, no table."""

from __future__ import annotations

import os
import sqlite3  # for the numbers of its errors
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cmt_sdk.errors import AlreadyExists, NotFound, StorageDamaged
from cmt_sdk.storage import driver
from cmt_sdk.storage.disk_errors import translated
from cmt_sdk.storage.driver import FILE, WAIT_SECONDS
from cmt_sdk.system.disk import flush
from cmt_sdk.system.open_files import refuse_open


def back_up(
    folder: Path,
    target: Path,
    key: driver.Key | None = None,
    *,
    overwrite: bool = False,
    read_only: bool = False,
    complete: Callable[[driver.Connection], None] | None = None,
) -> Path:
    """Copy a folder's database as of one moment with SQLite's backup API (sqlite.org/backup.html).

    Other processes can write meanwhile. The copy of an encrypted database has the same key.

    Args:
        folder: the folder of the memory.
        target: a file *.db, else a folder, which then opens as a memory.
        key: the database's key.
        overwrite: replace an existing file.
        read_only: the folder cannot be written.
        complete: brings what is kept elsewhere into the copy, before anyone sees that.

    Returns:
        The file. It is complete and on the disk, or does not exist.

    Raises:
        AlreadyExists: the file exists or is in use.
        NotFound: there is no folder to make it in.
        InvalidInput: the target is a file of an open memory.
        StorageFull, StorageDenied: the target cannot be written.
        StorageDamaged: the database is damaged.
    """
    file = target.absolute() if target.suffix == ".db" else target.absolute() / FILE
    refuse_open(file)
    with translated(file.parent):
        if file.exists() and not overwrite:
            raise AlreadyExists(
                f"{file} is there already; choose another name, or give overwrite=True (`cmt`:"
                " --overwrite)"
            )
        if file.with_name(f"{file.name}-wal").exists():
            raise AlreadyExists(
                f"{file} is in use, or was when its process was killed; choose another name"
            )
        if not (parent := target.absolute().parent).is_dir():
            raise NotFound(
                f"there is no folder {parent} to make {target.name} in: make it first, or give"
                " another place"
            )
        if target.suffix != ".db":
            file.parent.mkdir(mode=0o700, exist_ok=True)
        made = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        try:
            made.touch(mode=0o600)
            _copy(folder / FILE, made, key, "read" if read_only else "existing", complete)
            flush(made)
            made.replace(file)
            flush(file)
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                made.with_name(made.name + suffix).unlink(missing_ok=True)
    return file


def _copy(
    database: Path,
    to: Path,
    key: driver.Key | None,
    access: driver.Access,
    complete: Callable[[driver.Connection], None] | None,
) -> None:
    with (
        closing(driver.connect(database, key, timeout=WAIT_SECONDS, access=access)) as old,
        closing(driver.connect(to, key, isolation_level=None)) as new,
    ):
        _fill(new, old, database)
        new.execute("DELETE FROM generation")  # its index file stays behind
        if complete:
            complete(new)
        new.execute("PRAGMA journal_mode = DELETE")  # one file, without a log
        faults = [row[0] for row in new.execute("PRAGMA integrity_check(3)")]
    if faults != ["ok"]:
        raise StorageDamaged(
            f"{database} is damaged ({'; '.join(faults)}), and so would be its copy: run `cmt check"
            " --repair`"
        )


def _fill(new: driver.Connection, old: driver.Connection, database: Path) -> None:
    try:
        old.backup(new)
    except driver.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StorageDamaged(
                f"{database} is damaged ({error}): run `cmt check --repair`"
            ) from error
        raise


def copy_as_it_is(folder: Path, to: Path) -> None:
    """Copy the files of a folder byte for byte, even damaged. No process may have them open."""
    with translated(to):
        to.mkdir(mode=0o700, parents=True)
        for file in sorted(folder.iterdir()):
            if file.is_file():
                _copy_file(file, to / file.name)


def _copy_file(file: Path, to: Path) -> None:
    with (
        file.open("rb") as old,
        os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new,
    ):
        while block := old.read(1 << 20):
            new.write(block)
    flush(to)
