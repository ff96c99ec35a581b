"""Permissions: only the owner can read a memory's files, and none of them is a link. Knows no
database.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from cmt_sdk.errors import StorageDenied

OTHERS = 0o077  # the rights of all but the owner
KEPT = ("memory.db*", "memory.lock", "index-*.hnsw")


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents with mode 0700, whatever the umask."""
    lacking = [folder]
    while not lacking[-1].parent.exists():
        lacking.append(lacking[-1].parent)
    for one in reversed(lacking):
        one.mkdir(mode=0o700, exist_ok=True)


def keep_private(folder: Path, database: str) -> None:
    """Remove all rights of others on the files of a memory.

    Raises:
        StorageDenied: a file is a link, or the database is empty and another user's: that user
            could read everything that is stored in it.
    """
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if any(fnmatch(file.name, pattern) for pattern in KEPT):
            with suppress(FileNotFoundError):  # another process has just removed it
                _keep(file, file.lstat(), is_database=file.name == database)


def _keep(file: Path, found: os.stat_result, *, is_database: bool) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise StorageDenied(
            f"{file} is a link, and what is remembered would go where it leads: delete it, or open"
            " that folder"
        )
    if not hasattr(os, "geteuid"):
        return
    if found.st_uid != os.geteuid():
        if is_database and not found.st_size:
            raise StorageDenied(
                f"{file} is empty and belongs to another user: delete it, or choose a folder of"
                " your own"
            )
    elif found.st_mode & OTHERS and stat.S_ISREG(found.st_mode):
        with suppress(OSError):  # on a medium that takes no changes
            file.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
