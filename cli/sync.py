"""Files into a memory, and documents whose files are gone out of it. Knows files and documents, not
how changes are noticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import cmt_sdk
from cmt_cli.failures import held_back, said_now
from cmt_cli.follow import Entry, Known, digest_of
from cmt_cli.guard import held
from cmt_cli.output import amount, local_time, place, short_id
from cmt_cli.sources import EDITED, Place, is_beneath, text_name
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
NAMED = 3  # sources that a message names
KEPT = {
    Place.CLOUD: "in a cloud, not on this disk",
    Place.CLOSED: "where they cannot be looked at",
}
# whether the documents of a folder may go, all of whose files went at once
MayGo = Callable[[Path, Sequence[Entry]], bool]


class Report(Protocol):
    """Who is informed of what happens."""

    def changed(self, change: str, source: str, **more: Any) -> None:
        """A document is added, updated, unchanged, renamed or removed; of a renamed one `edited`
        tells of a new text.
        """

    def refuse(self, error: CMTError, *, named: bool) -> None:
        """A file cannot be remembered; `named` when the user gave it itself."""

    def warned(self, message: str) -> None:
        """Something is not as it should be, and the run goes on."""


@dataclass
class Sync:
    """Brings the documents of one scope in step with files.

    A document belongs to the file that is its source. It follows a file that was moved, by its
    text. It is taken out when the file is empty; when the file is gone it is taken out with
    `remove`, and else named. `may_go` is asked where many go at once. `fields` are the metadata and
    the expiry of what comes in.
    """

    memory: cmt_sdk.Memory
    scope: str
    report: Report
    may_go: MayGo
    fields: Mapping[str, Any] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    remove: bool = False
    erase: bool = False
    traces: bool = False
    kept_out: int = 0
    empty: list[str] = field(default_factory=list)  # sources of new files without any text
    _roots: Sequence[Path] = ()
    _near: Sequence[Path] = ()
    _named: set[str] = field(default_factory=set)
    _empty: list[Entry] = field(default_factory=list)
    _new: list[cmt_sdk.Document] = field(default_factory=list)
    _known: Known = field(init=False)

    def run(self, paths: Sequence[str | Path], changed: Collection[Path] | None = None) -> None:
        """Take in files, and folders with all beneath them; of `changed`, where that is given, what
        is at these paths.
        """
        folders = [Path(path).resolve() for path in paths if os.path.isdir(path)]  # noqa: PTH112 - Path's raises in a closed one
        self._roots, self._named, self._empty, self._new = folders, set(), [], []
        self._near = [
            *folders,
            *(Path(path).resolve().parent for path in paths if not os.path.isdir(path)),  # noqa: PTH112
        ]
        known = self._known = Known.of(self.memory, self.scope)
        for path, named in self._files(paths, known, changed):
            if named:
                self._named.add(_source_of(path))
            self._take(path, known)
        found = dict(known.edited(self._new, self._near))
        for number, document in enumerate(self._new):
            if number in found:
                self._follow(document, found[number], known)
            else:
                self._store(document)
        self._name_left_behind(known)
        self._let_go(known)

    # -- reading ----------------------------------------------------------------------------------

    def _files(
        self, paths: Iterable[str | Path], known: Known, changed: Collection[Path] | None
    ) -> Iterator[tuple[Path, bool]]:
        """The files to read, each once, and whether it was named itself."""
        seen: set[str] = set()
        for path in map(Path, paths):
            is_folder = os.path.isdir(path)  # noqa: PTH112 - Path's raises in a closed folder
            for file in self._beneath(path.resolve(), known, changed) if is_folder else [path]:
                if (source := _source_of(file)) not in seen:
                    seen.add(source)
                    yield file, not is_folder

    def _beneath(
        self, root: Path, known: Known, changed: Collection[Path] | None
    ) -> Iterator[Path]:
        """What `read_documents` reads in a folder, and files that are remembered already; not what
        is to stay out.
        """
        own = [
            Path(entry.source)
            for entry in known.entries
            if is_beneath(entry.source, [root]) and known.is_alone(entry)
        ]
        listed = cmt_sdk.list_files(
            root, exclude=self.exclude, known=frozenset([*own, self.memory.path.resolve()])
        )
        files = {file: None for file in listed if self._concerns(file, changed)}
        for file in own:
            is_here = os.path.isfile(file) and is_beneath(Path(os.path.realpath(file)), [root])  # noqa: PTH113 - Path's raises
            if self._concerns(file, changed) and is_here:  # no link out of the folder
                files[file] = None
        out = set(self.memory.kept_out([file.as_posix() for file in files], scope=self.scope))
        self.kept_out += len(out)
        yield from (file for file in files if file.as_posix() not in out)

    def _concerns(self, file: Path, changed: Collection[Path] | None) -> bool:
        """False for files of the memory itself, and for what has not changed."""
        if file.is_relative_to(self.memory.path.resolve()):
            return False
        return (
            changed is None or file in changed or any(folder in changed for folder in file.parents)
        )

    def _take(self, path: Path, known: Known) -> None:
        """Read one file, and store what it holds under the document that it belongs to."""
        source = _source_of(path)
        entry = known.by_source.get(source)
        document = self._read(path, entry, known)
        if document is None:
            return
        if source in self._named:
            self.memory.keep_out([source, text_name(document.text)], scope=self.scope, out=False)
        if entry is not None:
            self._store(document, entry)
        elif (
            other := known.same_file(source, self._roots) or known.same_text(document)
        ) is not None:
            self._follow(document, other, known)
        elif source not in self._named and self._is_kept_out(document, source):
            return
        elif known.may_be_edited(document, self._near):
            # until all are read, and it is known which documents lost their files
            self._new.append(document)
        else:
            self._store(document)

    def _read(self, path: Path, entry: Entry | None, known: Known) -> cmt_sdk.Document | None:
        """What a file holds; None, and it is noted, where that is nothing or cannot be read.

        What reading warns of is not said again of a text that is remembered already.
        """
        source = _source_of(path)
        try:
            with held_back() as said:
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
            # a link that leads nowhere is gone, as a file is
            if entry is None or not known.places[entry.id].missing:
                self._refuse(error, source, entry)
            return None
        if entry is None or digest_of(document.text) != entry.digest:
            said_now(said)
        return document

    def _is_kept_out(self, document: cmt_sdk.Document, source: str) -> bool:
        """Whether a file with this text was to stay out under another name; then it stays out under
        this one, too.
        """
        if not self.memory.kept_out([text_name(document.text)], scope=self.scope):
            return False
        if not self.memory.read_only:
            self.memory.keep_out([source], scope=self.scope)
        self.kept_out += 1
        named = place(source, "")
        self.report.warned(
            f"{named} stays out: a file with its text was kept out; `cmt add {named}` takes it in"
        )
        return True

    def _refuse(self, error: CMTError, source: str, entry: Entry | None) -> None:
        named = source in self._named
        if (
            entry is not None
            and not named
            and Path(source).suffix.lower() not in cmt_sdk.FILE_SUFFIXES
        ):
            return  # somebody else's text with this source: `cmt add` never read the file
        self.report.refuse(error, named=named)
        if entry is not None:
            since = local_time(entry.updated)
            self.report.warned(
                f"{place(source, '')}: what is remembered of it is of {since}, and stays"
            )

    # -- storing ----------------------------------------------------------------------------------

    def _store(
        self, document: cmt_sdk.Document, entry: Entry | None = None, *, moved: bool = False
    ) -> cmt_sdk.Progress | None:
        """Store a text; compression comes when all texts are safe. None where it is refused.

        Args:
            document: what a file holds.
            entry: the known document of the file.
            moved: whether the document follows its file to another place.
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
            self._name_replaced(entry, document)
            if not moved:
                self._name_others(
                    entry,
                    [
                        e
                        for e in self._known.entries
                        if e.source == entry.source and e.id != entry.id
                    ],
                )
        if not moved:
            change = "added" if step.added else "updated" if step.updated else "unchanged"
            self.report.changed(change, document.source or "", passages=step.passages)
        return step

    def _follow(self, document: cmt_sdk.Document, entry: Entry, known: Known) -> None:
        """The document of a file that was moved keeps its id and history; the same text needs no
        compression.
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

    # -- taking out -------------------------------------------------------------------------------

    def _let_go(self, known: Known) -> None:
        """Documents whose files say nothing any more go; so do those whose files are gone, where
        that is certain.
        """
        beneath = [
            e
            for e in known.entries
            if is_beneath(e.source, self._roots) and e.id not in known.followed
        ]
        self._name_kept(beneath, known)
        gone = [e for e in beneath if known.places[e.id].missing]
        if not self.remove:
            self._name_gone(gone)
            gone = []
        going = {entry.id: entry for entry in (*self._empty, *gone)}
        # of a file that is named, its folder
        for root in dict.fromkeys([*self._roots, *self._near]):
            of = [e for e in known.entries if is_beneath(e.source, [root])]
            for folder, entries in held([e for e in of if e.id in going], of, root).items():
                if not self.may_go(folder, entries):
                    staying = {entry.id for entry in entries}
                    going = {name: e for name, e in going.items() if name not in staying}
        for entry in going.values():
            self._take_out(entry)

    def _take_out(self, entry: Entry) -> None:
        try:
            if not self.erase:
                self.memory.delete(entry.id)
                self.report.changed("removed", entry.source)
                return
            receipt = self.memory.forget(entry.id)
        except DocumentNotFound:  # somebody else was quicker
            return
        self.report.changed("removed", entry.source, receipt=receipt)
        if receipt.traces_found or not receipt.complete:
            self.traces = True
            files = ", ".join(receipt.files_scanned)
            self.report.warned(
                f"{entry.source}: {amount(receipt.traces_found, 'trace')} left in {files}"
            )

    # -- naming -----------------------------------------------------------------------------------

    def _name_replaced(self, entry: Entry, document: cmt_sdk.Document) -> None:
        """Name the text of a document that was never in its file, where the text of the file has
        replaced it.
        """
        *earlier, before, _ = self.memory.history(entry.id)
        is_file_unchanged = _is_older(document.source or "", before.updated_at) and any(
            version.text == document.text for version in earlier
        )
        if before.metadata.get(EDITED) == before.version or is_file_unchanged:
            self.report.warned(
                f"{place(document.source, '')}: the text of the file replaces that of version"
                f" {before.version}, which did not come from it; it stays in the history: `cmt show"
                f" {short_id(entry.id)} --history`"
            )

    def _name_others(self, entry: Entry, others: Sequence[Entry]) -> None:
        """Name the documents that have the source of this one and do not follow the file."""
        if others:
            self.report.warned(
                f"{place(entry.source, '')} is the source of {len(others) + 1} documents:"
                f" {short_id(entry.id)} follows the file,"
                f" {', '.join(short_id(other.id) for other in others)} does not; `cmt rm ID` takes"
                " one out"
            )

    def _name_kept(self, entries: Sequence[Entry], known: Known) -> None:
        """What stays as it was because nobody can tell what its file says now."""
        for where, why in KEPT.items():
            some = [entry for entry in entries if known.places[entry.id] is where]
            if some:
                self.report.warned(
                    f"{amount(len(some), 'file')} {why}: {sources_of(some)}; what is remembered"
                    " stays"
                )

    def _name_gone(self, gone: Sequence[Entry]) -> None:
        if gone:
            root = next(root for root in self._roots if is_beneath(gone[0].source, [root]))
            self.report.warned(
                f"{amount(len(gone), 'file')} gone, and still remembered: {sources_of(gone)}; `cmt"
                f" watch --once {place(root.as_posix(), '') or root}` takes"
                f" {'that' if len(gone) == 1 else 'them'} out"
            )

    def _name_left_behind(self, known: Known) -> None:
        """Documents of a folder that was found elsewhere, on another machine perhaps, that have no
        file there.
        """
        prefixes = {old for (old, _), count in known.routes.items() if count > 1}
        left = [
            entry
            for entry in known.missing.values()
            if not is_beneath(entry.source, self._roots) and known.came_from(entry, prefixes)
        ]
        if left:
            self.report.warned(
                f"{amount(len(left), 'file')} of folders that are elsewhere now not found here, and"
                f" still remembered: {sources_of(left)}; `cmt rm --source PATH` takes that out"
            )


def sources_of(entries: Sequence[Entry]) -> str:
    """The first sources by name."""
    names = [place(entry.source, "") for entry in entries[:NAMED]]
    more = [f"{len(entries) - NAMED:,} more"] if len(entries) > NAMED else []
    return ", ".join(names + more)


def _source_of(path: Path) -> str:
    """The source that `read_document` gives a file."""
    return (path.parent.resolve() / path.name).as_posix()


def _is_older(source: str, moment: datetime | None) -> bool:
    """Whether a file was last written before this moment."""
    try:
        return moment is not None and os.stat(source).st_mtime < moment.timestamp()  # noqa: PTH116 - Path's raises in a closed folder
    except (OSError, ValueError):
        return False
