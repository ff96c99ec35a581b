"""The database of a folder: opening it, transactions, and what SQLite and the operating system say.
Knows no table.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3  # for the numbers of its errors
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from cmt_sdk.config import MEMORY_FILES
from cmt_sdk.errors import (
    CMTError,
    MemoryNotFound,
    StorageDamaged,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageLocked,
)
from cmt_sdk.handles import OPEN_HERE
from cmt_sdk.open_files import register, release
from cmt_sdk.storage import driver
from cmt_sdk.storage.encryption import key_of, not_encrypted
from cmt_sdk.storage.private import keep_private, make_folder
from cmt_sdk.storage.schema import is_up_to_date, migrate

FILE = MEMORY_FILES[0]
WAIT_SECONDS = 30
FORK_WAIT = 5.0  # seconds for transactions of other threads to end
MANY = 500
FULL = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
REFUSED: tuple[type[Exception], ...] = (*driver.Error, OSError)
DAMAGE = (
    "no such table",
    "no such column",
    "malformed",
    "Could not decode to UTF-8",
    "invalid fts5 file format",
)


def find_database(folder: Path, *, create: bool) -> Path:
    """The file `folder/memory.db`; a new folder and file where `create` allows it. Raises
    MemoryNotFound, StorageDenied.
    """
    file = folder / FILE
    with translated(folder):
        # an empty file is left by a crash at birth
        if not create and not (file.exists() and file.stat().st_size):
            raise MemoryNotFound(
                f"there is no memory in {folder}: `cmt add FILE` or cmt_sdk.open(...) makes one"
            )
        if create:
            make_folder(folder)
        keep_private(folder, FILE)
        if create and not file.exists():
            # what is remembered is its owner's alone; SQLite's other files follow this one's mode
            file.touch(mode=0o600)
    return file


def may_write(file: Path) -> bool:
    """Whether a database's file can be written, and files beside it made, as SQLite has to."""
    if not os.access(file, os.W_OK):
        return False
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            return True
    except OSError as error:
        return error.errno not in CLOSED


def open_database(file: Path, key: driver.Key | None, *, read_only: bool = False) -> Engine:
    """The engine for a file.

    WAL lets other processes read while one writes; FULL makes every commit durable; secure_delete
    overwrites. With `read_only` nothing is written, on no medium and beside no file.
    """
    # At DEBUG SQLAlchemy would log statements with their values and rows: documents. Nor do its
    # errors tell them.
    logging.getLogger("sqlalchemy.engine.Engine.cmt").setLevel(logging.WARNING)
    access: driver.Access = "read" if read_only else "make"
    pragmas = (
        ("query_only = ON",)
        if read_only
        else ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON")
    )
    engine = create_engine(
        URL.create("sqlite", database=str(file)),
        logging_name="cmt",
        hide_parameters=True,
        module=driver.module(key),
        creator=lambda: driver.connect(
            file, key, timeout=WAIT_SECONDS, access=access, check_same_thread=False
        ),
        # a thread that found no connection free would fail with an error that is not the disk's
        max_overflow=-1,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: driver.Connection, _record: Any) -> None:
        # we say BEGIN ourselves: the driver's own begins too late
        connection.isolation_level = None
        # a text that lost a bit must not hide all others; `check` tells of it
        connection.text_factory = _readable
        try:
            if not read_only:
                _switch_to_wal(connection)
            for pragma in (*pragmas, "cache_size = -16000"):
                connection.execute(f"PRAGMA {pragma}")
        except driver.Error:
            connection.close()
            raise

    return engine


def _readable(data: bytes) -> str:
    return data.decode(errors="replace")


def _switch_to_wal(connection: driver.Connection) -> None:
    """Several processes that open a new file at once lock each other out of the switch: try again
    for a while.
    """
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except driver.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


_open: weakref.WeakSet[Database] = weakref.WeakSet()
_opening = threading.Lock()


def _before_fork() -> None:
    """SQLite must not be carried across a fork: parent and child open their connections anew when
    they next need one.
    """
    until = time.monotonic() + FORK_WAIT
    for database in list(_open):
        while database.busy and time.monotonic() < until:
            time.sleep(0.001)
        database.let_go()


def _in_child() -> None:
    global _opening  # noqa: PLW0603 - a thread of the parent may hold it
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def _key_here(file: Path, *, encrypt: bool) -> driver.Key | None:
    """The key of a file. One that is open here tells it: reading the file itself would drop the
    locks on it.
    """
    here = next((database for database in list(_open) if database.is_of(file)), None)
    if here is None:
        return key_of(file, encrypt=encrypt)
    if encrypt and not here.encrypted:
        raise not_encrypted(file)
    return here._key


def utc_now() -> datetime:
    """The clock that stamps documents."""
    return datetime.now(UTC)


