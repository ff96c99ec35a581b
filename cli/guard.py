"""Decide which documents need confirmation before removal: their folder may only be unmounted.

Works on files and entries; opens no memory.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from cmt_cli.moved_files import Entry
from cmt_cli.sources import has_no_files, parent_folders

MANY_FILES = 10  # losing this many files and more than half of a folder needs confirmation


def needs_confirmation(
    gone: Sequence[Entry], of: Sequence[Entry], root: Path
) -> Mapping[Path, Sequence[Entry]]:
    """Return the documents that need confirmation, by the topmost folder that is the reason.

    A folder is a reason if it does not exist, if it holds no file and all its documents lost their
    files at once, or if most of its files are gone.

    Args:
        gone: Documents whose files are gone.
        of: All documents from files inside the root, also those whose files were found elsewhere:
            a file of the same text in another folder says nothing about the rest.
        root: The folder that is synchronised.
    """
    lost = _counts(gone, root)
    total = _counts(of, root)
    found: defaultdict[Path, list[Entry]] = defaultdict(list)
    reasons: dict[Path, bool] = {}
    for entry in gone:
        for folder in parent_folders(entry.source, root):
            if folder not in reasons:
                reasons[folder] = _is_suspicious(
                    folder, lost[folder], total[folder], entry, folder == root
                )
            if reasons[folder]:
                found[folder].append(entry)
                break
    return found


def _counts(entries: Sequence[Entry], root: Path) -> Counter[Path]:
    return Counter(folder for entry in entries for folder in parent_folders(entry.source, root))


def _is_suspicious(folder: Path, lost: int, total: int, entry: Entry, is_root: bool) -> bool:
    if lost >= MANY_FILES and 2 * lost > total:
        return True
    if not has_no_files(folder):
        return False
    return lost > 1 or is_root or not os.path.isdir(folder) or _is_unmounted(folder, entry)  # noqa: PTH112 - Path's raises in a closed folder


def _is_unmounted(folder: Path, entry: Entry) -> bool:
    """Return whether an empty folder looks like a mount point of a drive that is away.

    That is so if it did not change since the document was stored: nothing was deleted in it.
    """
    try:
        return os.path.ismount(folder) or (
            entry.updated is not None and folder.stat().st_mtime < entry.updated.timestamp()
        )
    except OSError:
        return True
