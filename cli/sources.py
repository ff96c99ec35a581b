"""The source of a document as a file of this machine: its name, and whether the file is still
there. Knows no memory.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path, PurePosixPath
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

import cmt_sdk

# metadata: the version whose text `cmt update` gave a document that came from a file
EDITED = "edited_version"
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")
# What systems put into every folder or drive: a folder with nothing else is an empty one.
LITTER = frozenset(
    {"desktop.ini", "thumbs.db", "lost+found", "system volume information", "$recycle.bin"}
)
CLOUD_NAMES = (".{}.icloud", "{}.nextcloud", "{}.owncloud", "{}.cloud")
CLOUD_FOLDERS = ("{}.cloudf",)


class Place(Enum):
    """Where the file of a document is."""

    HERE = "here"
    GONE = "gone"  # its folder is there, and the file is not in it
    NO_FOLDER = "no folder"  # its folder is not there either
    FOREIGN = "foreign"  # the path is one of another system
    CLOUD = "cloud"  # its contents are in a cloud, not on this disk
    CLOSED = "closed"  # the system does not say whether it is there

    @property
    def missing(self) -> bool:
        """True where there is no such file: it was deleted, moved, or never was on this machine."""
        return self in (Place.GONE, Place.NO_FOLDER, Place.FOREIGN)


def is_file(source: str | None) -> bool:
    """Whether a source is the whole path of a file, of whatever system; a name, a web address or an
    id is none.
    """
    return source is not None and (source.startswith("/") or WINDOWS.match(source) is not None)


def place_of(source: str) -> Place:
    """Where the file is that a source names."""
    if not _is_native(source):
        return Place.FOREIGN
    try:
        found = Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        return _missing(Path(source))
    except (OSError, ValueError):
        return Place.CLOSED
    if stat.S_ISDIR(found.st_mode):  # a folder in the place of a file
        return Place.GONE
    return Place.CLOUD if cmt_sdk.is_placeholder(source) else Place.HERE


def _is_native(source: str) -> bool:
    return (WINDOWS.match(source) is not None) == (os.name == "nt")


def _missing(path: Path) -> Place:
    """A file that is not there, or a link that leads nowhere: its target may be on a drive that is
    away.
    """
    if any(_is_at(path.with_name(name.format(path.name))) for name in CLOUD_NAMES):
        return Place.CLOUD
    if any(
        _is_at(folder.with_name(name.format(folder.name)))
        for folder in path.parents
        if folder.name
        for name in CLOUD_FOLDERS
    ):
        return Place.CLOUD
    if os.path.islink(path):  # noqa: PTH114 - Path's raises in a closed folder
        target = Path(os.path.realpath(path))
        return Place.GONE if not is_blind(target.parent) else Place.CLOSED
    return Place.GONE if os.path.isdir(path.parent) else Place.NO_FOLDER  # noqa: PTH112 - for that reason


def _is_at(path: Path) -> bool:
    return os.path.lexists(path)


def is_blind(folder: Path) -> bool:
    """Whether there is no file to be seen beneath a folder, as where a drive is not mounted; True
    for one that is not there.
    """
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _counts(name)]
        if any(map(_counts, files)):
            return False
    return True


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in LITTER


def folders_of(source: str, root: Path) -> Iterator[Path]:
    """The folders above a file, the root first; none for a file that is not beneath the root."""
    path = Path(source)
    if path.is_relative_to(root):
        yield from reversed([folder for folder in path.parents if folder.is_relative_to(root)])


def text_name(text: str) -> str:
    """What stands for a text among the names that are kept out: its hash, as no source is
    written.
    """
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def is_beneath(source: str | Path, roots: Sequence[Path]) -> bool:
    """Whether a file lies in one of the folders."""
    return any(Path(source).is_relative_to(root) for root in roots)


def key_of(source: str) -> str:
    """One spelling for all that a system may take for one name: composed, in small letters, with
    slashes.
    """
    return normalize("NFC", source.replace("\\", "/")).casefold()


def parts_of(source: str) -> tuple[str, ...]:
    """The parts of a path of any system, in the spelling of `key_of`."""
    return PurePosixPath(key_of(source)).parts


def tail(one: str, other: str) -> int:
    """How many parts two paths have in common at their ends."""
    count = 0
    for left, right in zip(reversed(parts_of(one)), reversed(parts_of(other)), strict=False):
        if left != right:
            break
        count += 1
    return count


def path_given(given: str) -> str:
    """What a user gives for a file: file:// addresses and ~ resolved."""
    if given.lower().startswith("file://"):
        given = unquote(urlsplit(given).path)
    return os.path.expanduser(given)  # noqa: PTH111 - a ~ of nobody's home stays as it is, where pathlib raises
