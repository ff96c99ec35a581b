"""The single path in: documents are checked, cut, stored, and then compressed in batches. No torch, no SQL."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from cmt_sdk import archive
from cmt_sdk.background import Worker
from cmt_sdk.config import Settings
from cmt_sdk.converting import check_text, read_document
from cmt_sdk.errors import InvalidDocument, InvalidInput
from cmt_sdk.ports import Recut, Store
from cmt_sdk.recall import Engine, Recall
from cmt_sdk.splitting import Rules, binary_parts, rules_for, split
from cmt_sdk.titles import title_of
from cmt_sdk.types import Document, Filter, Outcome, Passage, Progress, Span

log = logging.getLogger(__name__)

Addable = Document | str | os.PathLike[str]
OnProgress = Callable[[Progress], None]
When = Literal["now", "background", "later"]  # compression follows at once, in a thread, or when it is needed
Named = tuple[str, str, Rules]  # a text, its title, and the rules of its format
LONGEST_TITLE = 24  # tokens
PAGE = 200  # documents read together
LONGEST_PAUSE = 1.0  # seconds for questions between two steps of cutting
BATCH_PASSAGES = 64  # enough to find passages of like length


@dataclass(frozen=True)
class Intake:
    """Takes documents in for one memory."""

    store: Store
    engine: Engine
    recall: Recall
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
                self.recall.encode_pending(on_batch=lambda n: step(compressed=n), of=waiting)
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
                self.worker.nudge()
        compress()
        return progress

    def from_archive(self, path: Path, diverged: archive.Choice | None = None) -> Iterator[Progress]:
        """Take in what an archive holds; see archive.read."""
        gate = archive.Intake(self.check_text, self.cut, self.recall.accepts, self.settings.max_document_bytes)
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

        return self.recall.encode_pending(on_batch=batch_done)

    def _store_text(self, document: Document, *, by_source: bool) -> tuple[Document, Outcome, int]:
        """Store one document's text: the document as stored, what happened to it, and its new passages."""
        self.check(document)
        again = self.store.add_again(document, by_source=by_source, recut=self.recutting())
        if again is None:
            spans = self.cut(document)
            if binary := sum(end - start for start, end in binary_parts(document.text)):
                name = document.source or "a text"
                log.warning("%s: %s characters of binary data are in no passage", name, f"{binary:,}")
            ready = {self._named(document): spans}
            again = self.store.add(document, spans, by_source=by_source, recut=self.recutting(ready))
        stored, outcome = again
        return stored, outcome, 0 if outcome == "unchanged" else self.store.waiting(stored.id)

    def recutting(self, ready: Mapping[Named, Sequence[Span]] | None = None) -> Recut:
        """What cuts a known document that changes, for the store.

        Args:
            ready: spans that were cut while no transaction was open, by text and title.
        """
        done = ready or {}

        def recut(known: Document, new: Document) -> Sequence[Span] | None:
            named = self._named(new)
            if named == self._named(known):
                return None
            return done[named] if named in done else self.cut(new)

        return recut

    def changing(self, known: Document, new: Document) -> Recut:
        """As `recutting`, for a change that is known before the store is asked for it."""
        named = self._named(new)
        return self.recutting({} if named == self._named(known) else {named: self.cut(new)})

    def check(self, document: Document) -> None:
        """The gate for a document that is to be remembered. Raises InvalidDocument."""
        self.check_text(document)
        for name in ("created_at", "expires_at"):
            check_moment(name, getattr(document, name))
        if document.expires_at is not None and document.expires_at <= self.store.now():
            raise InvalidDocument(f"expires_at={document.expires_at} has passed: give a time that is to come")

    def check_text(self, document: Document) -> None:
        """The gate for a document out of an archive, which may have expired since. Raises InvalidDocument."""
        check_text(document.text, self.settings.max_document_bytes, document.source or "the document")
        check_scope(document.scope)
        if not isinstance(document.metadata, Mapping):
            raise InvalidDocument(f"metadata={document.metadata!r:.60}: give a dict of names and plain values")

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

    def cut(self, document: Document) -> list[Span]:
        """The passages of a document, under its title."""
        title, budget = self._title(document), self.settings.passage_tokens
        rules = rules_for(document.source)
        return split(document.text, self._count_tokens, budget, title=title, rules=rules)

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; a question that comes while a document is cut goes first."""
        self.recall.lock.give_way(LONGEST_PAUSE)
        return self.engine.count_tokens(texts)

    def _title(self, document: Document) -> str:
        """The title of a document, as long as leaves room for headings below it."""
        longest = min(LONGEST_TITLE, self.settings.passage_tokens * 3 // 20)
        return title_of(document, lambda title: self.engine.count_tokens([title])[0] <= longest)

    def _named(self, document: Document) -> Named:
        """What decides how a document is cut."""
        return document.text, self._title(document), rules_for(document.source)


def _place(piece: Span | Passage) -> tuple[int, int, str]:
    return piece.start, piece.end, piece.heading


def check_scope(scope: str) -> None:
    """Raise InvalidDocument for a scope that is no path of names."""
    if not isinstance(scope, str) or (scope and {"", ".", ".."} & set(scope.split("/"))):
        raise InvalidDocument(f"scope {scope!r:.60}: give names with a slash between them, such as user/ann")


def check_moment(name: str, moment: datetime | None) -> None:
    """Raise InvalidDocument for what is no time with a time zone, nor None."""
    if moment is None:
        return
    if not isinstance(moment, datetime):
        raise InvalidDocument(f"{name}={moment!r:.60}: give a datetime with a time zone")
    if moment.tzinfo is None:
        raise InvalidDocument(f"{name}={moment} has no time zone: give one, for example tzinfo=timezone.utc")


def document_of(given: Addable) -> Document:
    """What was given as a Document; a text that is the name of a file gets a warning."""
    if isinstance(given, Document):
        return given
    if not isinstance(given, str):
        return read_document(Path(given))
    if "\n" not in given and os.path.isfile(given):  # noqa: PTH113 - False, not an error, for what is too long for a name
        warnings.warn(f"{given!r} is remembered as a text; pathlib.Path({given!r}) stands for the file", stacklevel=3)
    return Document(text=given)
