"""A Postgres database: its connections and transactions. Knows no table of documents.

A connection is borrowed for one transaction, and tested before: one that the server has closed in
the meantime is replaced. All memories of a process at one address share a pool.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import URL, Connection, Engine, Row, create_engine, text

from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.errors import (
    InvalidSetting,
    MemoryNotFound,
    StorageDenied,
    StorageError,
)
from cmt_sdk.storage.connection import utc_now
from cmt_sdk.storage.filters import conditions_in
from cmt_sdk.storage.postgres.address import url_of
from cmt_sdk.storage.postgres.errors import translated
from cmt_sdk.storage.postgres.filters import POSTGRES
from cmt_sdk.storage.postgres.schema import SCHEMA, is_up_to_date, migrate, revision
from cmt_sdk.storage.rows import document_of, gone_of
from cmt_sdk.storage.transactions import Transactions
from cmt_sdk.system.extras import unusable
from cmt_sdk.types import Document, Filter
from cmt_sdk.types.scopes import is_scope

WAIT_MS = 30_000  # for a lock that another transaction holds
CONNECT_SECONDS = 10
POOL = 5  # connections kept open; pgvector's scans get in each other's way beyond some 32
MORE = 10  # opened for a while under load
PGVECTOR = (0, 8, 4)  # the first one without known faults of iterative scans
CHANGING = 0x636D7402  # the number of the lock on all documents
NO_CONFLICT = "SELECT 1"
LONGEST_KEY = 500  # characters of an id or scope: an entry of a btree has 2,704 bytes at most


class _Pools:
    """The engines of this process, one per address, as long as a memory uses them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[str, tuple[Engine, int]] = {}

    def take(self, url: URL) -> Engine:
        name = url.render_as_string(hide_password=False)
        with self._lock:
            engine, users = self._engines.get(name, (None, 0))
            if engine is None:
                engine = _engine(url)
            self._engines[name] = (engine, users + 1)
            return engine

    def give_back(self, url: URL) -> None:
        name = url.render_as_string(hide_password=False)
        with self._lock:
            engine, users = self._engines.pop(name)
            if users > 1:
                self._engines[name] = (engine, users - 1)
                return
        engine.dispose()

    def in_child(self) -> None:
        """After a fork: leave the parent's connections to it."""
        self._lock = threading.Lock()
        for engine, _ in self._engines.values():
            engine.dispose(close=False)


_pools = _Pools()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.in_child)


def _engine(url: URL) -> Engine:
    # as in storage.connection: statements with their values are documents
    logging.getLogger("sqlalchemy.engine.Engine.cmt").setLevel(logging.WARNING)
    try:
        return create_engine(
            url,
            logging_name="cmt",
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=POOL,
            max_overflow=MORE,
            connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "cmt-sdk"},
        )
    except ImportError as error:
        raise unusable("a memory in Postgres", "postgres", error) from error


