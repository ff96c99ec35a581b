"""The single path in: documents are checked, cut, stored, and then compressed in batches. No torch,
no SQL.
"""

from __future__ import annotations

import logging
import os
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from cmt_sdk import archive
from cmt_sdk.background import Worker
from cmt_sdk.config import Settings
from cmt_sdk.converting import check_text, read_document
from cmt_sdk.errors import InvalidDocument, InvalidInput
from cmt_sdk.ports import Recut, Store
from cmt_sdk.retrieval import Engine, Retriever
from cmt_sdk.scopes import check_scope
from cmt_sdk.splitting import Rules, binary_parts, rules_for, split
from cmt_sdk.titles import title_of
from cmt_sdk.types import Document, Filter, Outcome, Passage, Progress, Span

log = logging.getLogger(__name__)

T = TypeVar("T")
Addable = Document | str | os.PathLike[str]
OnProgress = Callable[[Progress], None]
# compression follows at once, in a thread, or when it is needed
When = Literal["now", "background", "later"]
Named = tuple[str, str, Rules]  # a text, its title, and the rules of its format
LONGEST_TITLE = 24  # tokens
PAGE = 200  # documents read together
LONGEST_PAUSE = 1.0  # seconds for questions between two steps of cutting
BATCH_PASSAGES = 64  # enough to find passages of like length


