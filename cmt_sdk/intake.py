"""The single path in: documents are checked, cut, stored, and then compressed in batches. No torch, no SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from cmt_sdk.background import Worker
from cmt_sdk.config import Settings
from cmt_sdk.converting import check_text
from cmt_sdk.errors import InvalidDocument
from cmt_sdk.ports import Store
from cmt_sdk.recall import Engine, Recall
from cmt_sdk.splitting import split
from cmt_sdk.types import Document, Progress, Span

OnProgress = Callable[[Progress], None]
When = Literal["now", "background", "later"]  # compression follows at once, in a thread, or when it is needed
BATCH_PASSAGES = 16


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
        on_stored: Callable[[Document], None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Progress:
        """The single path in: text first, then memories, in batches."""
        progress = Progress()

        def step(**steps: int) -> None:
            nonlocal progress
            progress = progress.plus(**steps)
            if on_progress:
                on_progress(progress)

        def compress() -> None:
            self.recall.encode_pending(on_batch=lambda n: step(compressed=n))

        waiting = 0
        try:
            for document in documents:
                outcome, stored, passages = self._store_text(document, by_source=replace)
                waiting += passages
                step(**{outcome: 1, "passages": passages})
                if on_stored:
                    on_stored(stored)
                if when == "now" and waiting >= BATCH_PASSAGES:
                    compress()
                    waiting = 0
        finally:
            if waiting and when == "background":
                self.worker.nudge()
        if waiting and when == "now":
            compress()
        return progress

    def _store_text(self, document: Document, *, by_source: bool) -> tuple[str, Document, int]:
        """Store one document's text: what happened to it, the document as stored, and its new passages."""
        self.check(document)
        known = self.store.find(document.scope, document.source) if by_source and document.source else None
        if known is None:
            spans = self.cut(document.text)
            known, is_new = self.store.add(document, spans)
            if is_new:
                return "added", known, len(spans)
        elif known.text != document.text:
            spans = self.cut(document.text)
            return "updated", self.store.replace(replace(_with_fields(known, document), text=document.text), spans), len(spans)
        changed = _with_fields(known, document)
        return ("unchanged", known, 0) if changed == known else ("updated", self.store.replace(changed, None), 0)

    def check(self, document: Document) -> None:
        """The gate for a document that is to be remembered. Raises InvalidDocument."""
        check_text(document.text, self.settings.max_document_bytes, document.source or "the document")
        if document.expires_at is not None:
            _check_expiry(document.expires_at, self.store.now())

    def cut(self, text: str) -> list[Span]:
        """A text's passages."""
        return split(text, self.engine.count_tokens, self.settings.passage_tokens)


def _with_fields(known: Document, given: Document) -> Document:
    """The known document with what is said about it now; it keeps the source by which it is found."""
    return replace(
        known,
        source=known.source or given.source,
        metadata=given.metadata or known.metadata,
        expires_at=given.expires_at or known.expires_at,
    )


def _check_expiry(expires_at: datetime, now: datetime) -> None:
    if expires_at.tzinfo is None:
        raise InvalidDocument(f"expires_at={expires_at} has no time zone: give one, for example tzinfo=timezone.utc")
    if expires_at <= now:
        raise InvalidDocument(f"expires_at={expires_at} has passed: give a time that is to come")
