"""The seams: what the stories in `memory` and `model` need of the rooms below, as small protocols.
Knows only values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from cmt_sdk.types import (
    CheckResult,
    Document,
    Encoded,
    Filter,
    Fingerprint,
    Hit,
    Outcome,
    PackedMemory,
    Page,
    Passage,
    Piece,
    Prompt,
    Removed,
    Span,
    Stats,
    Vector,
)
from cmt_sdk.vectors import Changes, Embeddings, Generation, VectorRows

# The spans of a known document (given first) as it is about to be stored (given second). None: the
# passages that it has stay; not for another text.
Recut: TypeAlias = Callable[[Document, Document], Sequence[Span] | None]


class Compressor(Protocol):
    """Turns passages into memories and embeddings, and questions into vectors of the same space."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes the memories: stored with each of them."""

    def compress(self, texts: Sequence[str]) -> list[Encoded]:
        """One memory and one embedding a text, in the order given; batches and buckets lengths
        inside.

        With the memory's fidelity, where the settings ask for it.
        """

    def reads(self, memory: PackedMemory) -> bool:
        """Whether a memory from elsewhere, with this fingerprint, is whole: an archive can hold
        anything under its checksums.
        """

    def encode_query(self, question: str) -> Vector:
        """The question's vector, shape [dimension], of length 1."""


class Listener(Protocol):
    """Says what a model makes of messages, for whoever decides what they want."""

    @property
    def name(self) -> str:
        """What makes the states: the name under which what is fitted to them is kept."""

    def states(self, texts: Sequence[str]) -> Vector:
        """States float32 [n, d] of n texts; d may be 0."""


class Reader(Protocol):
    """Answers from memories, from text, or from neither."""

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """Yields the answer as it comes, at most `max_tokens` tokens; the last piece carries the
        usage.
        """

    def word_likelihoods(
        self, question: str, memories: Sequence[PackedMemory]
    ) -> list[list[float]]:
        """The log probability of each token of the question after each memory alone, in nats.

        A row for each memory, in the order given, all of one length.
        """


class Engine(Protocol):
    """The language model in its roles. Each part is made on first use: loading takes seconds."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without loading the model."""

    @property
    def loaded(self) -> bool:
        """True once the model is in memory."""

    @property
    def forks(self) -> bool:
        """True where a forked child of this process can use the model too."""

    @property
    def compressor(self) -> Compressor:
        """The compressor; loads the model."""

    @property
    def reader(self) -> Reader:
        """The reader; loads the model."""

    @property
    def listener(self) -> Listener:
        """The listener; loads the model."""

    def judge(self, texts: Sequence[str]) -> Vector:
        """Return the intent scores of n texts, float32 [n, labels], for
        `understanding.understand`; loads the model.
        """

    def small_talk(self, text: str) -> list[tuple[float, str, str]]:
        """Return exchanges of small talk as (similarity to the text, message, reply), nearest
        first; the similarity is at most 1. Loads the model.
        """

    @property
    def vector_weight(self) -> float:
        """The weight of the vector score against the text score in `ranking.fuse`; 1 weighs them
        equally.
        """


