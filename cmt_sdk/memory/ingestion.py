"""Ingestor: checks documents, splits them, stores them, and has them compressed in batches.

Imports no torch and no SQL.
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
from typing import Any, Literal, TypeGuard, TypeVar

from cmt_sdk import archive
from cmt_sdk.config.settings import Settings
from cmt_sdk.converting import check_text
from cmt_sdk.encoding import PassageEncoder
from cmt_sdk.errors import InvalidDocument, InvalidInput
from cmt_sdk.ports import Engine, Split, Store
from cmt_sdk.system.background import Worker
from cmt_sdk.text.splitting import Rules, binary_parts, rules_for, split
from cmt_sdk.text.titles import title_of
from cmt_sdk.types import Document, Filter, Outcome, Passage, Progress, Span
from cmt_sdk.types.scopes import check_scope

log = logging.getLogger(__name__)

T = TypeVar("T")
Addable = Document | str | os.PathLike[str]
OnProgress = Callable[[Progress], None]
# when passages are compressed: at once, in a thread, or when they are needed
When = Literal["now", "background", "later"]
Named = tuple[str, str, Rules]  # a text, its title, and the splitting rules of its format
LONGEST_TITLE = 24  # tokens
PAGE = 200  # documents read together
LONGEST_PAUSE = 1.0  # seconds that splitting gives way to questions between two steps
BATCH_PASSAGES = 64  # passages from which compression starts: enough to find some of like length


@dataclass(frozen=True)
class Ingestor:
    """Adds documents to one memory."""

    store: Store
    engine: Engine
    passage_encoder: PassageEncoder
    worker: Worker
    settings: Settings

    def add(
        self,
        documents: Iterable[Document],
        when: When,
        *,
        by_source: bool = False,
        on_stored: Callable[[Document], None] = lambda _: None,
        on_progress: OnProgress | None = None,
    ) -> Progress:
        """Store documents one by one, and compress their passages in batches.

        Args:
            documents: any number of documents.
            when: when their passages are compressed.
            by_source: as in `Store.add`; the public calls name it `replace`.
            on_stored: called with each document as stored.
            on_progress: called after each step.

        Raises:
            InvalidInput: a document cannot be added; those before it are stored.
        """
        progress = Progress()

        def step(**steps: int) -> None:
            nonlocal progress
            progress = progress.plus(**steps)
            if on_progress:
                on_progress(progress)

        unready: list[str] = []  # ids of documents with pending passages
        passages = 0

        def compress() -> None:
            if unready and when == "now":
                self.passage_encoder.compress_backlog(
                    on_batch=lambda n: step(compressed=n), of=unready
                )
                unready.clear()

        try:
            for document in documents:
                stored, outcome, new = self._store_text(document, by_source=by_source)
                step(**{outcome: 1, "passages": new})
                on_stored(stored)
                if not stored.ready:
                    unready.append(stored.id)
                    passages += new
                if passages >= BATCH_PASSAGES:
                    compress()
                    passages = 0
        except InvalidInput:
            compress()  # what came before the document that cannot be added
            raise
        finally:
            if unready and when == "background":
                self.worker.wake()
        compress()
        return progress

    def add_together(self, documents: Sequence[Document], *, wait: bool) -> Progress:
        """Store documents in one transaction; compress them now (`wait`) or in the thread."""
        for document in documents:
            self.check(document)
        named = [replace(document, id=document.id or uuid.uuid4().hex) for document in documents]
        parts = [(document, self.split(document)) for document in named]
        self.store.add_together(parts)
        progress = Progress(added=len(parts), passages=sum(len(spans) for _, spans in parts))
        if not wait:
            self.worker.wake()
            return progress
        return progress.plus(
            compressed=self.passage_encoder.compress_backlog(of=[document.id for document in named])
        )

    def from_archive(
        self, path: Path, diverged: archive.Choice | None = None, *, trust: bool = False
    ) -> Iterator[Progress]:
        """Import an archive; see archive.read."""
        longest = self.settings.max_document_bytes
        seal = archive.seal_here(create=False)
        gate = archive.ArchiveImport(
            self.check_text, self.split, self.passage_encoder.accepts, longest, seal, trust
        )
        for progress in archive.read(self.store, path, gate, diverged):
            self.passage_encoder.hold_budget()
            yield progress

    def compress(
        self, on_progress: OnProgress | None = None, stop: Callable[[], bool] | None = None
    ) -> int:
        """Compress all pending passages, or until `stop()` between two batches; return how
        many.
        """
        progress = Progress()

        def batch_done(count: int) -> None:
            nonlocal progress
            progress = progress.plus(compressed=count)
            if on_progress:
                on_progress(progress)

        self.passage_encoder.hold_budget()  # it may be smaller than it was
        return self.passage_encoder.compress_backlog(on_batch=batch_done, stop=stop)

    def _store_text(self, document: Document, *, by_source: bool) -> tuple[Document, Outcome, int]:
        """Store one document's text in one write transaction.

        Returns:
            The document as stored, what happened to it, and how many of its passages are pending
            because of that: 0 for an unchanged document, though an earlier call may have left some.
        """
        self.check(document)
        known = self.store.find_known(document, by_source=by_source)
        if by_source and known.document is not None and known.document == known.merged:
            return known.document, "unchanged", 0
        splits = SplitCache(self)
        if known.document is None or known.document.text != document.text:
            _warn_of_binary(document)
        splits.prepare(known.document, known.merged or document)
        stored, outcome = splits.within(
            lambda split: self.store.add(document, by_source=by_source, split=split, known=known)
        )
        if outcome == "added":
            return stored, outcome, len(splits.of(document))
        if outcome == "unchanged" or stored.ready:
            return stored, outcome, 0
        pending = sum(not passage.ready for passage in self.store.passages_of(stored.id))
        return stored, outcome, pending

    def change(self, known: Document, changes: Mapping[str, Any]) -> Document:
        """Change fields of a stored document; return it as stored.

        Raises:
            InvalidDocument: a value cannot be stored.
            DocumentNotFound: the document was deleted meanwhile.
        """
        changed = replace(known, **changes)
        self.check(changed)
        splits = SplitCache(self)
        splits.prepare(known, changed)
        return splits.within(lambda split: self.store.replace(known.id, changes, split=split))

    def check(self, document: Document) -> None:
        """Raise InvalidDocument for a document that cannot be added."""
        self.check_text(document)
        for name in ("created_at", "expires_at"):
            check_moment(name, getattr(document, name))
        if document.expires_at is not None and document.expires_at <= self.store.now():
            raise InvalidDocument(
                f"expires_at={document.expires_at} has passed: give a time in the future"
            )

    def check_text(self, document: Document) -> None:
        """Raise InvalidDocument for a text, scope or metadata that cannot be stored. A document
        from an archive can have expired, so times are not checked.
        """
        check_text(
            document.text, self.settings.max_document_bytes, document.source or "the document"
        )
        check_scope(document.scope)
        if not isinstance(document.metadata, Mapping):
            raise InvalidDocument(
                f"metadata={document.metadata!r:.60}: give a dict of names and plain values"
            )

    def split_missing(self) -> None:
        """Split the documents that lost passages to damage."""
        for document in self.store.documents_without_passages():
            self.store.replace_passages(document, self.split(document))

    def split_outdated(self) -> None:
        """Split every current document again whose passages earlier rules, settings or titles made.

        Each document is one transaction: after an interruption all can be read and searched.
        """
        cursor: str | None = None
        while True:
            page = self.store.page(Filter(), PAGE, cursor)
            for document in page.documents:
                spans = self.split(document)
                passages = self.store.passages_of(document.id)
                if list(map(_place, spans)) != list(map(_place, passages)):
                    self.store.replace_passages(document, spans)
            cursor = page.next_cursor
            if cursor is None:
                return

    def split(self, document: Document, title: str | None = None) -> list[Span]:
        """Return the passages of a document.

        Questions of other threads go first: this runs while no transaction is open.

        Args:
            document: the document.
            title: its title, where it is known already.
        """
        title = self.title(document) if title is None else title
        budget = self.settings.passage_tokens
        rules = rules_for(document.source)
        return split(document.text, self._count_after_others, budget, title=title, rules=rules)

    def _count_after_others(self, texts: Sequence[str]) -> list[int]:
        self.passage_encoder.lock.give_way(LONGEST_PAUSE)
        return self.engine.count_tokens(texts)

    def title(self, document: Document) -> str:
        """Return the title of a document, short enough to leave room for headings below it."""
        longest = min(LONGEST_TITLE, self.settings.passage_tokens * 3 // 20)
        return title_of(document, lambda title: self.engine.count_tokens([title])[0] <= longest)


class _Missing(Exception):
    """Raised inside a transaction where a title or spans are needed that are not made yet."""

    def __init__(self, known: Document | None, new: Document) -> None:
        super().__init__()
        self.known = known
        self.new = new


class SplitCache:
    """The titles and passages that one document needs. Each is made once, while no transaction is
    open: both count tokens, which takes long.
    """

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor
        self._titles: dict[tuple[str, str | None, str], str] = {}
        self._spans: dict[Named, Sequence[Span]] = {}

    def of(self, document: Document) -> Sequence[Span]:
        """Return the passages of a document."""
        title = self._title(document)
        named = (document.text, title, rules_for(document.source))
        if named not in self._spans:
            self._spans[named] = self._ingestor.split(document, title)
        return self._spans[named]

    def prepare(self, known: Document | None, new: Document) -> None:
        """Make what `within` needs for a new document, or for a known one that becomes `new`."""
        if known == new:
            return
        if _may_split_alike(known, new) and self._title(known) == self._title(new):
            return
        self.of(new)

    def within(self, write: Callable[[Split], T]) -> T:
        """Call a write of the store with a function that gives passages.

        Where a part is missing, because another process changed the document since `prepare`, the
        transaction is rolled back, the part is made, and the write is called again.
        """
        while True:
            try:
                return write(self._split)
            except _Missing as missing:
                self.prepare(missing.known, missing.new)

    def _split(self, known: Document | None, new: Document) -> Sequence[Span] | None:
        """Return the passages of a document; None where those of the known one stay.

        Raises:
            _Missing: they are not made yet.
        """
        if known == new:
            return None
        title = self._titles.get(_naming(new))
        if title is None:
            raise _Missing(known, new)
        if _may_split_alike(known, new):
            before = self._titles.get(_naming(known))
            if before is None:
                raise _Missing(known, new)
            if before == title:
                return None
        named = (new.text, title, rules_for(new.source))
        if named not in self._spans:
            raise _Missing(known, new)
        return self._spans[named]

    def _title(self, document: Document) -> str:
        naming = _naming(document)
        if naming not in self._titles:
            self._titles[naming] = self._ingestor.title(document)
        return self._titles[naming]


def _may_split_alike(known: Document | None, new: Document) -> TypeGuard[Document]:
    """Return whether a known document has the passages of `new` where their titles are equal."""
    return (
        known is not None
        and known.text == new.text
        and rules_for(known.source) == rules_for(new.source)
    )


def _warn_of_binary(document: Document) -> None:
    """Warn of the parts of a file's text that splitting leaves out."""
    if document.source and (
        binary := sum(end - start for start, end in binary_parts(document.text))
    ):
        log.warning(
            "%s: %s characters of binary data are in no passage", document.source, f"{binary:,}"
        )


