"""Files that appear complete or not at all, and the operating system's errors, translated."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cmt_sdk.errors import NotFound, StorageDamaged, StorageDenied, StorageError, StorageFull
from cmt_sdk.system.disk import flush_folder


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the name `path` once it is complete and on the disk; otherwise it is
    removed.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        flush_folder(path.parent)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate the operating system's errors about `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path}: there is no such file or folder") from error
    except PermissionError as error:
        raise StorageDenied(f"{path}: the operating system denies access") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"{path}: the disk is full; free some space and try again") from error
        # a damaged table of contents makes the reader seek to before the file's beginning
        if error.errno == errno.EINVAL:
            raise StorageDamaged(
                f"{path} is damaged: export it again, or use another copy"
            ) from error
        raise StorageError(f"{path}: {error.strerror or error}") from error