class Database:
    """One folder's database with its transactions and its clock. Safe from several threads and
    processes.

    One on a medium, or with files, that this user may not write is open for reading: `read_only`
    says so.
    """

    def __init__(
        self,
        folder: Path,
        *,
        create: bool = True,
        encrypt: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._folder = folder.absolute()
        self._clock = clock
        self._closed = False
        self._running: list[None] = []
        self._why_closed = "was closed: open it again"
        self._file = find_database(self._folder, create=create)
        self.read_only = not os.access(self._file, os.W_OK)
        with _opening, translated(self._folder):
            self._key = _key_here(self._file, encrypt=encrypt)
            self._engine = open_database(self._file, self._key, read_only=self.read_only)
            register(self._file)
            _open.add(self)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Bring the schema up to date. Where the first look fails because nothing may be written,
        from now on only read.
        """
        try:
            self._bring_up_to_date()
        except StorageDenied:
            if self.read_only or not self._file.stat().st_size or may_write(self._file):
                raise
            self.read_only = True
            self._engine.dispose()
            self._engine = open_database(self._file, self._key, read_only=True)
            self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        """Without the write lock where nothing is lacking: a reader opens while another process
        writes.
        """
        with self._read() as db:
            done = is_up_to_date(db, to_read=self.read_only)
        if not done and self.read_only:
            raise StorageDenied(
                f"the memory in {self._folder} was written by an earlier release, and where nothing"
                " can be written it cannot be brought up to date: copy the folder to a disk that"
                " you may write to, and open it there"
            )
        if not done:
            with self._write() as db:
                migrate(db)

    def _read(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the database and changes nothing."""
        return self._transaction("BEGIN", "ROLLBACK")

    def _write(self) -> AbstractContextManager[Connection]:
        """A transaction that is durable once the block has ended, or never was."""
        return self._transaction("BEGIN IMMEDIATE", "COMMIT")

    def _write_if_free(self) -> AbstractContextManager[Connection]:
        """As `_write`; StorageLocked at once where another process is writing."""
        return self._transaction("BEGIN IMMEDIATE", "COMMIT", wait=False)

    @contextmanager
    def _transaction(self, begin: str, end: str, *, wait: bool = True) -> Iterator[Connection]:
        if self._closed:
            raise StorageError(f"the memory in {self._folder} {self._why_closed}")
        if self.read_only and begin != "BEGIN":
            raise StorageDenied(
                f"the memory in {self._folder} is read-only, as its medium or its files are: change"
                f" a copy of it, `cmt backup FOLDER -m {self._folder}` makes one"
            )
        with self._counted(), translated(self._folder), self._engine.connect() as db:
            if wait:
                db.exec_driver_sql(begin)
            else:
                _begin_at_once(db, begin)
            try:
                yield db
                db.exec_driver_sql(end)
            except BaseException as error:
                try:
                    # SQLite has rolled back by itself after some errors, a full disk among them
                    if not db.invalidated and db.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
                        db.exec_driver_sql("ROLLBACK")
                finally:
                    if isinstance(error, MemoryError | DBAPIError):
                        # full-text search can keep in its memory what was rolled back on the disk
                        db.invalidate()
                raise

    @staticmethod
    def _lost(db: Connection) -> None:
        """Tell every index, in whatever process, that the set of vectors has lost some; what it
        gains, labels tell.
        """
        db.exec_driver_sql(
            "UPDATE settings SET value = CAST(value AS INTEGER) + 1 WHERE name = 'changes'"
        )

    def now(self) -> datetime:
        """The clock that stamps and expires documents, UTC."""
        return self._clock()

    def is_of(self, file: Path) -> bool:
        """Whether this is the database in a file, by whatever name."""
        try:
            return os.path.samestat(file.stat(), self._file.stat())
        except OSError:
            return False

    @property
    def encrypted(self) -> bool:
        """Whether there is a key to the database."""
        return self._key is not None

    @property
    def busy(self) -> bool:
        """True while a transaction runs."""
        return bool(self._running)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counted here, because the engine's new pool does not know of connections that were out at
        a fork.
        """
        self._running.append(None)
        try:
            yield
        finally:
            self._running.pop()

    def let_go(self) -> None:
        """Close all idle connections; the next transaction opens one."""
        self._engine.dispose()

    def at_work(self) -> bool:
        """See ports.Store."""
        return self.busy

    def leave(self) -> None:
        """See ports.Store."""
        self._closed = True
        self._why_closed = (
            f"was at work in a thread that this process, a fork, does not have: {OPEN_HERE}"
        )
        release(self._file)
        _open.discard(self)

    def close(self) -> None:
        """Release the files; calling it twice does nothing, and everything else raises StorageError
        from now on.
        """
        was_closed, self._closed = self._closed, True
        was_busy = self.busy
        self._engine.dispose()
        if not was_closed:
            release(self._file)
        if not was_busy:  # else a transaction of another thread still holds locks
            with _opening:
                _open.discard(self)


def _begin_at_once(db: Connection, begin: str) -> None:
    db.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        db.exec_driver_sql(begin)
    finally:
        db.exec_driver_sql(f"PRAGMA busy_timeout = {int(1000 * WAIT_SECONDS)}")


def chunks(ids: Sequence[int]) -> Iterator[str]:
    """Whole numbers as lists for SQL, some hundreds at a time."""
    for first in range(0, len(ids), MANY):
        yield ", ".join(str(int(i)) for i in ids[first : first + MANY])


def files_in(folder: Path) -> dict[Path, int]:
    """The files of a folder and their bytes, without those that another process removes
    meanwhile.
    """
    found = {}
    for file in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):
            if file.is_file():
                found[file] = file.stat().st_size
    return found


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """What goes wrong with the disk or the database, as this package's errors."""
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
            f"{folder} was busy for {WAIT_SECONDS} s: another process is writing; try again"
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