def _naming(document: Document) -> tuple[str, str | None, str]:
    """Return the fields that a document's title depends on."""
    return document.text, document.source, repr(dict(document.metadata))


def _place(piece: Span | Passage) -> tuple[int, int, str]:
    return piece.start, piece.end, piece.heading


def check_moment(name: str, moment: datetime | None) -> None:
    """Raise InvalidDocument for a value that is neither None nor a time with a time zone."""
    if moment is None:
        return
    if not isinstance(moment, datetime):
        raise InvalidDocument(f"{name}={moment!r:.60}: give a datetime with a time zone")
    if moment.tzinfo is None:
        raise InvalidDocument(
            f"{name}={moment} has no time zone: give one, for example tzinfo=timezone.utc"
        )


def document_of(given: Addable) -> Document:
    """Return a text, path or Document as a Document; warn of a text that is the name of a file."""
    if isinstance(given, Document):
        return given
    if not isinstance(given, str):
        from cmt_sdk.converting import read_document  # many formats, with what they need

        return read_document(Path(given))
    if "\n" not in given and os.path.isfile(given):  # noqa: PTH113 - False, not an error, for what is too long for a name
        warnings.warn(
            f"{given!r} is remembered as a text; pathlib.Path({given!r}) stands for the file",
            stacklevel=3,
        )
    return Document(text=given)
