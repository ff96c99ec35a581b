"""The messages and questions of `cmt watch`. Neither reads files nor waits for changes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.error_handling import warn
from cmt_cli.moved_files import Entry
from cmt_cli.output import echo, on_terminal, pluralize, print_json, short_source
from cmt_cli.progress import progress_bars
from cmt_cli.sources import has_no_files
from cmt_cli.sync import Sync
from cmt_sdk.errors import CMTError, InvalidInput

KINDS = ("added", "updated", "renamed", "removed", "unchanged")


@dataclass
class WatchSession:
    """One run of the command. Each warning is printed once.

    Attributes:
        root: The folder to watch, an absolute path.
        sure: Remove many documents at once without asking.
        following: The first synchronisation is done.
        passages: Passages of the added and updated documents.
        counts: Number of changes by kind.
    """

    memory: cmt_sdk.Memory
    root: Path
    sure: bool
    as_json: bool
    sync: Sync = field(init=False)
    following: bool = False
    passages: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    warnings: set[str] = field(default_factory=set)

    def begin(self, scope: str, exclude: Sequence[str], *, erase: bool) -> None:
        """Synchronise the memory with the complete folder."""
        self.sync = Sync(
            self.memory, scope, self, self.may_go, exclude=exclude, remove=True, erase=erase
        )
        self.sync.run([self.root])
        earlier = self._compress() - self.passages
        self.following = True
        done = (
            f"; {pluralize(earlier, 'passage')} of earlier runs compressed" if earlier > 0 else ""
        )
        self.note(", ".join(f"{self.counts[kind]} {kind}" for kind in KINDS) + done)

    def step(self, paths: Sequence[Path]) -> None:
        """Read the changed paths, and remove documents of the folder whose files are gone."""
        self.sync.run([self.root], set(paths))
        self._compress()

    def concerns(self, path: Path) -> bool:
        """Return False for hidden paths, which `cmt add` skips, and the memory's own files."""
        if not path.is_relative_to(self.root):
            return False
        if self.memory.path and path.is_relative_to(self.memory.path.resolve()):
            return False
        return not any(part.startswith(".") for part in path.relative_to(self.root).parts)

    def note(self, text: str) -> None:
        """Print a message for people on stderr; stdout holds only the changes."""
        if not self.as_json:
            echo(text, err=True)

    def changed(self, change: str, source: str, **more: Any) -> None:
        """Print one line per change. See SyncReport."""
        self.counts[change] += 1
        self.passages += more.pop("passages", 0)
        edited = more.pop("edited", False)
        if change == "unchanged":
            return
        if self.as_json:
            print_json(
                {"change": change, "source": source, **more, **({"edited": True} if edited else {})}
            )
        elif "was" in more:
            echo(
                f"{change} {short_source(str(more['was']), '')} to"
                f" {short_source(source, '')}{', and edited' if edited else ''}"
            )
        else:
            erased = ", no trace left" if _is_clean(more.get("receipt")) else ""
            echo(f"{change} {short_source(source, '')}{erased}")

    def refuse(self, error: CMTError, *, named: bool) -> None:  # noqa: ARG002 - a folder is named, no files
        """Print a warning. See SyncReport."""
        warn(f"skipped: {error}", as_json=self.as_json)

    def warned(self, message: str) -> None:
        """Print a warning. See SyncReport."""
        if message not in self.warnings:
            self.warnings.add(message)
            warn(message, as_json=self.as_json)

    def may_go(self, folder: Path, entries: Sequence[Entry]) -> bool:
        """Return whether these documents may be removed at once; ask on a terminal.

        The folder may be on a drive that is not mounted.
        """
        if self.sure:
            return True
        is_root = folder == self.root
        what = (
            f"{pluralize(len(entries), 'document')} came from {folder}, and {_files(len(entries))}"
            " gone"
        )
        if not self.following and not self.as_json and on_terminal(sys.stdin):
            if click.confirm(f"{what}. Remove them from the memory?", err=True):
                return True
            if is_root and has_no_files(folder):
                raise click.ClickException("nothing was removed")
            return False
        message = f"{what}: nothing was removed; if they are gone for good, give --yes"
        if is_root and has_no_files(folder) and not self.following:
            raise InvalidInput(message)
        self.warned(message)
        return False

    def _compress(self) -> int:
        """Compress all pending passages, also of earlier runs. Returns how many there were."""
        pending = self.memory.stats().pending
        if not pending:
            return 0
        with progress_bars() as update:
            return self.memory.compress(lambda p: update("compressing", p.compressed, pending))


def _files(count: int) -> str:
    return "its file is" if count == 1 else "these files are"


def _is_clean(receipt: object) -> bool:
    return isinstance(receipt, cmt_sdk.Receipt) and receipt.complete and not receipt.traces_found
