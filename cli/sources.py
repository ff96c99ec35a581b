"""Sources of documents as files on this machine: path comparison and the state of the file.

Opens no memory.
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

# Metadata field: the version whose text `cmt update` gave to a document that came from a file.
EDITED_VERSION = "edited_version"
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")
# Names that operating systems put into every folder or drive; a folder with only these is empty.
SYSTEM_NAMES = frozenset(
    {"desktop.ini", "thumbs.db", "lost+found", "system volume information", "$recycle.bin"}
)
CLOUD_NAMES = (".{}.icloud", "{}.nextcloud", "{}.owncloud", "{}.cloud")
CLOUD_FOLDERS = ("{}.cloudf",)


class FileState(Enum):
    """Whether the file of a document exists, and why not."""

    HERE = "here"
    GONE = "gone"  # its folder exists, the file does not
    NO_FOLDER = "no folder"  # its folder does not exist either
    FOREIGN = "foreign"  # a path of another operating system
    CLOUD = "cloud"  # its contents are in a cloud, not on this disk
    CLOSED = "closed"  # the system does not report whether it exists

    @property
    def missing(self) -> bool:
        """Return whether there is no such file: deleted, moved, or never on this machine."""
        return self in (FileState.GONE, FileState.NO_FOLDER, FileState.FOREIGN)


def is_file(source: str | None) -> bool:
    """Return whether a source is an absolute path of any operating system.

    Names, web addresses and ids are not.
    """
    return source is not None and (source.startswith("/") or WINDOWS.match(source) is not None)


def file_state(source: str) -> FileState:
    """Return the state of the file that a source names."""
    if not _is_native(source):
        return FileState.FOREIGN
    try:
        found = Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        return _missing(Path(source))
    except (OSError, ValueError):
        return FileState.CLOSED
    if stat.S_ISDIR(found.st_mode):  # a folder has replaced the file
        return FileState.GONE
    return FileState.CLOUD if cmt_sdk.is_placeholder(source) else FileState.HERE


def _is_native(source: str) -> bool:
    return (WINDOWS.match(source) is not None) == (os.name == "nt")


def _missing(path: Path) -> FileState:
    """Return the state of a path that does not exist.

    The target of a broken link may be on a drive that is unmounted.
    """
    if any(os.path.lexists(path.with_name(name.format(path.name))) for name in CLOUD_NAMES):
        return FileState.CLOUD
    if any(
        os.path.lexists(folder.with_name(name.format(folder.name)))
        for folder in path.parents
        if folder.name
        for name in CLOUD_FOLDERS
    ):
        return FileState.CLOUD
    if os.path.islink(path):  # noqa: PTH114 - Path's raises in a closed folder
        target = Path(os.path.realpath(path))
        return FileState.GONE if not has_no_files(target.parent) else FileState.CLOSED
    return FileState.GONE if os.path.isdir(path.parent) else FileState.NO_FOLDER  # noqa: PTH112 - for that reason


def has_no_files(folder: Path) -> bool:
    """Return whether a folder and its subfolders hold no file, as if a drive were not mounted.

    True for a folder that does not exist. Hidden and system files do not count.
    """
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _counts(name)]
        if any(map(_counts, files)):
            return False
    return True


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in SYSTEM_NAMES


def parent_folders(source: str, root: Path) -> Iterator[Path]:
    """Yield the folders above a file, the root first; nothing for a file outside the root."""
    path = Path(source)
    if path.is_relative_to(root):
        yield from reversed([folder for folder in path.parents if folder.is_relative_to(root)])


def text_hash_name(text: str) -> str:
    """Return the name by which a text is kept out: its hash, which no source looks like."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def is_inside(source: str | Path, roots: Sequence[Path]) -> bool:
    """Return whether a file is in one of the folders or their subfolders."""
    return any(Path(source).is_relative_to(root) for root in roots)


def normalized_path(source: str) -> str:
    """Return one form for all spellings that a system may treat as the same path.

    The form is Unicode NFC, in lower case, with slashes.
    """
    return normalize("NFC", source.replace("\\", "/")).casefold()


def parts_of(source: str) -> tuple[str, ...]:
    """Return the parts of a path of any operating system, in the form of `normalized_path`."""
    return PurePosixPath(normalized_path(source)).parts


def common_suffix_length(one: str, other: str) -> int:
    """Return how many parts two paths have in common at their ends."""
    count = 0
    for left, right in zip(reversed(parts_of(one)), reversed(parts_of(other)), strict=False):
        if left != right:
            break
        count += 1
    return count


def expand_path(given: str) -> str:
    """Return what a user gives for a file as a path: file:// URLs and ~ are resolved."""
    if given.lower().startswith("file://"):
        given = unquote(urlsplit(given).path)
    return os.path.expanduser(given)  # noqa: PTH111 - `~name` of an unknown user stays; pathlib raises
