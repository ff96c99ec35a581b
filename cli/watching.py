"""What `cmt watch` says and asks while it keeps a memory in step with a folder. Knows no files and
no notices of changes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.failures import warn
from cmt_cli.follow import Entry
from cmt_cli.output import amount, on_terminal, place, print_json, say
from cmt_cli.progress import bars
from cmt_cli.sources import is_blind
from cmt_cli.sync import Sync
from cmt_sdk.errors import CMTError, InvalidInput


@dataclass
class Watching:
    """One run of the command. A warning is given once, until something else is."""

    memory: cmt_sdk.Memory
    root: Path
    sure: bool
    as_json: bool
    sync: Sync = field(init=False)
    following: bool = False
    passages: int = 0  # of what was taken in
    counts: Counter[str] = field(default_factory=Counter)
    warnings: set[str] = field(default_factory=set)

    def begin(self, scope: str, exclude: Sequence[str], *, erase: bool) -> None:
        """Bring the memory in step with the whole folder."""
        self.sync = Sync(
            self.memory, scope, self, self.may_go, exclude=exclude, remove=True, erase=erase
        )
        self.sync.run([self.root])
        earlier = self._compress() - self.passages
        self.following = True
        done = f"; {amount(earlier, 'passage')} of earlier runs compressed" if earlier > 0 else ""
        self.note(
            ", ".join(
                f"{self.counts[c]} {c}"
                for c in ("added", "updated", "renamed", "removed", "unchanged")
            )
            + done
        )

    def step(self, paths: Sequence[Path]) -> None:
        """Take in what is at these paths now; of all documents of the folder, those go whose files
        are gone.
        """
        self.sync.run([self.root], set(paths))
        self._compress()

    def concerns(self, path: Path) -> bool:
        """False for what is hidden, as in `cmt add`, and for the memory's own files."""
        if not path.is_relative_to(self.root) or path.is_relative_to(self.memory.path.resolve()):
            return False
        return not any(part.startswith(".") for part in path.relative_to(self.root).parts)

    def note(self, text: str) -> None:
        """Something for people, on stderr: stdout has the changes alone."""
        if not self.as_json:
            say(text, err=True)

    def changed(self, change: str, source: str, **more: Any) -> None:
        """See sync.Report: one line of stdout for a change."""
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
            say(
                f"{change} {place(str(more['was']), '')} to"
                f" {place(source, '')}{', and edited' if edited else ''}"
            )
        else:
            say(
                f"{change}"
                f" {place(source, '')}{', no trace left' if _is_clean(more.get('receipt')) else ''}"
            )

    def refuse(self, error: CMTError, *, named: bool) -> None:  # noqa: ARG002 - a folder is named, no files
        """See sync.Report."""
        warn(f"passed over: {error}", as_json=self.as_json)

    def warned(self, message: str) -> None:
        """See sync.Report."""
        if message not in self.warnings:
            self.warnings.add(message)
            warn(message, as_json=self.as_json)

    def may_go(self, folder: Path, entries: Sequence[Entry]) -> bool:
        """Whether many documents may go at once: the folder may be a drive that is not there."""
        if self.sure:
            return True
        whole = folder == self.root
        what = (
            f"{amount(len(entries), 'document')} came from {folder}, and {_files(len(entries))}"
            " gone"
        )
        if not self.following and not self.as_json and on_terminal(sys.stdin):
            if click.confirm(f"{what}. Take them out of the memory?", err=True):
                return True
            if whole and is_blind(folder):
                raise click.ClickException("nothing was taken out")
            return False
        message = f"{what}: nothing was taken out; where that is meant, give --yes"
        if whole and is_blind(folder) and not self.following:
            raise InvalidInput(message)
        self.warned(message)
        return False

    def _compress(self) -> int:
        """Compress what waits, what earlier runs have left included; returns how many passages that
        were.
        """
        waiting = self.memory.stats().pending
        if not waiting:
            return 0
        with bars() as update:
            return self.memory.compress(lambda p: update("compressing", p.compressed, waiting))


def _files(count: int) -> str:
    return "its file is" if count == 1 else "these files are"


def _is_clean(receipt: object) -> bool:
    return isinstance(receipt, cmt_sdk.Receipt) and receipt.complete and not receipt.traces_found
