"""Bucket: the objects of one memory in a place such as S3 or a folder, through obstore. Knows names
and bytes, no table.

An object is named by the SHA-256 of its bytes, so that writing it a second time changes nothing,
and any call can be made again.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cmt_sdk.errors import StorageDenied, StorageError
from cmt_sdk.storage.references import Reference
from cmt_sdk.system.disk import flush
from cmt_sdk.system.extras import unusable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

AT_ONCE = 16  # requests under way
TIMEOUT = "30s"  # of one request
# obstore's own, of throttling, server errors and broken connections
RETRIES: Any = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}
# seconds before a request is made again that obstore does not repeat: a write without an answer
AGAIN = (0.5, 2.0)
MARKER = "memory"  # an object that is there as long as the place is
NAME = re.compile("[0-9a-f]{64}")
T = TypeVar("T")
log = logging.getLogger(__name__)
_users: set[int] = set()  # the processes that have used obstore; a fork has its parent in it


def is_missing(location: str) -> bool:
    """Whether an address is that of a folder that does not exist, as of a disk not mounted."""
    folder = folder_of(location)
    return folder is not None and not folder.exists()


def open_store(location: str) -> ObjectStore:
    """Return obstore's store for an address, with credentials from the environment. A folder is
    made where there is none.

    Raises:
        MissingExtra: the extra `objects` is not installed.
        StorageDenied: the address and the environment do not name a place.
    """
    try:
        import obstore.store
        from obstore.exceptions import BaseError
    except ImportError as error:
        raise unusable("a memory with objects", "objects", error) from error

    with _translated(location):
        if (folder := folder_of(location)) is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return obstore.store.LocalStore(folder)
        http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1")
        try:
            options: Any = {"timeout": TIMEOUT, "connect_timeout": "10s", "allow_http": http}
            return obstore.store.from_url(location, client_options=options, retry_config=RETRIES)
        except (BaseError, ValueError) as error:
            raise StorageDenied(
                f"{location} cannot be opened ({_first_line(error)}): set the environment variables"
                " of its provider (docs/how-to/object-storage.md)"
            ) from error


def folder_of(location: str) -> Path | None:
    """Return the folder of a file: address; None for any other."""
    parts = urlsplit(location)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


class Bucket:
    """The objects of one memory.

    Args:
        location: the address of the place, such as s3://bucket/prefix.
        folder: what all names of this memory begin with.
    """

    def __init__(self, location: str, folder: str) -> None:
        self.location = location
        self._folder = folder
        if folder and is_missing(location):  # not made: a disk may be mounted there later
            raise self._lost()
        self._store = open_store(location)
        self._disk = folder_of(location)

    def address(self, name: str) -> str:
        """Return the address of an object, for messages."""
        return f"{self.location.rstrip('/')}/{self._folder}/{name}"

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects by name; one that is there with the same bytes stays.

        Raises:
            StorageError: the place did not take one of them; others may be there.
        """
        self._each(self._put_one, objects.items())

    def get(self, references: Iterable[Reference]) -> dict[str, bytes | str]:
        """Return objects by name: the bytes, or why there are none: missing or damaged.

        Raises:
            StorageError: the place gives no answer, or holds nothing of this memory any more.
        """
        wanted = list(references)
        found = dict(zip((r.name for r in wanted), self._each(self._get_one, wanted), strict=True))
        if any(body == MISSING for body in found.values()):
            self.require()
        return found

    def delete(self, names: Iterable[str]) -> dict[str, bool]:
        """Delete objects; return for each whether it is proven that nothing of it is left."""
        wanted = list(names)
        return dict(zip(wanted, self._each(self._delete_one, wanted), strict=True))

    def sizes(self) -> Iterator[dict[str, tuple[int, datetime]]]:
        """Yield the bytes of all objects and when they were written, by name, in parts."""
        import obstore

        with self._asking():
            for part in obstore.list(self._store, prefix=self._folder):
                named = [(meta["path"].rpartition("/")[2], meta) for meta in part]
                yield {
                    name: (meta["size"], meta["last_modified"])
                    for name, meta in named
                    if NAME.fullmatch(name)
                }

    # -- the place

    def mark(self) -> None:
        """Write the marker, which says that the place is there."""
        self._write(MARKER, b"compressed passages of cmt-sdk\n", overwrite=True)

    def is_there(self) -> bool:
        """Return whether the place has the marker."""
        return self._head(MARKER) is not None

    def require(self) -> None:
        """Raise StorageError where the place holds nothing of this memory: a disk that is not
        mounted, another bucket.
        """
        if not self.is_there():
            raise self._lost()

    def _lost(self) -> StorageError:
        return StorageError(
            f"{self.location} holds no objects of this memory ({self._folder}): mount the disk, or"
            " bring the bucket back; nothing was changed"
        )

    # -- single objects

    def _put_one(self, item: tuple[str, bytes]) -> None:
        name, body = item
        if self._write(name, body):
            return
        # there already: by another process, for an equal passage, or cut short by a crash
        if isinstance(self._get_one(Reference(name, len(body))), str):
            self._write(name, body, overwrite=True)

    def _write(self, name: str, body: bytes, *, overwrite: bool = False) -> bool:
        """Write an object; return False where one of this name was there."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        path = self._path(name)

        def write() -> bool:
            try:
                obstore.put(self._store, path, body, mode="overwrite" if overwrite else "create")
            except AlreadyExistsError:
                return False
            return True

        try:
            is_new = self._again(write)
        except FileNotFoundError as error:
            raise StorageDenied(
                f"there is no {self.location} ({_first_line(error)}): make the bucket first"
            ) from error
        if self._disk is not None:
            with self._asking():
                flush(self._disk / path)  # before a row names it
        return is_new

    def _get_one(self, reference: Reference) -> bytes | str:
        import obstore

        path = self._path(reference.name)
        try:
            body = self._again(lambda: bytes(obstore.get(self._store, path).bytes()))
        except FileNotFoundError:
            return MISSING
        return reference.fault(body) or body

    def _delete_one(self, name: str) -> bool:
        import obstore

        before = self._head(name)
        try:
            self._again(lambda: obstore.delete(self._store, self._path(name)))
        except FileNotFoundError:
            return before is None
        # a place that keeps versions names them; S3 says "null" where it did so no longer
        keeps_versions = before is not None and before["version"] is not None
        return self._head(name) is None and not keeps_versions

    def _head(self, name: str) -> Any:
        import obstore

        try:
            return self._again(lambda: obstore.head(self._store, self._path(name)))
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    # -- requests

    def _each(self, work: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
        """Run one request for each item, several at once; return the results in order."""
        wanted = list(items)
        if len(wanted) < 2:
            return [work(item) for item in wanted]
        with ThreadPoolExecutor(min(AT_ONCE, len(wanted)), "cmt-objects") as pool:
            return list(pool.map(work, wanted))

    def _again(self, request: Callable[[], T]) -> T:
        """Make a request, and once more where it got no answer. Raises FileNotFoundError."""
        from obstore.exceptions import GenericError

        for pause in AGAIN:
            try:
                with self._asking(GenericError):
                    return request()
            except GenericError as error:
                log.info("%s: %s; trying again", self.location, _first_line(error))
                time.sleep(pause)
        with self._asking():
            return request()

    @contextmanager
    def _asking(self, *passed: type[Exception]) -> Iterator[None]:
        """Translate the errors of a request, except those of `passed`."""
        _refuse_fork()
        with _translated(self.location, (FileNotFoundError, *passed)):
            yield


MISSING = "is missing"


def _refuse_fork() -> None:
    """Raise StorageError in a child of a process that has used obstore: its threads are not here,
    and the child would wait for them for good.
    """
    _users.add(os.getpid())
    if len(_users) > 1:
        raise StorageError(
            "a process that has used objects was forked, and its child cannot: start the child with"
            " multiprocessing's method spawn or forkserver, and open the memory there"
        )


@contextmanager
def _translated(location: str, passed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Translate errors of obstore and the system, except those of `passed`."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except passed:
        raise
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        raise StorageDenied(
            f"{location} refuses ({_first_line(error)}): check the credentials in the environment,"
            " and that they may read, write, list and delete there"
        ) from error
    except (BaseError, OSError) as error:
        raise StorageError(
            f"{location} did not do what was asked ({_first_line(error)}): check the address, the"
            " network and the room there, and try again; what was stored is safe"
        ) from error


def _first_line(error: BaseException) -> str:
    """Return what an error says, without details and without what may be a signature."""
    line = str(error).partition("\n")[0]
    return re.sub(r"\?\S*", "?…", line)[:300]
