"""The database of a folder: opening it, and transactions. Knows no table."""

from __future__ import annotations

import logging
import os
import sqlite3  # for the numbers of its errors
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from cmt_sdk.errors import (
    MemoryNotFound,
    StorageDenied,
    StorageError,
)
from cmt_sdk.storage import driver
from cmt_sdk.storage.disk_errors import NOT_WRITABLE, translated
from cmt_sdk.storage.driver import FILE
from cmt_sdk.storage.encryption import key_of, not_encrypted
from cmt_sdk.storage.filters import conditions
from cmt_sdk.storage.private import keep_private, make_folder
from cmt_sdk.storage.schema import is_up_to_date, migrate
from cmt_sdk.storage.transactions import Transactions
from cmt_sdk.system.handles import OPEN_HERE
from cmt_sdk.system.open_files import register, release
from cmt_sdk.types import Filter

FORK_WAIT = 5.0  # seconds for transactions of other threads to end
MANY = 500


def find_database(folder: Path, *, create: bool) -> Path:
    """Return the file `folder/memory.db`; with `create`, make the folder and the file.

    Raises:
        MemoryNotFound: there is no memory, and `create` is False.
        StorageDenied: the folder or the file cannot be used.
    """
    file = folder / FILE
    with translated(folder):
        # a crash while the memory was made leaves an empty file
        if not create and not (file.exists() and file.stat().st_size):
            raise MemoryNotFound(
                f"there is no memory in {folder}: `cmt add FILE` or cmt_sdk.open(...) makes one"
            )
        if create:
            make_folder(folder)
        keep_private(folder, FILE)
        if create and not file.exists():
            # readable by its owner only; SQLite's other files take this one's mode
            file.touch(mode=0o600)
    return file


def may_write(file: Path) -> bool:
    """Return whether SQLite can write a database file and make files next to it."""
    if not os.access(file, os.W_OK):
        return False
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            return True
    except OSError as error:
        return error.errno not in NOT_WRITABLE


def open_database(file: Path, key: driver.Key | None, *, read_only: bool = False) -> Engine:
    """Return the SQLAlchemy engine for a file.

    The write-ahead log lets other processes read while one writes (sqlite.org/wal.html);
    synchronous = FULL makes every commit durable; secure_delete overwrites deleted content. With
    `read_only` nothing is written, neither the file nor any next to it.
    """
    # At DEBUG SQLAlchemy would log statements with their values and rows, which are documents;
    # `hide_parameters` keeps them out of its errors.
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
            file, key, timeout=driver.WAIT_SECONDS, access=access, check_same_thread=False
        ),
        # a thread that found no connection free would fail with an error that is not the disk's
        max_overflow=-1,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: driver.Connection, _record: Any) -> None:
        # transactions begin explicitly: the driver would begin them too late
        connection.isolation_level = None
        # a text that lost a bit must not hide all others; `check` reports it
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
    """Switch to the write-ahead log. Processes that open a new file at once lock each other out:
    try again for a while.
    """
    until = time.monotonic() + driver.WAIT_SECONDS
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
    """Close all idle connections: SQLite must not be carried across a fork
    (sqlite.org/howtocorrupt.html). Parent and child open new ones when they need them.
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
    """Return the key of a file, from a database of this process that has it open, if any: reading
    the file would drop SQLite's locks on it.
    """
    here = next((database for database in list(_open) if database.is_of(file)), None)
    if here is None:
        return key_of(file, encrypt=encrypt)
    if encrypt and not here.encrypted:
        raise not_encrypted(file)
    return here._key


def utc_now() -> datetime:
    """Return the time that stamps documents."""
    return datetime.now(UTC)


class Database(Transactions):
    """One folder's database with its transactions and its clock. Safe to use from several threads
    and processes.

    `read_only` is True where the medium or the files' permissions forbid writing.
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
        """Bring the schema up to date. Open the database read-only where that fails because nothing
        can be written.
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
        """Run the missing migrations. Takes no write lock where none is missing, so that a reader
        can open while another process writes.
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
        """Begin a transaction that sees one state of the database and changes nothing."""
        return self._transaction("BEGIN", "ROLLBACK")

    def _write(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that is durable once the block has ended, or is rolled back."""
        return self._transaction("BEGIN IMMEDIATE", "COMMIT")

    def _write_if_free(self) -> AbstractContextManager[Connection]:
        """Begin as `_write` does; raise StorageLocked at once where another process is writing."""
        return self._transaction("BEGIN IMMEDIATE", "COMMIT", wait=False)

    def _refuse_read_only(self) -> None:
        """Raise StorageDenied where nothing can be written."""
        if self.read_only:
            raise StorageDenied(
                f"the memory in {self._folder} is read-only, as its medium or its files are: change"
                f" a copy of it, `cmt backup FOLDER -m {self._folder}` makes one"
            )

    @contextmanager
    def _transaction(self, begin: str, end: str, *, wait: bool = True) -> Iterator[Connection]:
        if self._closed:
            raise StorageError(f"the memory in {self._folder} {self._why_closed}")
        if begin != "BEGIN":
            self._refuse_read_only()
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

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def identity(self) -> str:
        """Return what names the database, whatever path it is opened by."""
        with translated(self._folder):
            found = self._file.stat()
        return f"file {found.st_dev}:{found.st_ino}"

    def _conditions(self, filter: Filter, now: float) -> tuple[str, dict[str, Any]]:
        return conditions(filter, now)

    def _bump_change_counter(self, db: Connection) -> None:
        """Record that the set of vectors has lost some, for the index in every process. Gains need
        no record: labels only grow.
        """
        db.exec_driver_sql(
            "UPDATE settings SET value = CAST(value AS INTEGER) + 1 WHERE name = 'changes'"
        )

    def now(self) -> datetime:
        """Return the time that stamps and expires documents, UTC."""
        return self._clock()

    def is_of(self, file: Path) -> bool:
        """Return whether a path names this database's file, also through a link."""
        try:
            return os.path.samestat(file.stat(), self._file.stat())
        except OSError:
            return False

    @property
    def encrypted(self) -> bool:
        """True where the database has a key."""
        return self._key is not None

    @property
    def busy(self) -> bool:
        """True while a transaction runs."""
        return bool(self._running)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count the running transaction. The engine's new pool does not know of connections that
        were in use at a fork.
        """
        self._running.append(None)
        try:
            yield
        finally:
            self._running.pop()

    def let_go(self) -> None:
        """Close all idle connections. The next transaction opens one."""
        self._engine.dispose()

    def at_work(self) -> bool:
        """Return whether a transaction is running."""
        return self.busy

    def leave(self) -> None:
        """In a forked child: use the files no longer; every later call raises StorageError."""
        self._closed = True
        self._why_closed = (
            f"was at work in a thread that this process, a fork, does not have: {OPEN_HERE}"
        )
        release(self._file)
        _open.discard(self)

    def close(self) -> None:
        """Release the files. A second call does nothing; others then raise StorageError."""
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
        db.exec_driver_sql(f"PRAGMA busy_timeout = {int(1000 * driver.WAIT_SECONDS)}")


def chunks(ids: Sequence[int]) -> Iterator[str]:
    """Yield whole numbers as lists for SQL, MANY at a time."""
    for first in range(0, len(ids), MANY):
        yield ", ".join(str(int(i)) for i in ids[first : first + MANY])