@dataclass(frozen=True)
class Ingestor:
    """Takes documents in for one memory."""

    store: Store
    engine: Engine
    retriever: Retriever
    worker: Worker
    settings: Settings

    def add(
        self,
        documents: Iterable[Document],
        when: When,
        *,
        replace: bool = False,
        on_stored: Callable[[Document], None] = lambda _: None,
        on_progress: OnProgress | None = None,
    ) -> Progress:
        """The single path in: text first, then memories, in batches."""
        progress = Progress()

        def step(**steps: int) -> None:
            nonlocal progress
            progress = progress.plus(**steps)
            if on_progress:
                on_progress(progress)

        waiting: list[str] = []
        passages = 0

        def compress() -> None:
            if waiting and when == "now":
                self.retriever.encode_backlog(on_batch=lambda n: step(compressed=n), of=waiting)
                waiting.clear()

        try:
            for document in documents:
                stored, outcome, new = self._store_text(document, by_source=replace)
                step(**{outcome: 1, "passages": new})
                on_stored(stored)
                if not stored.ready:
                    waiting.append(stored.id)
                    passages += new
                if passages >= BATCH_PASSAGES:
                    compress()
                    passages = 0
        except InvalidInput:
            compress()  # what came before the document that cannot be added
            raise
        finally:
            if waiting and when == "background":
                self.worker.wake()
        compress()
        return progress

    def add_together(self, documents: Sequence[Document], *, wait: bool) -> Progress:
        """Store documents in one transaction; then compress them, or let the thread do it."""
        for document in documents:
            self.check(document)
        named = [replace(document, id=document.id or uuid.uuid4().hex) for document in documents]
        cut = [(document, self.cut(document)) for document in named]
        self.store.add_together(cut)
        progress = Progress(added=len(cut), passages=sum(len(spans) for _, spans in cut))
        if not wait:
            self.worker.wake()
            return progress
        return progress.plus(
            compressed=self.retriever.encode_backlog(of=[document.id for document in named])
        )

    def from_archive(
        self, path: Path, diverged: archive.Choice | None = None, *, trust: bool = False
    ) -> Iterator[Progress]:
        """Take in what an archive holds; see archive.read."""
        longest, seal = self.settings.max_document_bytes, archive.seal_here(create=False)
        gate = archive.ArchiveImport(
            self.check_text, self.cut, self.retriever.accepts, longest, seal, trust
        )
        for progress in archive.read(self.store, path, gate, diverged):
            if self.settings.memory_budget:
                self.store.evict(self.settings.memory_budget)
            yield progress

    def compress(self, on_progress: OnProgress | None = None) -> int:
        """Compress whatever waits; returns the number of passages."""
        progress = Progress()

        def batch_done(count: int) -> None:
            nonlocal progress
            progress = progress.plus(compressed=count)
            if on_progress:
                on_progress(progress)

        return self.retriever.encode_backlog(on_batch=batch_done)

    def _store_text(self, document: Document, *, by_source: bool) -> tuple[Document, Outcome, int]:
        """Store one document's text: the document as stored, what happened to it, and its new
        passages.
        """
        self.check(document)
        cuts = Cuts(self)
        again = cuts.within(
            lambda recut: self.store.add_again(document, by_source=by_source, recut=recut)
        )
        if again is None:
            spans = cuts.of(document)
            if document.source and (
                binary := sum(end - start for start, end in binary_parts(document.text))
            ):
                log.warning(
                    "%s: %s characters of binary data are in no passage",
                    document.source,
                    f"{binary:,}",
                )
            again = cuts.within(
                lambda recut: self.store.add(document, spans, by_source=by_source, recut=recut)
            )
        stored, outcome = again
        return stored, outcome, 0 if outcome == "unchanged" else self.store.waiting(stored.id)

    def change(self, known: Document, changes: Mapping[str, Any]) -> Document:
        """Change these fields of a document that is remembered; returns it as stored.

        Raises InvalidDocument, DocumentNotFound.
        """
        changed = replace(known, **changes)
        self.check(changed)
        cuts = Cuts(self)
        cuts.prepare(known, changed)
        return cuts.within(lambda recut: self.store.replace(known.id, changes, recut=recut))

    def check(self, document: Document) -> None:
        """The gate for a document that is to be remembered. Raises InvalidDocument."""
        self.check_text(document)
        for name in ("created_at", "expires_at"):
            check_moment(name, getattr(document, name))
        if document.expires_at is not None and document.expires_at <= self.store.now():
            raise InvalidDocument(
                f"expires_at={document.expires_at} has passed: give a time that is to come"
            )

    def check_text(self, document: Document) -> None:
        """The gate for a document out of an archive, which may have expired since. Raises
        InvalidDocument.
        """
        check_text(
            document.text, self.settings.max_document_bytes, document.source or "the document"
        )
        check_scope(document.scope)
        if not isinstance(document.metadata, Mapping):
            raise InvalidDocument(
                f"metadata={document.metadata!r:.60}: give a dict of names and plain values"
            )

    def cut_again(self) -> None:
        """Give passages to the documents that lost some to damage."""
        for document in self.store.uncut():
            self.store.recut(document, self.cut(document))

    def cut_all(self) -> None:
        """Cut every current document again that earlier rules, settings or names have cut.

        Each document is one transaction: where this is interrupted, all can be read and searched.
        """
        cursor: str | None = None
        while True:
            page = self.store.page(Filter(), PAGE, cursor)
            for document in page.documents:
                spans = self.cut(document)
                passages = self.store.passages_of(document.id)
                if list(map(_place, spans)) != list(map(_place, passages)):
                    self.store.recut(document, spans)
            cursor = page.next_cursor
            if cursor is None:
                return

    def cut(self, document: Document, title: str | None = None) -> list[Span]:
        """The passages of a document, under its title; `title` is given where it is known.

        Waiting questions go first: this is called while no transaction is open.
        """
        title = self.title(document) if title is None else title
        budget, rules = self.settings.passage_tokens, rules_for(document.source)
        return split(document.text, self._count_after_others, budget, title=title, rules=rules)

    def _count_after_others(self, texts: Sequence[str]) -> list[int]:
        self.retriever.lock.give_way(LONGEST_PAUSE)
        return self.engine.count_tokens(texts)

    def title(self, document: Document) -> str:
        """The title of a document, as long as leaves room for headings below it."""
        longest = min(LONGEST_TITLE, self.settings.passage_tokens * 3 // 20)
        return title_of(document, lambda title: self.engine.count_tokens([title])[0] <= longest)


class _Lacking(Exception):
    """The store asks, within a transaction, for a title or spans that are not made yet."""

    def __init__(self, known: Document, new: Document) -> None:
        super().__init__()
        self.known, self.new = known, new


class Cuts:
    """The titles and spans that one document needs; each is made once, while no transaction is
    open.
    """

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor
        self._titles: dict[tuple[str, str | None, str], str] = {}
        self._spans: dict[Named, Sequence[Span]] = {}

    def of(self, document: Document) -> Sequence[Span]:
        """The passages of a document."""
        title = self._title(document)
        named = (document.text, title, rules_for(document.source))
        if named not in self._spans:
            self._spans[named] = self._ingestor.cut(document, title)
        return self._spans[named]

    def prepare(self, known: Document, new: Document) -> None:
        """Make what `within` needs for a known document that becomes another one."""
        if _may_be_cut_alike(known, new) and self._title(known) == self._title(new):
            return
        self.of(new)

    def within(self, write: Callable[[Recut], T]) -> T:
        """Call a write of the store with what cuts a known document that changes.

        Where that lacks something, the transaction is rolled back, and the write is called again
        when the missing part is made.
        """
        while True:
            try:
                return write(self._recut)
            except _Lacking as lacking:
                self.prepare(lacking.known, lacking.new)

    def _recut(self, known: Document, new: Document) -> Sequence[Span] | None:
        """The spans of a changed document; None where its passages stay. Raises _Lacking."""
        titles = [self._titles.get(_naming(document)) for document in (known, new)]
        is_alike = _may_be_cut_alike(known, new)
        if titles[1] is None or (is_alike and titles[0] is None):
            raise _Lacking(known, new)
        if is_alike and titles[0] == titles[1]:
            return None
        named = (new.text, titles[1], rules_for(new.source))
        if named not in self._spans:
            raise _Lacking(known, new)
        return self._spans[named]

    def _title(self, document: Document) -> str:
        naming = _naming(document)
        if naming not in self._titles:
            self._titles[naming] = self._ingestor.title(document)
        return self._titles[naming]


def _may_be_cut_alike(known: Document, new: Document) -> bool:
    """Whether two states of a document are cut alike where their titles are equal."""
    return known.text == new.text and rules_for(known.source) == rules_for(new.source)


def _naming(document: Document) -> tuple[str, str | None, str]:
    """What the title of a document is made of."""
    return document.text, document.source, repr(dict(document.metadata))


def _place(piece: Span | Passage) -> tuple[int, int, str]:
    return piece.start, piece.end, piece.heading


def check_moment(name: str, moment: datetime | None) -> None:
    """Raise InvalidDocument for what is no time with a time zone, nor None."""
    if moment is None:
        return
    if not isinstance(moment, datetime):
        raise InvalidDocument(f"{name}={moment!r:.60}: give a datetime with a time zone")
    if moment.tzinfo is None:
        raise InvalidDocument(
            f"{name}={moment} has no time zone: give one, for example tzinfo=timezone.utc"
        )


def document_of(given: Addable) -> Document:
    """What was given as a Document; a text that is the name of a file gets a warning."""
    if isinstance(given, Document):
        return given
    if not isinstance(given, str):
        return read_document(Path(given))
    if "\n" not in given and os.path.isfile(given):  # noqa: PTH113 - False, not an error, for what is too long for a name
        warnings.warn(
            f"{given!r} is remembered as a text; pathlib.Path({given!r}) stands for the file",
            stacklevel=3,
        )
    return Document(text=given)
