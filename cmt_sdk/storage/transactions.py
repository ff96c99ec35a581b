"""Transactions: what the tables' code needs of a database, whichever it is. Knows no table.

`connection.Database` implements it for SQLite, `postgres.connection.Server` for Postgres.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from cmt_sdk.storage import rows
from cmt_sdk.types import Document, Filter


class Transactions(ABC):
    """A database with its transactions and its clock. Safe to use from several threads.

    Attributes:
        read_only: True where nothing can be written.
    """

    read_only: bool

    @property
    def encrypted(self) -> bool:
        """True where the package encrypts what is stored."""
        return False

    @property
    @abstractmethod
    def place(self) -> str:
        """The folder or the address of the database, for messages; it holds no password."""

    @abstractmethod
    def _read(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that sees one state of the database and changes nothing."""

    @abstractmethod
    def _write(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that is durable once the block has ended, or is rolled back. No
        other one changes documents meanwhile.
        """

    def _write_in(self, scope: str) -> AbstractContextManager[Connection]:  # noqa: ARG002
        """Begin as `_write` does, where documents of this scope alone are written."""
        return self._write()

    def _write_if_free(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that writes no document; raise StorageLocked rather than wait for
        another process.
        """
        return self._write()

    @abstractmethod
    def _refuse_read_only(self) -> None:
        """Raise StorageDenied where nothing can be written."""

    @abstractmethod
    def _conditions(self, filter: Filter, now: float) -> tuple[str, dict[str, Any]]:
        """Return a filter's WHERE clause for documents `d`, and its bound values. Raises
        InvalidFilter.
        """

    @abstractmethod
    def _bump_change_counter(self, db: Connection) -> None:
        """Record that the set of vectors has lost some, where an index outside needs to know."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the time that stamps and expires documents, UTC."""

    def _stored_scope(self, scope: str) -> str:
        """Return a scope as the tables have it."""
        return scope

    def _document(self, row: Row[Any]) -> Document:
        """Return the document of a row `d.*, ready`. Raises StorageDamaged where it is none."""
        return rows.document_of(row)

    def _gone(self, row: Row[Any]) -> Document:
        """Return the document of a deleted row, even a damaged one."""
        return rows.gone_of(row)