class DocumentStore(Protocol):
    """Documents and their versions, durable when a call returns."""

    def add(
        self,
        document: Document,
        spans: Sequence[Span],
        *,
        by_source: bool = False,
        recut: Recut | None = None,
    ) -> tuple[Document, Outcome]:
        """Store a document, cut by `spans`; returns it as stored, and what happened.

        A text that stands in the same scope already stays one document: what is said about it now
        takes the place of what was, except that it keeps its source. With `by_source` a document
        that has a source is known by its scope and its id, else its source, whatever its text:
        another text becomes the next version, and a document of the given id takes the given
        source. What changes in a known document is cut by `recut`, where it is given, since what
        was known may name it; passages of the same content keep memory and embedding. Raises
        AlreadyExists when the id stands for another text.
        """

    def add_together(self, documents: Sequence[tuple[Document, Sequence[Span]]]) -> None:
        """Store documents with ids of their own, each cut by its spans, in one transaction.

        A text that is here already becomes another document. Raises AlreadyExists; then none is
        stored.
        """

    def add_again(
        self, document: Document, *, by_source: bool = False, recut: Recut | None = None
    ) -> tuple[Document, Outcome] | None:
        """As `add`, for a text that is here already; None, and nothing happens, for one that is
        not.
        """

    def find(self, scope: str, source: str) -> Document | None:
        """The current document with exactly this scope and source, the newest where there are
        several.
        """

    def replace(
        self,
        document_id: str,
        changes: Mapping[str, Any],
        spans: Sequence[Span] | None = None,
        *,
        recut: Recut | None = None,
    ) -> Document:
        """Change these fields of the current version in place; with another `text` make the next
        one.

        It is cut by `recut`, where that is given, else by `spans`; without either its passages
        stay. Passages of the same content keep memory and embedding.
        """

    def restore(self, versions: Sequence[Document], spans: Sequence[Span]) -> tuple[Document, bool]:
        """Store a document from an archive, all its versions (oldest first, the last one current
        and cut by `spans`).

        Ids, version numbers and times are kept as given. False when the id has the same text in the
        same scope already (that one is returned). Raises AlreadyExists when another text has the
        id.
        """

    def related(self, versions: Sequence[Document]) -> list[Document]:
        """Current documents that may be this one of an archive under another id, in the scope of
        its last version.

        Those whose text is that of one of `versions` (oldest first), and those of the same source,
        or of one that ends in the same two names, of whose versions one has such a text.
        """

    def go_on(
        self, document_id: str, versions: Sequence[Document], spans: Sequence[Span] | None
    ) -> Document:
        """Let a document go on with versions from an archive; the last becomes the current one, cut
        by `spans`.

        What was current becomes a version before them, unless the one version given has its number
        and text: then its fields change in place. Numbers and times are kept as given, and must
        come after those here. `spans` may be None where the text of the last version is the current
        one. Raises DocumentNotFound.
        """

    def uncut(self) -> list[Document]:
        """Current documents that lost passages to damage."""

    def recut(self, document: Document, spans: Sequence[Span]) -> bool:
        """Give a document other passages; False, and nothing happens, when it has another text by
        now.

        Passages of the same content keep memory and embedding.
        """

    def history(self, document_id: str) -> list[Document]:
        """Every version, oldest first; empty when there is no such document."""

    def page(self, filter: Filter, limit: int, cursor: str | None) -> Page:
        """Documents in order of creation, `limit` a page."""

    def ids(self, prefix: str) -> Sequence[str]:
        """The ids of current documents that begin with `prefix`, sorted."""

    def keep_out(self, scope: str, sources: Iterable[str], *, out: bool) -> None:
        """Record that these sources of a scope are to stay out, as hashes, or (`out=False`) no
        longer.
        """

    def kept_out(self, scope: str, sources: Iterable[str]) -> list[str]:
        """Those of the sources that are to stay out of a scope."""

    def count(self, filter: Filter) -> int:
        """How many documents fit."""

    def delete(self, filter: Filter, *, erase: bool = False) -> Removed:
        """Remove the documents that fit with all their versions, and single earlier versions that
        fit.

        With `erase` it is also recorded, in the same transaction, that the files are to be
        rewritten without them.
        """

    def erasure_due(self) -> str | None:
        """The name of the deletion whose bytes are still to be erased; None where nothing is
        due.
        """

    def erase(self, wait: float) -> bool:
        """Rewrite the files without what was deleted; False when another process reads the old
        state for longer.

        Raises StorageLocked when another process writes for longer than `wait` seconds.
        """

    def erased(self, due: str) -> None:
        """Record that the erasure of this name is complete; nothing happens where another deletion
        came after it.
        """

    def traces(self, removed: Sequence[Document]) -> tuple[list[str], int]:
        """Look for what was removed in every byte of every file: the files' names, and how many
        traces are left.
        """

    def stats(self) -> Stats:
        """The store in numbers."""