class Server(Transactions):
    """One database, or the part of it in and below a scope.

    A memory that was opened with a scope has that part alone: its own scopes are those below it,
    named without it. Row-level security holds every transaction to it.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        *,
        scope: str = "",
        create: bool = True,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if not is_scope(scope) or len(scope) > LONGEST_KEY:
            raise InvalidSetting(
                f"scope={scope!r:.60}: give names with a slash between them, such as user/ann, of"
                f" {LONGEST_KEY} characters at most"
            )
        self._address = address
        self._url = url_of(address)
        self._scope = scope
        self._clock = clock
        self._closed = False
        self.read_only = False
        self._pool = _pools.take(self._url)
        try:
            with translated(self.place):
                self._begin(create=create)
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """The address, without its password."""
        return str(self._address)

    def _begin(self, *, create: bool) -> None:
        """Check the server and the role, and bring the tables up to date."""
        with self._pool.connect() as db:
            found = db.execute(text(STATE)).one()
            _check(found, self.place, self._scope)
            stored = revision(db)
            done = is_up_to_date(stored, self.place)
            if stored is None and not create:
                raise MemoryNotFound(
                    f"there is no memory in {self.place}: `cmt add FILE` or cmt_sdk.open(...) makes"
                    " one"
                )
            db.rollback()
            if not done and found.standby:
                raise StorageDenied(
                    f"{self.place} takes no changes, and its tables are not up to date: open the"
                    " memory on the primary server once"
                )
            if not done:
                with db.begin():
                    if found.pgvector is None:
                        db.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
                    migrate(db)
            may_write = f"SELECT has_table_privilege('{SCHEMA}.documents', 'INSERT')"
            self.read_only = bool(found.standby) or not db.execute(text(may_write)).scalar()

    def _read(self) -> AbstractContextManager[Connection]:
        return self._transaction("REPEATABLE READ", NO_CONFLICT)

    def _write(self) -> AbstractContextManager[Connection]:
        return self._transaction(
            "READ COMMITTED", "SELECT pg_advisory_xact_lock(:all)", {"all": CHANGING}
        )

    def _write_in(self, scope: str) -> AbstractContextManager[Connection]:
        """Begin a transaction that changes documents of one scope; others change other scopes
        meanwhile.
        """
        lock = """SELECT pg_advisory_xact_lock_shared(:all),
            pg_advisory_xact_lock(hashtextextended(:one, :all))"""
        values = {"all": CHANGING, "one": self._stored_scope(scope)}
        return self._transaction("READ COMMITTED", lock, values)

    def _write_if_free(self) -> AbstractContextManager[Connection]:
        return self._transaction("READ COMMITTED", NO_CONFLICT)

    @contextmanager
    def _transaction(
        self, isolation: str, lock: str, values: dict[str, Any] | None = None
    ) -> Iterator[Connection]:
        if self._closed:
            raise StorageError(f"the memory in {self.place} was closed: open it again")
        reads = isolation == "REPEATABLE READ"
        if not reads:
            self._refuse_read_only()
        with translated(self.place), self._pool.connect() as borrowed:
            db = borrowed.execution_options(isolation_level=isolation, postgresql_readonly=reads)
            with db.begin():
                db.execute(text(BEGIN), {"scope": f"/{self._scope}/" if self._scope else "/"})
                if lock != NO_CONFLICT:
                    db.execute(text(lock), values)
                yield db

    def _refuse_read_only(self) -> None:
        if self.read_only:
            raise StorageDenied(
                f"{self.place} is read-only, as its server or this role is: change it on the"
                " primary server, with a role that may"
            )

    def identity(self) -> str:
        """Return what names the database, whatever address it is opened by; a standby has the name
        of its primary.
        """
        sql = """SELECT system_identifier || ':' || (SELECT oid FROM pg_database
            WHERE datname = current_database()) FROM pg_control_system()"""
        with self._read() as db:
            return f"database {db.execute(text(sql)).scalar_one()}"

    def _conditions(self, filter: Filter, now: float) -> tuple[str, dict[str, Any]]:
        return conditions_in(POSTGRES, filter, now, self._stored_scope)

    def _bump_change_counter(self, db: Connection) -> None:
        """Do nothing: the index is in the database itself."""

    def now(self) -> datetime:
        """Return the time that stamps and expires documents, UTC."""
        return self._clock()

    def _stored_scope(self, scope: str) -> str:
        return f"{self._scope}/{scope}" if self._scope and scope else self._scope or scope

    def _inner_scope(self, stored: str) -> str:
        return stored[len(self._scope) + 1 :] if self._scope else stored

    def _document(self, row: Row[Any]) -> Document:
        found = document_of(row)
        return replace(found, scope=self._inner_scope(found.scope)) if self._scope else found

    def _gone(self, row: Row[Any]) -> Document:
        found = gone_of(row)
        return replace(found, scope=self._inner_scope(found.scope)) if self._scope else found

    def at_work(self) -> bool:
        """Return False: a transaction of another thread does not hinder a forked child."""
        return False

    def leave(self) -> None:
        """Do nothing: a forked child opens connections of its own."""

    def close(self) -> None:
        """Give the connections back. A second call does nothing; others then raise StorageError."""
        was_closed, self._closed = self._closed, True
        if not was_closed:
            _pools.give_back(self._url)


# for this transaction alone
BEGIN = f"""SELECT set_config('cmt.scope', :scope, true),
    set_config('lock_timeout', '{WAIT_MS}', true),
    set_config('search_path', '{SCHEMA}, ' || current_setting('search_path'), true)"""
STATE = """SELECT current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS standby,
    (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector,
    (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS unbound,
    current_user AS role"""


def _check(found: Row[Any], place: str, scope: str) -> None:
    """Raise StorageError, with the remedy, for a server or role that a memory cannot use."""
    if found.encoding != "UTF8":
        raise StorageError(
            f"{place} has the encoding {found.encoding}: create the database with ENCODING 'UTF8'"
        )
    if found.pgvector is not None and _version(found.pgvector) < PGVECTOR:
        raise StorageError(
            f"{place} has pgvector {found.pgvector}, {'.'.join(map(str, PGVECTOR))} or later is"
            " needed: install it, and run ALTER EXTENSION vector UPDATE"
        )
    if scope and found.unbound:
        raise StorageDenied(
            f"the role {found.role} of {place} bypasses row-level security, so that no scope holds"
            " it: connect as a role without SUPERUSER and BYPASSRLS"
        )


def _version(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split(".") if part.isdecimal())
