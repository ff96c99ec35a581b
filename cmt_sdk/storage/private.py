"""Files that are their owner's alone, also where they were there before, and no links in their
place. Knows no database.
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
    """A folder and those above it that are lacking, each its owner's alone whatever the umask."""
    lacking = [folder]
    while not lacking[-1].parent.exists():
        lacking.append(lacking[-1].parent)
    for one in reversed(lacking):
        one.mkdir(mode=0o700, exist_ok=True)


def keep_private(folder: Path, database: str) -> None:
    """Take the files of a memory away from all but their owner.

    Raises StorageDenied for a link in the place of one, and for an empty database that another user
    has put there: that user would read whatever is remembered in it.
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
