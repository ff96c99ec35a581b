"""Errors of Postgres, psycopg and the pool, translated into this package's errors.

Their details may quote rows, and so documents: only the first line of a message is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from cmt_sdk.errors import (
    AlreadyExists,
    CMTError,
    StorageDamaged,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageLocked,
)

# postgresql.org/docs/current/errcodes-appendix.html; a class is the first two characters
FULL = ("53100", "53200", "53400")  # disk, memory, a configured limit
DENIED = ("42501", "25006", "28")  # a privilege, a standby, the login
LOCKED = ("55P03", "40", "57014", "53300", "57P03")  # a lock, a conflict, time, connections, start
DAMAGED = ("XX", "42P01", "42703", "58")
TAKEN = "23505"


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Translate errors of the database at an address; `place` names it without its password."""
    try:
        yield
    except DBAPIError as error:
        raise _as_ours(error, place) from error
    except NoConnectionFree as error:
        raise StorageLocked(
            f"{place}: every connection of this process was in use for too long: try again"
        ) from error


def _as_ours(error: DBAPIError, place: str) -> CMTError:
    state = getattr(error.orig, "sqlstate", None) or ""
    diagnosed = getattr(error.orig, "diag", None)
    message = getattr(diagnosed, "message_primary", None) or f"{error.orig}".partition("\n")[0]
    if state.startswith(FULL):
        return StorageFull(
            f"the server of {place} has no room ({message}): free some and try again; what was"
            " stored is safe"
        )
    if state.startswith(DENIED):
        return StorageDenied(f"{place} refuses ({message}): use a role that may do this")
    if state.startswith(LOCKED):
        return StorageLocked(f"{place} is busy ({message}): try again")
    if state == TAKEN:
        return AlreadyExists(
            f"{place}: an id is taken, by a document of another scope or by one that is being"
            " added: choose another id"
        )
    if state.startswith(DAMAGED):
        return StorageDamaged(f"{place} is damaged ({message}): restore a backup")
    if not state or error.connection_invalidated:
        return StorageError(
            f"there is no connection to {place} ({message}): check the address and the server, and"
            " try again; a change that was under way is stored as a whole or not at all"
        )
    return StorageError(f"{place}: {message}")
