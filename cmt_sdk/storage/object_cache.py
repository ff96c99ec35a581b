"""ObjectCache: objects on this machine's disk, as many as fit a number of bytes. Knows no place and
no database.

A file is named by the SHA-256 of its bytes; the one that was used longest ago goes first. Several
processes share a folder. Nothing depends on it: a disk that is full or closed means no cache.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cmt_sdk.storage.references import Reference

KEPT = 0.9  # of the limit that stays when files have to go, so that not every write looks
OFTEN = 16  # looks at the folder for each limit's worth of bytes that is written
log = logging.getLogger(__name__)


class ObjectCache:
    """A folder of objects.

    Args:
        folder: is made when the first object comes.
        limit: bytes of all files; 0 keeps nothing.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._room = 0  # bytes that were free when the folder was last looked at
        self._unseen = 0  # bytes written since then

    def get(self, reference: Reference) -> bytes | None:
        """Return an object, which then counts as used now; None where it is not here, or damaged.

        A damaged file is removed.
        """
        if not self._limit:
            return None
        file = self._folder / reference.name
        try:
            body = file.read_bytes()
            if reference.fault(body):
                self.remove([reference.name])
                return None
            os.utime(file)
        except OSError:
            return None
        return body

    def put(self, reference: Reference, body: bytes) -> None:
        """Keep an object, and drop those used longest ago until all fit the limit."""
        if len(body) > self._limit:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(body))
            # of mode 0600
            handle, made = tempfile.mkstemp(dir=self._folder, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(body)
                Path(made).replace(self._folder / reference.name)
            except BaseException:
                with suppress(OSError):
                    Path(made).unlink()
                raise
        except OSError as error:
            log.info("%s keeps no object: %s", self._folder, error)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects."""
        for name in names:
            with suppress(OSError):
                (self._folder / name).unlink()

    def _make_room(self, size: int) -> None:
        """Remove files until `size` bytes more fit."""
        self._unseen += size
        # before the limit can be passed, and often enough to notice what other processes write
        if self._unseen <= min(self._room, self._limit // OFTEN):
            return
        with os.scandir(self._folder) as found:
            stats = [(entry.stat(), entry.path) for entry in found if entry.is_file()]
        files = sorted((s.st_mtime_ns, s.st_size, path) for s, path in stats)
        total = sum(length for _, length, _ in files) + size
        if total > self._limit:
            for _, length, path in files:
                if total <= max(self._limit * KEPT, size):
                    break
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - scandir gives texts
                total -= length
        self._room = self._limit - total
        self._unseen = 0
