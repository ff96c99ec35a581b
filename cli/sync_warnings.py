"""What a synchronisation warns of: texts that are replaced, and documents that stay as they are.

Changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import cmt_sdk
from cmt_cli.moved_files import Entry, KnownFiles
from cmt_cli.output import pluralize, short_id, short_source
from cmt_cli.sources import EDITED_VERSION, FileState, is_inside
from cmt_cli.sync_report import SyncReport, list_sources

KEPT = {
    FileState.CLOUD: "in a cloud, not on this disk",
    FileState.CLOSED: "where they cannot be looked at",
}


def warn_of_replaced_text(
    report: SyncReport, memory: cmt_sdk.Memory, entry: Entry, document: cmt_sdk.Document
) -> None:
    """Warn if the text of the file replaced a text that did not come from the file."""
    *earlier, before, _ = memory.history(entry.id)
    is_file_unchanged = _is_older(document.source or "", before.updated_at) and any(
        version.text == document.text for version in earlier
    )
    if before.metadata.get(EDITED_VERSION) == before.version or is_file_unchanged:
        report.warned(
            f"{short_source(document.source, '')}: the text of the file replaces that of"
            f" version {before.version}, which did not come from it; it stays in the history:"
            f" `cmt show {short_id(entry.id)} --history`"
        )


def warn_of_shared_source(report: SyncReport, entry: Entry, entries: Sequence[Entry]) -> None:
    """Warn about documents with the same source that do not follow the file."""
    others = [other for other in entries if other.source == entry.source and other.id != entry.id]
    if others:
        report.warned(
            f"{short_source(entry.source, '')} is the source of {len(others) + 1} documents:"
            f" {short_id(entry.id)} follows the file,"
            f" {', '.join(short_id(other.id) for other in others)} does not; `cmt rm ID`"
            " removes one"
        )


def warn_of_unreadable(report: SyncReport, entries: Sequence[Entry], known: KnownFiles) -> None:
    """Warn about documents that stay unchanged because their files cannot be read."""
    for where, why in KEPT.items():
        some = [entry for entry in entries if known.places[entry.id] is where]
        if some:
            report.warned(
                f"{pluralize(len(some), 'file')} {why}: {list_sources(some)}; what is"
                " remembered stays"
            )


def warn_of_gone(report: SyncReport, gone: Sequence[Entry], roots: Sequence[Path]) -> None:
    """Warn about documents that stay, though their files are gone."""
    if gone:
        root = next(root for root in roots if is_inside(gone[0].source, [root]))
        report.warned(
            f"{pluralize(len(gone), 'file')} gone, and still remembered: {list_sources(gone)};"
            f" `cmt watch --once {short_source(root.as_posix(), '') or root}` removes"
            f" {'that' if len(gone) == 1 else 'them'}"
        )


def warn_of_left_behind(report: SyncReport, known: KnownFiles, roots: Sequence[Path]) -> None:
    """Warn about documents of a moved folder whose files are not in the new place."""
    prefixes = {old for (old, _), count in known.routes.items() if count > 1}
    left = [
        entry
        for entry in known.missing.values()
        if not is_inside(entry.source, roots) and known.came_from(entry, prefixes)
    ]
    if left:
        report.warned(
            f"{pluralize(len(left), 'file')} of folders that are elsewhere now not found here,"
            f" and still remembered: {list_sources(left)}; `cmt rm --source PATH` removes that"
        )


def _is_older(source: str, moment: datetime | None) -> bool:
    """Return whether a file was last written before this moment."""
    try:
        return moment is not None and os.stat(source).st_mtime < moment.timestamp()  # noqa: PTH116 - Path's raises in a closed folder
    except (OSError, ValueError):
        return False
