"""Where a memory is: opens the store of a folder or a database, and its index. What is heavy is
imported when it is first needed.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.config.settings import MEMORY_FILES
from cmt_sdk.errors import InvalidSetting, MemoryNotFound
from cmt_sdk.ports import VectorIndex

if TYPE_CHECKING:
    from cmt_sdk.storage.postgres.store import PostgresStore
    from cmt_sdk.storage.store import SQLiteStore

log = logging.getLogger(__name__)

OUR_FILES = (*MEMORY_FILES, "index-", "chat-history")


def in_folder(
    path: Path, scope: str, need_model: Callable[[], None], *, create: bool, encrypted: bool
) -> SQLiteStore:
    """Open the store in a folder; make a new one only after `need_model`."""
    from cmt_sdk.storage.driver import FILE
    from cmt_sdk.storage.store import SQLiteStore

    if scope:
        raise InvalidSetting(
            f"scope={scope!r:.60}: a folder is opened as a whole; give the scope to add, ask and"
            " search"
        )
    is_new = create and not os.path.exists(path / FILE)  # noqa: PTH110 - Path.exists raises in a closed folder
    if is_new:
        need_model()
        _warn_of_other_files(path)
    return SQLiteStore(path, create=create, encrypt=encrypted)


def in_database(
    address: DatabaseAddress,
    scope: str,
    need_model: Callable[[], None],
    *,
    create: bool,
    encrypted: bool,
) -> PostgresStore:
    """Open the store in a database; make a new one only after `need_model`."""
    from cmt_sdk.storage.postgres.store import PostgresStore

    if encrypted:
        raise InvalidSetting(
            "encrypted=True is for folders: a database is encrypted by the disk of its server, and"
            " on the way to it by sslmode=verify-full in the address"
        )
    try:
        return PostgresStore(address, scope=scope, create=False)
    except MemoryNotFound:
        if not create:
            raise
    need_model()
    return PostgresStore(address, scope=scope)


def make_store(
    path: Path | DatabaseAddress, settings: Mapping[str, Any], *, is_new: bool, encrypted: bool
) -> None:
    """Make the store of a copy in a folder or a database. A new one gets the settings of the
    source, and so does one without settings, which an interrupted copy left. No model is needed.
    """

    def need_nothing() -> None:
        """Do nothing."""

    store: SQLiteStore | PostgresStore
    if isinstance(path, DatabaseAddress):
        store = in_database(path, "", need_nothing, create=True, encrypted=encrypted)
    else:
        store = in_folder(path, "", need_nothing, create=True, encrypted=encrypted)
    try:
        if is_new or not store.settings():
            store.set_settings(settings)
    finally:
        store.close()


def exists_in(address: DatabaseAddress) -> bool:
    """Return whether there is a memory in a database. Raises StorageError."""
    from cmt_sdk.storage.postgres.store import PostgresStore

    try:
        PostgresStore(address, create=False).close()
    except MemoryNotFound:
        return False
    return True


def index_of(
    store: SQLiteStore | PostgresStore, path: Path | DatabaseAddress, exact_limit: int
) -> VectorIndex:
    """Return the index of a store's embeddings."""
    if isinstance(path, DatabaseAddress):
        from cmt_sdk.storage.postgres.index import PostgresIndex

        return PostgresIndex(cast("PostgresStore", store), exact_limit)
    from cmt_sdk.storage.index import EmbeddingIndex

    # an index file would hold the embeddings in the clear: an encrypted memory has none, and search
    # is exact
    limit = sys.maxsize if store.encrypted else exact_limit
    return EmbeddingIndex(cast("SQLiteStore", store), path, limit, read_only=store.read_only)


def _warn_of_other_files(path: Path) -> None:
    """Warn of a new memory in a folder with other files: opening it does not read them."""
    try:
        others = sorted(
            file.name for file in path.iterdir() if not file.name.startswith((".", *OUR_FILES))
        )
    except OSError:  # not there yet, or closed, which opening it reports
        return
    if others:
        some = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        log.warning(
            "%s holds other files (%s), which opening it does not read: a new memory is put next to"
            " them. add_many(read_documents([%r])) remembers them (`cmt add`), and"
            " cmt_sdk.memory_path(NAME) is a folder for a memory alone",
            path,
            some,
            str(path),
        )
