"""What a conversation does with a memory: keep what was told in its scope, find and erase it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cmt_sdk.types import Document, Intent, Match, Metadata, Receipt, SearchMode

SOURCE = "chat"
SAID = {"role": "user"}  # metadata of what people told
AMONG = 50  # passages among which is looked for what a request to forget concerns
# Cosine from which a passage may be what is to be forgotten, and its least share of the best one's.
# Of eleven requests with the default model what seven of them meant lay at 0.43 and above, all else
# below 0.6 of it; of the four that meant nothing there or said it otherwise, two found a neighbour
# (0.45), which the question then names.
NEAR, SHARE = 0.4, 0.6
PATIENCE = 20.0  # seconds for what is being compressed in the background

NEIGHBOURS = 5  # passages nearest to what was told that may say an older value of the same


class Keeping(Protocol):
    """What is needed of a memory; see `Memory`."""

    def understand(self, text: str) -> Intent:
        """What a message wants."""

    def add(
        self, document: str, *, source: str, scope: str, metadata: Metadata, wait: bool
    ) -> Document:
        """Remember a text."""

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

    memory: Keeping
    scope: str = ""

    def understand(self, text: str) -> Intent:
        """What a message wants."""
        return self.memory.understand(text)

    def keep(self, text: str) -> tuple[Document, Sequence[Document]]:
        """Remember what was told; returns it as stored, and what it takes the place of.

        The same text is one document, however often it is sent. It is compressed before this
        returns: the next question, which may share no word with it, finds it by its meaning.
        """
        kept = self.memory.add(text, scope=self.scope, source=SOURCE, metadata=SAID, wait=True)
        older = [
            m.document for m in self.memory.superseded(text, NEIGHBOURS, scope=self.scope or None)
        ]
        return kept, [d for d in older if d.scope == self.scope and d.id != kept.id]

    def concerned(self, request: str) -> Sequence[Document]:
        """What people told in this very scope that a request to forget concerns, nearest first."""
        self.memory.wait(PATIENCE)  # what was told a moment ago is found by its meaning too
        found = self.memory.search(
            request, AMONG, mode="vector", scope=self.scope or None, where=SAID
        )
        own = [m for m in found if m.document.scope == self.scope and m.document.source == SOURCE]
        nearest = max([m.vector_score or 0.0 for m in own], default=0.0)
        least = max(NEAR, SHARE * nearest)
        return list(
            {m.document.id: m.document for m in own if (m.vector_score or 0.0) >= least}.values()
        )

    def erase(self, documents: Sequence[Document]) -> Sequence[Receipt]:
        """Forget documents, with their receipts."""
        return [self.memory.forget(document.id) for document in documents]
