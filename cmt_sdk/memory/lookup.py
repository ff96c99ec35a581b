"""Looking: documents by id and by filter, passages by a query, the memory in numbers. No torch, no
SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from cmt_sdk.answering.asking import filter_of
from cmt_sdk.errors import DocumentNotFound
from cmt_sdk.memory.core import Core
from cmt_sdk.retrieval.context import QUERY, shortened
from cmt_sdk.retrieval.question import LONGEST_QUESTION
from cmt_sdk.types import (
    Document,
    Filter,
    Fingerprint,
    Match,
    Page,
    Passage,
    SearchMode,
    Stats,
    Turn,
    Vector,
    Where,
)
from cmt_sdk.types.vectors import Embeddings

PAGE = 200  # documents that `documents` reads at once
WIDER = 4  # times as many passages are searched while they are of too few documents


class Lookup(Core):
    """The calls that read a memory."""

    def get(self, id: str) -> Document:  # noqa: A002 - the word users know
        """The current version of a document.

        Raises:
            DocumentNotFound: No current document has this id.
        """
        page = self._store.page(Filter(ids=[id]), 1, None)
        if not page.documents:
            raise DocumentNotFound.of(id)
        return page.documents[0]

    def history(self, id: str) -> Sequence[Document]:  # noqa: A002
        """Every version of a document, oldest first.

        Raises:
            DocumentNotFound: No document has this id.
        """
        versions = self._store.history(id)
        if not versions:
            raise DocumentNotFound.of(id)
        return versions

    def passages(self, id: str) -> Sequence[Passage]:  # noqa: A002
        """The passages of a document's current version, in order.

        Raises:
            DocumentNotFound: No current document has this id.
        """
        return self._store.passages_of(self.get(id).id)

    def list(
        self,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Where | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """One page of the current documents, in order of creation; `documents` iterates all.

        Args:
            scope: Only this scope, with everything beneath it.
            source: Only this source; * is a wildcard.
            where: Conditions on metadata; see `Filter`.
            limit: Documents per page.
            cursor: `next_cursor` of the page before; None for the first page.

        Returns:
            A Page, iterable for its documents; its `next_cursor` is None on the last one.

        Raises:
            InvalidFilter: A condition that cannot be asked for.
        """
        return self._store.page(filter_of(scope, source, where), limit, cursor)

    def documents(
        self,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Where | None = None,
    ) -> Iterator[Document]:
        """All current documents that fit, one by one; conditions as for `list`."""
        cursor: str | None = None
        while True:
            page = self._store.page(filter_of(scope, source, where), PAGE, cursor)
            yield from page.documents
            cursor = page.next_cursor
            if cursor is None:
                return

    def ids(self, prefix: str = "") -> Sequence[str]:
        """The ids of current documents that begin with `prefix`."""
        return self._store.ids(prefix)

    def count(
        self,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Where | None = None,
    ) -> int:
        """The number of current documents that fit; conditions as for `list`."""
        return self._store.count(filter_of(scope, source, where))

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        mode: SearchMode = "fused",
        per_document: bool = False,
        history: Sequence[Turn] | None = None,
        scope: str | None = None,
        source: str | None = None,
        where: Where | None = None,
    ) -> Sequence[Match]:
        """The k best passages, best first.

        Except in mode "text", a passage that a newer one among them supersedes is marked so, and
        comes after it.

        Args:
            query: A question or some words, at most 20,000 characters.
            k: Passages to find.
            mode: "fused" ranks by meaning and words; "reranked" then lets the model read the query
                after the compressed form of each of the first few, as `ask` does; "vector" ranks by
                meaning; "text" by words, which needs no model.
            per_document: True finds the k best documents, each with its best passage.
            history: The turns before the query, even none: the query is then a message of a
                conversation, is searched by itself and after earlier turns, and is ranked as `ask`
                does. `mode` is not used then.
            scope: Only this scope, with everything beneath it.
            source: Only this source; * is a wildcard.
            where: Conditions on metadata; see `Filter`.

        Raises:
            InvalidInput: An empty or too long query, k below 1, an unknown mode, a bad filter.
            ModelMismatch: Another model than the one that is open made the compressed passages.
        """
        filter = filter_of(scope, source, where)
        supersession = self._retriever.supersession

        def find(count: int) -> Sequence[Match]:
            if history is not None:
                found = self._retriever.search_after(query, history, count, filter)
                return supersession.choose_by_time(shortened(query, QUERY), found)
            found = self._retriever.search(query, count, filter, mode)
            return found if mode == "text" else supersession.choose_by_time(query, found)

        return _best_of_each(find, k) if per_document else find(k)

    def superseded(self, text: str, k: int = 5, *, scope: str | None = None) -> Sequence[Match]:
        """Of the k passages nearest to a new text, those that hold an older value of what it says.

        The model judges, without a question. Empty for models that no probe is shipped for. Of a
        text of more than 20,000 characters the middle is left out.
        """
        text = shortened(text, LONGEST_QUESTION)
        return self._retriever.supersession.superseded(
            text, self._retriever.search(text, k, filter_of(scope, None, None), "fused")
        )

    def nearest(
        self,
        vector: Vector,
        k: int = 5,
        *,
        per_document: bool = False,
        scope: str | None = None,
        source: str | None = None,
        where: Where | None = None,
    ) -> Sequence[Match]:
        """The k passages nearest to a vector of `model.embed`, by cosine, nearest first.

        Args:
            vector: Float32 [dimension].
            k: Passages to find.
            per_document: True finds the k nearest documents, each with its nearest passage.
            scope: Only this scope, with everything beneath it.
            source: Only this source; * is a wildcard.
            where: Conditions on metadata; see `Filter`.

        Raises:
            InvalidInput: k below 1, or a bad filter.
        """
        filter = filter_of(scope, source, where)

        def find(count: int) -> Sequence[Match]:
            return self._retriever.nearest(vector, count, filter)

        return _best_of_each(find, k) if per_document else find(k)

    def embeddings(
        self,
        *,
        scope: str | None = None,
        source: str | None = None,
        where: Where | None = None,
    ) -> Embeddings:
        """The embeddings of the passages that fit; conditions as for `list`.

        A pending passage has none. Loads no model.
        """
        return self._store.embeddings(filter_of(scope, source, where))

    def stats(self) -> Stats:
        """The memory in numbers."""
        return replace(self._store.stats(), index=self._index.describe(), model=self.settings.model)

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes the compressed passages here: weights, quantisation, tokenizer, adapters,
        settings. Loads the model.
        """
        return self._passage_encoder.fingerprint


def _best_of_each(find: Callable[[int], Sequence[Match]], k: int) -> Sequence[Match]:
    """The best passage of each of the k best documents; more passages are searched while several
    are of one document.
    """
    wanted = k
    while True:
        matches = find(wanted)
        best: dict[str, Match] = {}
        for match in matches:
            best.setdefault(match.document.id, match)
        if len(best) >= k or len(matches) < wanted:
            return list(best.values())[:k]
        wanted *= WIDER
