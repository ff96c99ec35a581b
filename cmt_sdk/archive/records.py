"""The records that an archive holds, as a stream: documents with their versions, then compressed
passages. An archive is one end of such a stream, a store another. Knows the store's port, no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from cmt_sdk.archive.layout import SHARD_BYTES, digest
from cmt_sdk.errors import StorageLocked
from cmt_sdk.ports import Store
from cmt_sdk.types import Document, Encoded, Filter, Fingerprint, Passage, Span

PAGE = 200  # documents per page
BATCH = 64  # compressed passages loaded at once

# the contents (SHA-256) of a document's passages that are wanted, by its id; None wants all
Wanted: TypeAlias = Callable[[str], Collection[str] | None]


@dataclass(frozen=True, slots=True)
class ArchivedPassage:
    """A compressed passage from an archive or another store.

    Attributes:
        document: the id of its document there.
        content: the SHA-256 of the passage that it was made of, as the archive claims.
        seal: what can prove that claim.
    """

    document: str
    content: str
    fingerprint: Fingerprint
    encoded: Encoded
    seal: str = ""

    @property
    def hash(self) -> str:
        """The SHA-256 of all that is stored of it."""
        return encoding_hash(self.encoded, self.fingerprint)


def encoding_hash(encoded: Encoded, fingerprint: Fingerprint) -> str:
    """Return the SHA-256 of a compressed passage with its embedding, its fidelity and what made
    it, 64 hexadecimal digits.
    """
    memory = encoded.compressed
    header = (fingerprint.id, memory.kind, memory.tokens, encoded.fidelity)
    made = hashlib.sha256(repr(header).encode())
    for name, array in (("", encoded.embedding), *sorted(memory.arrays.items())):
        little = np.asarray(array, array.dtype.newbyteorder("<"))
        made.update(repr((name, little.dtype.str, little.shape)).encode())
        made.update(little.tobytes())
    return made.hexdigest()


class Records(Protocol):
    """The records of an archive or a store."""

    def check(self) -> None:
        """Raise StorageDamaged where what was not read yet cannot be read."""

    def documents(self) -> Iterator[list[Document]]:
        """Yield the versions of one document after another, oldest first."""

    def spans(self, document: Document) -> Sequence[Span] | None:
        """Return the passages of a current version; None where they are not recorded."""

    def shards(self, wanted: Wanted) -> Iterator[Iterable[ArchivedPassage]]:
        """Yield compressed passages, some MB at a time, at least those that are wanted. Those of
        one document follow each other.
        """


class StoreRecords:
    """The records of a store. Expired documents are left out.

    With `split` False, the passages of documents are those that another memory's rules make.
    """

    def __init__(self, store: Store, *, split: bool = True) -> None:
        self._store = store
        self._split = split

    def check(self) -> None:
        """Do nothing: a store is read as it is needed."""

    def documents(self) -> Iterator[list[Document]]:
        """Yield the versions of one document after another, in order of creation."""
        for document in documents_of(self._store):
            if history := self._store.history(document.id):
                yield history

    def spans(self, document: Document) -> Sequence[Span] | None:
        """Return the passages of a current version, as they are stored.

        Raises:
            StorageLocked: the document was changed or deleted since it was read.
        """
        if not self._split:
            return None
        passages = self._store.passages_of(document.id)
        same = all(p.version == document.version for p in passages)
        if not same or not (passages or self._store.history(document.id)):
            raise StorageLocked(
                f"document {document.id!r:.60} was changed while it was copied: copy again"
            )
        return [Span(p.start, p.end, p.tokens, p.heading) for p in passages]

    def shards(self, wanted: Wanted) -> Iterator[list[ArchivedPassage]]:
        """Yield compressed passages, and the embeddings of cold ones."""
        shard: list[ArchivedPassage] = []
        size = 0
        for document in documents_of(self._store):
            contents = wanted(document.id)
            if contents is not None and not contents:
                continue
            for passage in self._encoded(document.id, contents):
                shard.append(passage)
                size += passage.encoded.compressed.nbytes + passage.encoded.embedding.nbytes
                if size >= SHARD_BYTES:
                    yield shard
                    shard, size = [], 0
        if shard:
            yield shard

    def _encoded(
        self, document_id: str, contents: Collection[str] | None
    ) -> Iterator[ArchivedPassage]:
        passages = [(digest(p), p) for p in self._store.passages_of(document_id)]
        chosen = [
            (made_of, p) for made_of, p in passages if contents is None or made_of in contents
        ]
        for passage, made_of, (encoded, fingerprint) in encodings(self._store, chosen):
            yield ArchivedPassage(passage.document_id, made_of, fingerprint, encoded)


def encodings(
    store: Store, passages: Sequence[tuple[str, Passage]]
) -> Iterator[tuple[Passage, str, tuple[Encoded, Fingerprint]]]:
    """Yield those passages that are encoded, cold ones too, with the hash that was given with each
    and what is stored of it; some at a time are loaded.
    """
    for start in range(0, len(passages), BATCH):
        batch = passages[start : start + BATCH]
        stored = store.encodings([passage.id for _, passage in batch], cold=True)
        for made_of, passage in batch:
            if passage.id in stored:
                yield passage, made_of, stored[passage.id]


def documents_of(store: Store) -> Iterator[Document]:
    """Yield the current documents of a store, in order of creation."""
    cursor: str | None = None
    while True:
        page = store.page(Filter(), PAGE, cursor)
        yield from page.documents
        cursor = page.next_cursor
        if cursor is None:
            return
