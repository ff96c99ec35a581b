"""The interface by which `Sync` reports changes and asks for confirmation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from cmt_cli.moved_files import Entry
from cmt_cli.output import short_source
from cmt_sdk.errors import CMTError

MAX_NAMED = 3  # sources that a message names
# Asks whether the documents of a folder may be removed, given that their files went all at once.
ConfirmRemoval = Callable[[Path, Sequence[Entry]], bool]


class SyncReport(Protocol):
    """Receives what happens during a synchronisation."""

    def changed(self, change: str, source: str, **more: Any) -> None:
        """Handle a change of one document.

        Args:
            change: "added", "updated", "unchanged", "renamed" or "removed".
            source: The source of the document.
            **more: `passages`, `was` (the source before), `edited` (a renamed file has a new
                text), `receipt` (of an erased document).
        """

    def refuse(self, error: CMTError, *, named: bool) -> None:
        """Handle a file that cannot be stored; `named` if the user gave the file itself."""

    def warned(self, message: str) -> None:
        """Handle a warning; the synchronisation continues."""


def list_sources(entries: Sequence[Entry]) -> str:
    """Return the first sources by name, and how many more there are."""
    names = [short_source(entry.source, "") for entry in entries[:MAX_NAMED]]
    more = [f"{len(entries) - MAX_NAMED:,} more"] if len(entries) > MAX_NAMED else []
    return ", ".join(names + more)
