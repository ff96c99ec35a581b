"""Connections to a database file: SQLite's, or SQLCipher's where there is a key. The only module
that opens one.

Names the errors to catch; `disk_errors` translates them. `encryption` finds keys. Knows no table.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cmt_sdk.config.settings import MEMORY_FILES
from cmt_sdk.errors import StorageEncrypted

try:
    from sqlcipher3 import dbapi2 as sqlcipher
except ImportError as error:  # the extra `encryption` is not installed, or cannot be used
    sqlcipher, failure = None, error
else:
    failure = ImportError("no SQLCipher")

Connection = sqlite3.Connection  # SQLCipher's has the same methods
Access: TypeAlias = Literal["make", "existing", "read"]
Errors = tuple[type[sqlite3.Error], ...]
Error: Errors = (sqlite3.Error, *((sqlcipher.Error,) if sqlcipher else ()))
DatabaseError: Errors = (sqlite3.DatabaseError, *((sqlcipher.DatabaseError,) if sqlcipher else ()))
OperationalError: Errors = (
    sqlite3.OperationalError,
    *((sqlcipher.OperationalError,) if sqlcipher else ()),
)

FILE = MEMORY_FILES[0]
WAIT_SECONDS = 30
VARIABLE = "CMT_KEY"


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


@dataclass(frozen=True)
class Key:
    """The key of one encrypted file.

    Attributes:
        secret: 32 bytes, in hexadecimal.
        salt: the file's salt of 16 bytes, in hexadecimal.
        origin: where the key comes from, for messages.
    """

    secret: str = field(repr=False)
    salt: str
    origin: str


def available() -> bool:
    """Return whether the extra `encryption` is installed."""
    return sqlcipher is not None


def module(key: Key | None) -> Any:
    """Return the DB-API module whose connections `connect` makes."""
    return sqlcipher if key else sqlite3


def connect(
    file: Path, key: Key | None, *, timeout: float = 5.0, access: Access = "make", **options: Any
) -> Connection:
    """Connect to a database file.

    Args:
        file: The database.
        key: Its key, None where it is not encrypted.
        timeout: Seconds to wait for a lock.
        access: "make" begins a new file where there is none, "existing" does not, "read" needs no
            permission to write.
        options: Those of sqlite3.connect.

    Raises:
        StorageEncrypted: The key does not fit.
    """
    alone = False
    if access == "read":
        name, alone = _to_read(file)
    else:
        name = str(file) if access == "make" else f"{file.absolute().as_uri()}?mode=rw"
    connection: Connection = module(key).connect(
        name, timeout=timeout, uri=access != "make", **options
    )
    if alone:
        # before a page is read: SQLite then needs no shared memory
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    if key is None:
        return connection
    try:
        _unlock(connection, key)
    except BaseException as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
            raise StorageEncrypted(_refused(file, key)) from error
        raise
    return connection


def _to_read(file: Path) -> tuple[str, bool]:
    """Return the address that opens a file for reading, and whether its log has to be read without
    shared memory (sqlite.org/wal.html, "Read-Only Databases").

    With a log and its index SQLite works as usual. A log alone, as on a drive that was pulled out,
    is indexed in this process, without locks. Without a log the file is taken as immutable.
    """
    log, index = (file.with_name(file.name + suffix) for suffix in ("-wal", "-shm"))
    address = f"{file.absolute().as_uri()}?mode=ro"
    if not log.exists() or not log.stat().st_size:
        return f"{address}&immutable=1", False
    if index.exists():
        return address, False
    return f"{address}&vfs={'win32' if os.name == 'nt' else 'unix'}-none", True


def _unlock(connection: Connection, key: Key) -> None:
    # plain SQLite would take a key, and encrypt nothing
    if connection.execute("PRAGMA cipher_version").fetchone() is None:
        raise StorageEncrypted(
            "SQLCipher is here, but plain SQLite answers in its place: use another build of Python"
        )
    for pragma in (
        "cipher_log_level = NONE",  # it would write to stderr
        f"key = \"x'{key.secret}{key.salt}'\"",
        "cipher_compatibility = 4",
        "temp_store = MEMORY",  # temporary files would not be encrypted
        "user_version",  # reads the first page: here, and nowhere later, a wrong key is noticed
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _refused(file: Path, key: Key) -> str:
    damaged = "the beginning of the file is damaged: restore a backup"
    if key.origin != VARIABLE:
        return f"{file} does not open with the key in {key.origin}: {damaged}"
    return (
        f"{file} is encrypted, and the key in {VARIABLE} does not open it: set {VARIABLE} to the"
        " key it was made with, or unset it where the system keyring keeps that; if it is the"
        f" right one, {damaged}"
    )
