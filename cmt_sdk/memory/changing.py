"""Changing: documents are added, updated and taken out. No torch, no SQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace as changed
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cmt_sdk.answering.asking import lists_parameters
from cmt_sdk.errors import DocumentNotFound, StorageDenied
from cmt_sdk.memory.lookup import Lookup
from cmt_sdk.types import UNCHANGED, Document, Filter, Metadata, Progress, Unchanged

if TYPE_CHECKING:
    from cmt_sdk.memory.ingestion import Addable, OnProgress, When


class Changing(Lookup):
    """The calls that write documents."""

    def add(
        self,
        document: Addable,
        *,
        id: str = "",  # noqa: A002 - the word users know
        source: str | None = None,
        scope: str = "",
        metadata: Metadata | None = None,
        expires_at: datetime | None = None,
        wait: bool = True,
    ) -> Document:
        """Remember a text, a file or a Document. The text is durable when this returns.

        The same text in the same scope is one document, unless another `id` is given. The stored
        document is returned then. The given fields replace its own, metadata key by key; its
        source stays.

        Args:
            document: A text (`str`), a file (`pathlib.Path`) or a Document.
            id: A name for it; by default one is generated.
            source: Where it is from, such as "trip.md".
            scope: A path of names, such as "user/ann".
            metadata: Names and plain values.
            expires_at: When it stops being remembered, with a time zone.
            wait: False lets compression follow in the background, also that of other pending
                passages.

        Returns:
            The Document as it is stored.

        Raises:
            InvalidDocument: Empty, binary or too large; a bad scope or time.
            AlreadyExists: The id belongs to another text.
            StorageError: The disk or the database refused.

        Example:
            >>> memory.add("The museum moved to Lisbon in 2019.", source="trip.md").version
            1
        """
        from cmt_sdk.memory.ingestion import document_of

        given: dict[str, Any] = {
            "id": id,
            "source": source,
            "scope": scope,
            "metadata": metadata,
            "expires_at": expires_at,
        }
        filled = {name: value for name, value in given.items() if value}
        stored: list[Document] = []
        self._ingestor.add(
            [changed(document_of(document), **filled)],
            "now" if wait else "background",
            on_stored=stored.append,
        )
        # Left over from a crash or compress=False; do not block this caller on it.
        if wait and self._store.pending(1):
            self._worker.wake()
        return self._as_it_is(stored[0])

    def add_many(
        self,
        documents: Iterable[Addable],
        *,
        replace: bool = False,
        wait: bool = True,
        compress: bool = True,
        on_progress: OnProgress | None = None,
    ) -> Progress:
        """Remember a stream of documents of any length.

        It stops at the first document that cannot be added; the documents before it are stored.

        Args:
            documents: Texts, files or Documents.
            replace: True identifies a document by its source and scope: a new text becomes its
                next version, and two sources with one text are two documents. A
                Document with the `id` of a stored one takes its place, source and text, as a file
                that was moved does.
            wait: False lets compression follow in the background.
            compress: False stores the text alone; it is found by words, and compressed when it is
                needed or by `compress`.
            on_progress: Called with the Progress after every step.

        Raises:
            InvalidDocument: A document that cannot be added.
            AlreadyExists: An id belongs to another text.
            StorageError: The disk or the database refused.
        """
        if isinstance(documents, str | bytes | Document | os.PathLike):
            raise TypeError("add_many() takes several documents: for one there is add()")
        from cmt_sdk.memory.ingestion import document_of

        given = (document_of(d) for d in documents)
        when: When = "later" if not compress else "now" if wait else "background"
        return self._ingestor.add(given, when, by_source=replace, on_progress=on_progress)

    def add_together(self, documents: Sequence[Document], *, wait: bool = True) -> Progress:
        """Remember all of these documents or, if one cannot be added or the process dies, none.

        Each becomes a document of its own, even if its text is stored already.

        Raises:
            InvalidDocument: A document that cannot be added.
            AlreadyExists: An id is taken.
        """
        return self._ingestor.add_together(documents, wait=wait)

    def compress(
        self, on_progress: OnProgress | None = None, *, stop: Callable[[], bool] | None = None
    ) -> int:
        """Compress all pending passages now, also those that a crash left.

        Args:
            on_progress: Called after each batch.
            stop: Called between two batches; True ends the work early.

        Returns:
            The number of passages.
        """
        return self._ingestor.compress(on_progress, stop)

    @property
    def cold_read(self) -> Sequence[int]:
        """The ids of the passages that answers read from their text, under `memory_budget`, and
        that are not compressed yet; also of a memory that was closed before.
        """
        return self._passage_encoder.cold_read

    def compress_cold(self, passage_ids: Sequence[int]) -> None:
        """Compress cold passages in the background, as it follows an answer that read them, once no
        question was asked for a second.

        For a program that opens a memory for each question: a later opening compresses the
        `cold_read` of an earlier one.

        Args:
            passage_ids: The passages; those that are compressed or were taken out are left out.

        Raises:
            StorageDenied: The memory is read-only.
        """
        if self.read_only:
            raise StorageDenied(f"{self.location} is read-only: nothing can be compressed there")
        with self._passage_encoder.lock:
            self._passage_encoder.note_cold(passage_ids)
        self._worker.wake(self._passage_encoder.compress_cold)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the background compression, and raise what it raised.

        Args:
            timeout: Seconds; None waits without a limit.

        Returns:
            False if `timeout` passed first.
        """
        return self._worker.wait(timeout)

    @lists_parameters
    def update(
        self,
        id: str,  # noqa: A002
        text: str | None = None,
        *,
        source: str | Unchanged | None = UNCHANGED,
        scope: str | Unchanged = UNCHANGED,
        metadata: Metadata | Unchanged = UNCHANGED,
        expires_at: datetime | Unchanged | None = UNCHANGED,
        wait: bool = True,
    ) -> Document:
        """Store the next version of a document. The old one stops answering at once and stays in
        `history` until it is forgotten.

        Args:
            id: The document.
            text: The new text; None changes the other fields in place, without a new version.
            source: Where it is from; None for no source.
            scope: A path of names, such as "user/ann".
            metadata: All of its metadata.
            expires_at: When it stops being remembered; None for never.
            wait: False lets compression follow in the background.

        Returns:
            The Document as it is stored.

        Raises:
            DocumentNotFound: No current document has this id.
            InvalidDocument: A text or field that cannot be stored.
        """
        given: dict[str, Any] = {
            "text": UNCHANGED if text is None else text,
            "source": source,
            "scope": scope,
            "metadata": metadata,
            "expires_at": expires_at,
        }
        changes = {name: value for name, value in given.items() if value is not UNCHANGED}
        stored = self._ingestor.change(self.get(id), changes)
        if stored.ready:
            return stored
        if not wait:
            self._worker.wake()
            return stored
        self._passage_encoder.compress_backlog(of=[id])
        return self._as_it_is(stored)

    def delete(self, id: str) -> Document:  # noqa: A002
        """Take a document out, with its history; returns it as it was.

        Words of it may stay in the files until something is forgotten: use `forget` where they
        must not.

        Raises:
            DocumentNotFound: No current document has this id.
        """
        document = self.get(id)
        self._store.delete(Filter(ids=[id]))
        return document

    def _as_it_is(self, stored: Document) -> Document:
        try:
            return self.get(stored.id)
        except DocumentNotFound:  # another thread or process took it out in this moment
            return stored
