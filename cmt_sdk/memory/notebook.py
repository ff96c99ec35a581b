"""The notes of a conversation in a memory: keep statements in its scope, find and erase them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from cmt_sdk.retrieval.context import shortened
from cmt_sdk.retrieval.question import LONGEST_QUESTION
from cmt_sdk.types import DAYS, Document, Intent, Match, Progress, Receipt, SearchMode
from cmt_sdk.understanding.days import days_meant

SOURCE = "chat"
FROM_USER = {"role": "user"}  # metadata of people's statements
AMONG = 50  # passages among which a request to forget finds the notes that it means
# Of 28 requests that mean a note, the passage after which the model expects the request most is
# that note in 28, the nearest by cosine in 26. Its cosine is at least NEAR in 27; the last one
# shares words with the request. Of two requests that mean no note one finds none.
NEAR = 0.25  # cosine
WORDS = 1.0  # BM25
PATIENCE = 20.0  # seconds to wait for the background compression

NEIGHBOURS = 5  # nearest passages that may state an older value of the same thing


class MemoryCalls(Protocol):
    """The calls of a memory that it needs; see `Memory`."""

    def understand(self, text: str) -> Intent:
        """What a message wants."""

    def add(self, document: Document) -> Document:
        """Remember a text; returns it as stored."""

    def add_many(self, documents: Sequence[Document]) -> Progress:
        """Remember texts; returns how many were new."""

    def documents(
        self, *, scope: str | None, source: str, where: Mapping[str, Any]
    ) -> Iterator[Document]:
        """The documents that fit."""

    def search(
        self,
        query: str,
        k: int,
        *,
        mode: SearchMode,
        scope: str | None,
        where: Mapping[str, Any],
    ) -> Sequence[Match]:
        """The passages that fit."""

    def superseded(self, text: str, k: int, *, scope: str | None) -> Sequence[Match]:
        """Passages that say an older value of what a text says."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the background compression."""

    def forget(self, id: str) -> Receipt:  # noqa: A002 - the word users know
        """Erase a document."""


@dataclass(frozen=True)
class Notebook:
    """A memory as a conversation in `scope` uses it."""

    memory: MemoryCalls
    scope: str = ""

    def understand(self, text: str) -> Intent:
        """What a message wants."""
        return self.memory.understand(text)

    def keep(self, text: str) -> tuple[Document, Sequence[Document], bool]:
        """Remember a statement; returns it as stored, the documents that it replaces, and whether
        it was new.

        The same text is one document, however often it is sent. It is compressed before this
        returns: the next question, which may share no word with it, finds it by its meaning. The
        days that its words mean ("yesterday") are kept with it.
        """
        metadata = dict(FROM_USER)
        if days := days_meant(text, dt.datetime.now().astimezone().date()):
            metadata[DAYS] = "; ".join(map(str, days))
        note = Document(text, scope=self.scope, source=SOURCE, metadata=metadata)
        added = self.memory.add_many([note]).added
        kept = self.memory.add(note)  # adds nothing: for a known text, `add` returns its document
        older = [
            m.document for m in self.memory.superseded(text, NEIGHBOURS, scope=self.scope or None)
        ]
        replaced = [d for d in older if d.scope == self.scope and d.id != kept.id]
        return kept, replaced, added > 0

    def notes(self) -> Sequence[Document]:
        """What conversations have kept in this very scope, oldest first."""
        found = self.memory.documents(scope=self.scope or None, source=SOURCE, where=FROM_USER)
        return [document for document in found if document.scope == self.scope]

    def concerned(self, request: str) -> Sequence[Document]:
        """The notes of this very scope that a request to forget concerns.

        These are the one that it means, and those that state another value of the same thing.
        """
        self.memory.wait(PATIENCE)  # a note of a moment ago is found by its meaning too
        query = shortened(request, LONGEST_QUESTION)
        found = self.memory.search(
            query, AMONG, mode="reranked", scope=self.scope or None, where=FROM_USER
        )
        own = [m for m in found if m.document.scope == self.scope and m.document.source == SOURCE]
        meant = max(own, key=_likelihood, default=None)
        if meant is None or not (_cosine(meant) >= NEAR or (meant.text_score or 0.0) >= WORDS):
            return []
        older = self._older_than(meant)
        also = [m for m in own[:NEIGHBOURS] if m.passage.id in older or self._is_newer(m, meant)]
        return list({m.document.id: m.document for m in (meant, *also)}.values())

    def _is_newer(self, one: Match, other: Match) -> bool:
        return one is not other and other.passage.id in self._older_than(one)

    def _older_than(self, match: Match) -> list[int]:
        """The passages that state an older value of what a passage states."""
        found = self.memory.superseded(match.passage.text, NEIGHBOURS, scope=self.scope or None)
        return [m.passage.id for m in found]

    def erase(self, documents: Sequence[Document]) -> Sequence[Receipt]:
        """Forget documents, with their receipts."""
        return [self.memory.forget(document.id) for document in documents]


def _likelihood(match: Match) -> float:
    return -inf if match.likelihood is None else match.likelihood


def _cosine(match: Match) -> float:
    return match.vector_score or 0.0
