"""Files that appear whole or not at all, and what the operating system refuses, in this package's
words.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cmt_sdk.disk import flush_folder
from cmt_sdk.errors import NotFound, StorageDamaged, StorageDenied, StorageError, StorageFull


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` once it is whole and on the disk; nothing is left of it
    otherwise.
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
    """Translate what the operating system refuses about `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path}: there is no such file or folder") from error
    except PermissionError as error:
        raise StorageDenied(f"{path}: the operating system denies access") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"{path}: the disk is full; free some space and try again") from error
        # a damaged table of contents sends the reader to before the file's beginning
        if error.errno == errno.EINVAL:
            raise StorageDamaged(
                f"{path} is damaged: export it again, or use another copy"
            ) from error
        raise StorageError(f"{path}: {error.strerror or error}") from error
