"""Which documents stay though their files are gone: a folder may be away, not deleted. Knows files
and entries, no memory.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from cmt_cli.follow import Entry
from cmt_cli.sources import folders_of, is_blind

MANY = 10  # from here on it is asked where more than half of a folder's files are gone at once


def held(gone: Sequence[Entry], of: Sequence[Entry], root: Path) -> Mapping[Path, Sequence[Entry]]:
    """The documents that are not to be taken out unasked, by the highest folder that is the reason.

    That is a folder that is not there, one without any file in it whose documents went at once, and
    one of which most went. `of` are all documents that came from files beneath the root, those
    included whose files were found elsewhere: a file of the same text in another folder says
    nothing of the rest.
    """
    lost, total = _counts(gone, root), _counts(of, root)
    found: defaultdict[Path, list[Entry]] = defaultdict(list)
    reasons: dict[Path, bool] = {}
    for entry in gone:
        for folder in folders_of(entry.source, root):
            if folder not in reasons:
                reasons[folder] = _is_reason(
                    folder, lost[folder], total[folder], entry, folder == root
                )
            if reasons[folder]:
                found[folder].append(entry)
                break
    return found


def _counts(entries: Sequence[Entry], root: Path) -> Counter[Path]:
    return Counter(folder for entry in entries for folder in folders_of(entry.source, root))


def _is_reason(folder: Path, lost: int, total: int, one: Entry, is_root: bool) -> bool:
    if lost >= MANY and 2 * lost > total:
        return True
    if not is_blind(folder):
        return False
    return lost > 1 or is_root or not os.path.isdir(folder) or _is_away(folder, one)  # noqa: PTH112 - Path's raises in a closed folder


def _is_away(folder: Path, one: Entry) -> bool:
    """Whether an empty folder is where a drive is mounted: nothing was deleted in it since the
    document was stored.
    """
    try:
        return os.path.ismount(folder) or (
            one.updated is not None and folder.stat().st_mtime < one.updated.timestamp()
        )
    except OSError:
        return True