class PassageStore(Protocol):
    """Passages, their memories and embeddings."""

    def pending(self, limit: int, *, of: Collection[str] | None = None) -> list[Passage]:
        """Passages of current documents that have no embedding yet, oldest first.

        `of` names the documents that are meant; None: all.
        """

    def waiting(self, document_id: str) -> int:
        """How many passages of a document's current version have no embedding yet."""

    def claimed(self, passage_ids: Sequence[int], most: int) -> AbstractContextManager[list[int]]:
        """The first `most` of these passages that still wait and that no other process is at work
        on.

        They are this process's until the block or the process ends. Where that cannot be had, it
        may get some that others have.
        """

    def save(self, encoded: Mapping[int, Encoded], fingerprint: Fingerprint) -> None:
        """Store memories and embeddings by passage id, in one transaction; ids that are gone are
        passed over.

        Raises ModelMismatch, and stores nothing, where there are memories that another model made.
        """

    def load(self, passage_ids: Sequence[int], reader: Fingerprint) -> dict[int, PackedMemory]:
        """The stored memories; an id whose memory is cold is missing from the result.

        Raises ModelMismatch for one that another model made than `reader`.
        """

    def encodings(self, passage_ids: Sequence[int]) -> dict[int, tuple[Encoded, Fingerprint]]:
        """The stored memories with their embeddings and what made them, for an archive: not counted
        as a reading.

        An id whose memory is cold or not made yet is missing from the result.
        """

    def passages(self, passage_ids: Sequence[int]) -> dict[int, tuple[Passage, Document]]:
        """The passages with their documents; superseded, deleted and expired ones are missing from
        the result.
        """

    def passages_of(self, document_id: str) -> list[Passage]:
        """The passages of a document's current version, in order."""

    def choose(self, filter: Filter) -> Collection[int]:
        """Ids of the passages of current documents that fit the filter."""

    def embeddings(self, filter: Filter) -> Embeddings:
        """The embeddings of the passages of current documents that fit the filter, oldest first."""

    def search_text(self, query: str, limit: int, filter: Filter) -> list[Hit]:
        """Full-text search, BM25, best first; any word of the query may match, in any spelling
        (cmt_sdk.words).
        """

    def fingerprints(self) -> list[Fingerprint]:
        """The fingerprints of the memories that are stored."""

    def forget_encodings(self, keep: Fingerprint | None) -> int:
        """Mark every passage not made by `keep` as pending again; returns how many."""

    def evict(self, budget_bytes: int) -> int:
        """Drop the memories read longest ago until the rest fits the budget; keys stay. Returns how
        many went.
        """


class Store(DocumentStore, PassageStore, Protocol):
    """One folder on disk. Where it is `read_only`, whatever would change it raises
    StorageDenied.
    """

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written: the medium, or the files, are not this user's to
        change.
        """

    def check(self) -> Sequence[CheckResult]:
        """A check-up: one finding a check, the good ones too."""

    def back_up(self, target: Path, *, overwrite: bool = False) -> Path:
        """Copy the database as of one moment, while others write: to a file *.db, else to a folder;
        returns the file.

        Raises AlreadyExists, StorageFull, StorageDenied, InvalidInput (a file of an open memory).
        """

    def note_copy(self, path: Path) -> None:
        """Record that a copy of the memory was made there."""

    def copies(self) -> Sequence[str]:
        """The copies that are known and still there: backups, archives, what a repair laid beside
        the folder.
        """

    def settings(self) -> dict[str, Any]:
        """The settings that the memory was made with; empty for a new one."""

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Record settings in place of those before."""

    def now(self) -> datetime:
        """The clock that stamps and expires documents, UTC."""

    def at_work(self) -> bool:
        """Whether a transaction runs."""

    def leave(self) -> None:
        """In a forked child: touch no file any more, and raise StorageError at every call."""

    def close(self) -> None:
        """Release the files; calling it twice does nothing."""


class VectorStore(Protocol):
    """What an index needs of a store: the vectors since a label, and the row that names the trusted
    index file.
    """

    def changes(self) -> Changes:
        """What has changed in the set, by whatever process; cheap to ask for."""

    def alive(self) -> int:
        """How many vectors the set holds."""

    def vectors(self, since: Changes) -> VectorRows:
        """What the set has gained and lost since; labels never return."""

    def generation(self) -> Generation | None:
        """The index file that the database trusts."""

    def set_generation(self, generation: Generation | None) -> bool:
        """Make this index file the trusted one; None: none is. False, and no change, when it holds
        dead vectors.
        """


class VectorIndex(Protocol):
    """Nearest embeddings by cosine."""

    def at_work(self) -> bool:
        """Whether another thread is at work on it."""

    def leave(self) -> None:
        """In a forked child: do without the thread that was at work on it."""

    def search(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> list[Hit]:
        """The nearest passages, best first; only those in `allowed`, where it is given."""

    def vectors(self, passage_ids: Collection[int]) -> dict[int, Vector]:
        """The embeddings of these passages; an id without one is missing from the result."""

    def maintain(self) -> None:
        """Take in what has changed, and write a new index file where too much lies outside the
        present one.
        """

    def rebuild(self) -> None:
        """Write a new index file from the store's vectors, without deleted ones; no other index
        file stays.
        """

    def describe(self) -> str:
        """The kind of search in use and its size, in words."""
