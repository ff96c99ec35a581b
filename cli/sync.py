"""A memory in step with a folder, one step at a time. Knows files and documents, not how changes are noticed."""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

import cmt_sdk
from cmt_cli.add import UNREADABLE
from cmt_cli.failures import warn
from cmt_cli.output import amount, on_terminal, place, print_json, say
from cmt_cli.progress import bars
from cmt_sdk.errors import DocumentNotFound, InvalidDocument, InvalidInput

KINDS = cmt_sdk.FILE_SUFFIXES  # of the files that `read_documents` takes in folders


@dataclass
class Sync:
    """One run of the command. `copies` are files whose text is remembered under another source, which may go one day."""

    memory: cmt_sdk.Memory
    root: Path
    scope: str
    erase: bool
    sure: bool
    as_json: bool
    traces: bool = False
    following: bool = False
    copies: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        """Bring the memory in step with the whole folder."""
        self.step([self.root])
        self.following = True
        self.note(", ".join(f"{self.counts[c]} {c}" for c in ("added", "updated", "renamed", "removed", "unchanged")))

    def step(self, paths: Sequence[Path]) -> None:
        """Take in what is at these paths now; of all documents of the folder, those go whose files are gone."""
        documents = list(self._documents())
        known = {d.source for d in documents}
        gone = {d.id: d for d in documents if _is_gone(d.source or "")}
        lost = {d.text: d for d in gone.values()}
        found = 0
        for document in self._read(paths):
            found += 1
            moved = None if document.source in known else lost.pop(document.text, None)
            if moved is not None:
                self._rename(gone.pop(moved.id), document.source or "")
            else:
                self._store(document, is_known=document.source in known)
        if gone and (found or self.sure or len(gone) < len(documents) or self._agreed(len(gone))):
            for document in gone.values():
                self._take_out(document)
        for document in self._read(map(Path, sorted(self.copies))):
            self._store(document, is_known=False)
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

    def _documents(self) -> Iterator[cmt_sdk.Document]:
        """Those of this very scope whose source is in the folder: a conversation or a text from elsewhere has none there."""
        beneath = f"{self.root.as_posix().rstrip('/')}/"
        for document in self.memory.documents(source=f"{beneath}*", scope=self.scope or None):
            if document.scope == self.scope and (document.source or "").startswith(beneath):
                yield document

    def _read(self, paths: Iterable[Path]) -> Iterator[cmt_sdk.Document]:
        """What can be read at these paths, as `cmt add FOLDER` would; the rest is tried again when it changes."""
        for path in paths:
            if path == self.root or (self.concerns(path) and stat.S_ISDIR(_mode(path))):
                yield from cmt_sdk.read_documents([path])
            elif self.concerns(path) and path.suffix.lower() in KINDS and os.path.isfile(path):  # noqa: PTH113 - it may be closed
                try:
                    yield cmt_sdk.read_document(path)
                except UNREADABLE as error:
                    warn(f"passed over: {error}", as_json=self.as_json)

    def _store(self, document: cmt_sdk.Document, *, is_known: bool) -> None:
        """Store a text; compression comes when all texts are safe."""
        source = document.source or ""
        try:
            step = self.memory.add_many([replace(document, scope=self.scope)], replace=True, compress=False)
        except InvalidDocument as error:
            warn(f"passed over: {error}", as_json=self.as_json)
            return
        if step.unchanged and not is_known and not self.memory.count(source=source):
            if source not in self.copies:
                warn(f"{source}: this text is remembered under another source, and keeps that one", as_json=self.as_json)
            self.copies.add(source)
            return
        self.copies.discard(source)
        self._tell("added" if step.added else "updated" if step.updated else "unchanged", source)

    def _rename(self, document: cmt_sdk.Document, source: str) -> None:
        """The same text under another name needs no compression."""
        self.memory.update(document.id, source=source)
        self._tell("renamed", source, was=document.source)

    def _take_out(self, document: cmt_sdk.Document) -> None:
        source = document.source or ""
        try:
            if not self.erase:
                self.memory.delete(document.id)
                self._tell("removed", source)
                return
            receipt = self.memory.forget(document.id)
        except DocumentNotFound:  # somebody else was quicker
            return
        self._tell("removed", source, receipt=receipt)
        if receipt.traces_found or not receipt.complete:
            self.traces = True
            files = ", ".join(receipt.files_scanned)
            warn(f"{source}: {amount(receipt.traces_found, 'trace')} left in {files}", as_json=self.as_json)

    def _agreed(self, count: int) -> bool:
        """Whether all documents of the folder may go: an empty folder is often a drive that is not there."""
        what = f"{amount(count, 'document')} came from {self.root}, and all of these files are gone"
        if not self.following and not self.as_json and on_terminal(sys.stdin):
            if click.confirm(f"{what}. Take them out of the memory?", err=True):
                return True
            raise click.ClickException("nothing was taken out")
        message = f"{what}: nothing was taken out; where that is meant, give --yes"
        if not self.following:
            raise InvalidInput(message)
        warn(message, as_json=self.as_json)
        return False

    def _compress(self) -> None:
        waiting = self.memory.stats().pending
        if waiting:
            with bars() as update:
                self.memory.compress(lambda p: update("compressing", p.compressed, waiting))

    def _tell(self, change: str, source: str, **more: object) -> None:
        """One line of stdout for a change."""
        self.counts[change] += 1
        if change == "unchanged":
            return
        if self.as_json:
            print_json({"change": change, "source": source, **more})
        elif "was" in more:
            say(f"{change} {place(str(more['was']), '')} to {place(source, '')}")
        else:
            say(f"{change} {place(source, '')}{', no trace left' if _is_clean(more.get('receipt')) else ''}")


def _is_clean(receipt: object) -> bool:
    return isinstance(receipt, cmt_sdk.Receipt) and receipt.complete and not receipt.traces_found


def _mode(path: Path) -> int:
    """The kind of what is at a path itself, links not followed; 0 for nothing."""
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):
        return 0


def _is_gone(source: str) -> bool:
    """True only where the system says that there is no such file: in a closed folder nobody can tell."""
    try:
        os.lstat(source)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
