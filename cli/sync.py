"""Synchronise a memory with files: add, update and follow files, and remove documents.

Used by `cmt add` and `cmt watch`. Does not watch for changes itself.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cmt_sdk
from cmt_cli.error_handling import hold_warnings, show_held_warnings
from cmt_cli.guard import needs_confirmation
from cmt_cli.moved_files import Entry, KnownFiles, digest_of
from cmt_cli.output import local_time, pluralize, short_source
from cmt_cli.sources import is_inside, text_hash_name
from cmt_cli.sync_report import ConfirmRemoval, SyncReport
from cmt_cli.sync_warnings import (
    warn_of_gone,
    warn_of_left_behind,
    warn_of_replaced_text,
    warn_of_shared_source,
    warn_of_unreadable,
)
from cmt_sdk.errors import (
    CMTError,
    DocumentNotFound,
    EmptyDocument,
    InvalidDocument,
    InvalidInput,
    MissingExtra,
    NotFound,
    StorageDenied,
)

UNREADABLE = (InvalidInput, MissingExtra, NotFound, StorageDenied)


@dataclass
class Sync:
    """Synchronises the documents of one scope with files.

    A document belongs to the file that is its source. If the file was moved, the document follows
    it, recognised by its text. If the file is empty, the document is removed. If the file is gone,
    the document is removed with `remove`, and otherwise a warning names it.

    Args:
        memory: The memory to change.
        scope: The scope of the documents.
        report: Receives changes, errors and warnings.
        may_go: Asks before many documents are removed at once.
        fields: Metadata and expiry of new documents.
        exclude: Glob patterns of files and folders to skip.
        remove: Remove documents whose files are gone.
        erase: Erase them with `Memory.forget` instead of deleting.

    Attributes:
        traces: An erasure left traces or was incomplete.
        kept_out: Number of files that were skipped because they are kept out.
        empty: Sources of new files without any text.
    """

    memory: cmt_sdk.Memory
    scope: str
    report: SyncReport
    may_go: ConfirmRemoval
    fields: Mapping[str, Any] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    remove: bool = False
    erase: bool = False
    traces: bool = False
    kept_out: int = 0
    empty: list[str] = field(default_factory=list)
    _roots: Sequence[Path] = ()
    _near: Sequence[Path] = ()
    _named: set[str] = field(default_factory=set)
    _empty: list[Entry] = field(default_factory=list)
    _new: list[cmt_sdk.Document] = field(default_factory=list)
    _known: KnownFiles = field(init=False)

    def run(self, paths: Sequence[str | Path], changed: Collection[Path] | None = None) -> None:
        """Synchronise with files, and with folders including their subfolders.

        Args:
            paths: Files and folders.
            changed: Read only files at or below these paths; None reads all.
        """
        folders = [Path(path).resolve() for path in paths if os.path.isdir(path)]  # noqa: PTH112 - Path's raises in a closed one
        self._roots = folders
        self._named = set()
        self._empty = []
        self._new = []
        self._near = [
            *folders,
            *(Path(path).resolve().parent for path in paths if not os.path.isdir(path)),  # noqa: PTH112
        ]
        known = self._known = KnownFiles.of(self.memory, self.scope)
        for path, is_named in self._files(paths, known, changed):
            if is_named:
                self._named.add(_source_of(path))
            self._read_and_store(path, known)
        moved = dict(known.edited(self._new, self._near))
        for number, document in enumerate(self._new):
            if number in moved:
                self._follow(document, moved[number], known)
            else:
                self._store(document)
        warn_of_left_behind(self.report, known, self._roots)
        self._remove_documents(known)

    # -- reading ----------------------------------------------------------------------------------

    def _files(
        self, paths: Iterable[str | Path], known: KnownFiles, changed: Collection[Path] | None
    ) -> Iterator[tuple[Path, bool]]:
        """Yield the files to read, each once, and whether the user named the file itself."""
        seen: set[str] = set()
        for path in map(Path, paths):
            is_folder = os.path.isdir(path)  # noqa: PTH112 - Path's raises in a closed folder
            for file in self._files_in(path.resolve(), known, changed) if is_folder else [path]:
                if (source := _source_of(file)) not in seen:
                    seen.add(source)
                    yield file, not is_folder

    def _files_in(
        self, root: Path, known: KnownFiles, changed: Collection[Path] | None
    ) -> Iterator[Path]:
        """Yield the readable files of a folder and the files of known documents.

        Files that are kept out are skipped.
        """
        own = [
            Path(entry.source)
            for entry in known.entries
            if is_inside(entry.source, [root]) and known.is_alone(entry)
        ]
        itself = [] if self.memory.path is None else [self.memory.path.resolve()]
        listed = cmt_sdk.list_files(root, exclude=self.exclude, known=frozenset([*own, *itself]))
        files = {file: None for file in listed if self._concerns(file, changed)}
        for file in own:
            is_here = os.path.isfile(file) and is_inside(Path(os.path.realpath(file)), [root])  # noqa: PTH113 - Path's raises
            if self._concerns(file, changed) and is_here:  # skips links that leave the folder
                files[file] = None
        out = set(self.memory.kept_out([file.as_posix() for file in files], scope=self.scope))
        self.kept_out += len(out)
        yield from (file for file in files if file.as_posix() not in out)

    def _concerns(self, file: Path, changed: Collection[Path] | None) -> bool:
        """Return False for files of the memory itself and for files that did not change."""
        if self.memory.path and file.is_relative_to(self.memory.path.resolve()):
            return False
        return (
            changed is None or file in changed or any(folder in changed for folder in file.parents)
        )

    def _read_and_store(self, path: Path, known: KnownFiles) -> None:
        """Read one file, and store its text under the document that it belongs to."""
        source = _source_of(path)
        entry = known.by_source.get(source)
        document = self._read(path, entry, known)
        if document is None:
            return
        if source in self._named:
            self.memory.keep_out(
                [source, text_hash_name(document.text)], scope=self.scope, out=False
            )
        if entry is not None:
            self._store(document, entry)
        elif (
            other := known.same_file(source, self._roots) or known.same_text(document)
        ) is not None:
            self._follow(document, other, known)
        elif source not in self._named and self._is_kept_out(document, source):
            return
        elif known.may_be_edited(document, self._near):
            # decided after all files are read: then it is known which documents lost their files
            self._new.append(document)
        else:
            self._store(document)

    def _read(self, path: Path, entry: Entry | None, known: KnownFiles) -> cmt_sdk.Document | None:
        """Read a file as a document.

        Returns None, after a record or a report, if the file is empty or cannot be read. Warnings
        of the reader are shown only if the text is new.
        """
        source = _source_of(path)
        try:
            with hold_warnings() as warnings:
                document = cmt_sdk.read_document(path)
        except EmptyDocument as error:
            if entry is not None:
                self._empty.append(entry)
            elif source in self._named:
                self._refuse(error, source, None)
            else:
                self.empty.append(source)
            return None
        except UNREADABLE as error:
            # a broken link counts as a missing file
            if entry is None or not known.places[entry.id].missing:
                self._refuse(error, source, entry)
            return None
        if entry is None or digest_of(document.text) != entry.digest:
            show_held_warnings(warnings)
        return document

    def _is_kept_out(self, document: cmt_sdk.Document, source: str) -> bool:
        """Return whether a file with this text is kept out under another name.

        The new name is then recorded as kept out, too.
        """
        if not self.memory.kept_out([text_hash_name(document.text)], scope=self.scope):
            return False
        if not self.memory.read_only:
            self.memory.keep_out([source], scope=self.scope)
        self.kept_out += 1
        name = short_source(source, "")
        self.report.warned(
            f"{name} stays out: a file with its text was kept out; `cmt add {name}` takes it in"
        )
        return True

    def _refuse(self, error: CMTError, source: str, entry: Entry | None) -> None:
        named = source in self._named
        if (
            entry is not None
            and not named
            and Path(source).suffix.lower() not in cmt_sdk.FILE_SUFFIXES
        ):
            return  # another program added a text with this source; `cmt add` never read the file
        self.report.refuse(error, named=named)
        if entry is not None:
            since = local_time(entry.updated)
            self.report.warned(
                f"{short_source(source, '')}: what is remembered of it is of {since}, and stays"
            )

    # -- storing ----------------------------------------------------------------------------------

    def _store(
        self, document: cmt_sdk.Document, entry: Entry | None = None, *, moved: bool = False
    ) -> cmt_sdk.Progress | None:
        """Store a text without compressing it; all texts are stored first.

        Args:
            document: The contents of a file.
            entry: The known document of the file.
            moved: The document follows its file to another path.

        Returns:
            What changed; None if the memory refuses the text.
        """
        document_id = entry.id if entry is not None and moved else ""
        metadata = {**document.metadata, **self.fields.get("metadata", {})}
        fields = {**self.fields, "metadata": metadata, "id": document_id, "scope": self.scope}
        given = replace(document, **fields)
        try:
            step = self.memory.add_many([given], replace=True, compress=False)
        except InvalidDocument as error:
            self._refuse(error, document.source or "", None)
            return None
        if entry is not None and step.updated and digest_of(document.text) != entry.digest:
            warn_of_replaced_text(self.report, self.memory, entry, document)
            if not moved:
                warn_of_shared_source(self.report, entry, self._known.entries)
        if not moved:
            change = "added" if step.added else "updated" if step.updated else "unchanged"
            self.report.changed(change, document.source or "", passages=step.passages)
        return step

    def _follow(self, document: cmt_sdk.Document, entry: Entry, known: KnownFiles) -> None:
        """Give the document of a moved file its new source; id and history stay.

        An unchanged text is not compressed again.
        """
        step = self._store(document, entry, moved=True)
        if step is None:
            return
        source = document.source or ""
        known.follow(entry, source)
        edited = digest_of(document.text) != entry.digest
        self.report.changed(
            "renamed", source, was=entry.source, passages=step.passages, edited=edited
        )

    # -- removing ---------------------------------------------------------------------------------

    def _remove_documents(self, known: KnownFiles) -> None:
        """Remove documents whose files are empty, and with `remove` those whose files are gone."""
        inside = [
            e
            for e in known.entries
            if is_inside(e.source, self._roots) and e.id not in known.followed
        ]
        warn_of_unreadable(self.report, inside, known)
        gone = [e for e in inside if known.places[e.id].missing]
        if not self.remove:
            warn_of_gone(self.report, gone, self._roots)
            gone = []
        going = {entry.id: entry for entry in (*self._empty, *gone)}
        # for a file that was named, its folder counts
        for root in dict.fromkeys([*self._roots, *self._near]):
            of = [e for e in known.entries if is_inside(e.source, [root])]
            for folder, entries in needs_confirmation(
                [e for e in of if e.id in going], of, root
            ).items():
                if not self.may_go(folder, entries):
                    staying = {entry.id for entry in entries}
                    going = {name: e for name, e in going.items() if name not in staying}
        for entry in going.values():
            self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        try:
            if not self.erase:
                self.memory.delete(entry.id)
                self.report.changed("removed", entry.source)
                return
            receipt = self.memory.forget(entry.id)
        except DocumentNotFound:  # another process has deleted it
            return
        self.report.changed("removed", entry.source, receipt=receipt)
        if receipt.traces_found or not receipt.complete:
            self.traces = True
            files = ", ".join(receipt.files_scanned)
            self.report.warned(
                f"{entry.source}: {pluralize(receipt.traces_found, 'trace')} left in {files}"
            )


def _source_of(path: Path) -> str:
    """Return the source that `read_document` gives a file."""
    return (path.parent.resolve() / path.name).as_posix()
