"""Ports: what Memory, MemoryModel, Retriever, PassageEncoder and Ingestor need of the layers below.

`cmt_sdk.testing.fakes` and the tests implement most of them a second time. Imports values only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from cmt_sdk.types import (
    AnswerSpan,
    CheckResult,
    CompressedPassage,
    DeletedObjects,
    Document,
    Encoded,
    Filter,
    Fingerprint,
    Hit,
    Outcome,
    Page,
    Passage,
    Piece,
    Prompt,
    Removed,
    Span,
    Stats,
    Vector,
)
from cmt_sdk.types.kept import KeptHashes
from cmt_sdk.types.vectors import ChangeCounters, Embeddings, Generation, VectorRows

# Gives the passages of a document that is about to be stored (second argument), in place of a known
# one (first argument) or as a new one (None). Returns None where the known one's passages stay.
Split: TypeAlias = Callable[[Document | None, Document], Sequence[Span] | None]


@dataclass(frozen=True, slots=True)
class Known:
    """Describes what a store knows of a document that is about to be added.

    Attributes:
        content_hash: SHA-256 of the given text in UTF-8, 64 hexadecimal digits.
        document: the stored document with the same identity; None for a new one.
        merged: that document after the given one is added.
    """

    content_hash: str
    document: Document | None = None
    merged: Document | None = None


class Compressor(Protocol):
    """Compresses and embeds passages, and turns questions into vectors of the same space."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Identifies the model and the settings that make the compressed passages; stored with
        each.
        """

    def compress(self, texts: Sequence[str]) -> list[Encoded]:
        """Return one compressed passage and one embedding per text, in the order given.

        Batches texts of like length itself. Measures the fidelity of each where the settings ask
        for it.
        """

    def is_valid(self, memory: CompressedPassage) -> bool:
        """Return whether a compressed passage from elsewhere is intact.

        Its fingerprint is that of this compressor; its contents can still be anything.
        """

    def embed_question(self, question: str) -> Vector:
        """Return the question's vector, float32 [dimension], of length 1."""


class StateReader(Protocol):
    """Returns hidden states of a model for messages, on which probes are fitted."""

    @property
    def name(self) -> str:
        """Identifies the states; what is fitted to them is stored under this name."""

    def states(self, texts: Sequence[str]) -> Vector:
        """Return the states of n texts, float32 [n, d]; d can be 0."""


class Reader(Protocol):
    """Answers from compressed passages, from text, or from neither."""

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """Yield the answer in pieces, at most `max_tokens` tokens; the last piece has the usage."""

    def word_likelihoods(
        self, question: str, memories: Sequence[CompressedPassage]
    ) -> list[list[float]]:
        """Return the log probability of each token of the question after each compressed passage
        alone.

        Returns:
            One row per compressed passage, in the order given, in nats; all rows have the same
            length.
        """

    def answer_spans(
        self, prompt: Prompt, text: str, words: Sequence[tuple[int, int]]
    ) -> list[AnswerSpan]:
        """Return the spans of a text, a few words each, as answers to the prompt.

        Args:
            prompt: The question, and what to read before it.
            text: The text that holds the answer.
            words: The first character of each word of the text, and the one after its last.
        """


class ChatGenerator(Protocol):
    """A chat model of another program, which writes from the text of passages."""

    def write(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Iterator[Piece]:
        """Yield the reply in pieces, at most `max_tokens` tokens; the last piece has the usage.

        Its usage has confidence 1: such a model tells no probabilities.
        """


class Engine(Protocol):
    """The language model in its roles. Each part is made on first use: loading takes seconds.

    A caller holds the lock around the model (PassageEncoder.lock) while it uses a part that loads
    the model: two threads would load it twice. `count_tokens`, `loaded`, `fork_safe` and
    `vector_weight` need no lock.
    """

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without loading the model."""

    @property
    def loaded(self) -> bool:
        """True once the model is in memory."""

    @property
    def fork_safe(self) -> bool:
        """True where a forked child of this process can use the model too."""

    @property
    def compressor(self) -> Compressor:
        """The compressor; loads the model."""

    @property
    def reader(self) -> Reader:
        """The reader; loads the model."""

    def uncompressed(self, texts: Sequence[str]) -> list[CompressedPassage]:
        """Return passages that have no compressed form as the reader takes them, from one forward
        pass over each: nothing is left out and nothing is encoded. Loads the model.

        They are for one question, and never stored.

        Raises:
            InvalidInput: Together they are longer than the model's context.
        """

    @property
    def state_reader(self) -> StateReader:
        """Reads the states on which probes are fitted; loads the model."""

    def intent_scores(self, texts: Sequence[str]) -> Vector:
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


class Store(Protocol):
    """The documents of one memory, and their passages, compressed passages and embeddings.

    SQLiteStore documents each method; tests/contract/test_store.py checks what every implementation
    has to do. Where the store is `read_only`, every method that would change it raises
    StorageDenied. A change is durable when its call returns.
    """

    @property
    def read_only(self) -> bool:
        """True where nothing can be written: the medium or the files do not allow it."""

    # documents

    def find_known(self, document: Document, *, by_source: bool = False) -> Known: ...

    def add(
        self,
        document: Document,
        spans: Sequence[Span] | None = None,
        *,
        by_source: bool = False,
        split: Split | None = None,
        known: Known | None = None,
    ) -> tuple[Document, Outcome]: ...

    def add_together(self, documents: Sequence[tuple[Document, Sequence[Span]]]) -> None: ...

    def replace(
        self,
        document_id: str,
        changes: Mapping[str, Any],
        spans: Sequence[Span] | None = None,
        *,
        split: Split | None = None,
    ) -> Document: ...

    def replace_passages(self, document: Document, spans: Sequence[Span]) -> bool: ...

    def documents_without_passages(self) -> list[Document]: ...

    def history(self, document_id: str) -> list[Document]: ...

    def page(self, filter: Filter, limit: int, cursor: str | None) -> Page: ...

    def ids(self, prefix: str) -> Sequence[str]: ...

    def count(self, filter: Filter) -> int: ...

    def keep_out(self, scope: str, sources: Iterable[str], *, out: bool) -> None: ...

    def kept_out(self, scope: str, sources: Iterable[str]) -> list[str]: ...

    def kept_hashes(self) -> KeptHashes: ...

    def take_kept_hashes(self, others: KeptHashes) -> bool: ...

    # documents of an archive

    def restore(
        self, versions: Sequence[Document], spans: Sequence[Span]
    ) -> tuple[Document, bool]: ...

    def related(self, versions: Sequence[Document]) -> list[Document]: ...

    def extend_history(
        self, document_id: str, versions: Sequence[Document], spans: Sequence[Span] | None
    ) -> Document: ...

    # deleting and erasing

    def delete(self, filter: Filter, *, erase: bool = False) -> Removed: ...

    def erasure_due(self) -> str | None: ...

    def erase(self, wait: float) -> bool: ...

    def erased(self, due: str) -> None: ...

    def find_traces(self, removed: Sequence[Document]) -> tuple[list[str], int]: ...

    def delete_unused_objects(self, *, look: bool = False) -> DeletedObjects: ...

    # passages, compressed passages and embeddings

    def pending(self, limit: int, *, of: Collection[str] | None = None) -> list[Passage]: ...

    def claimed(
        self, passage_ids: Sequence[int], most: int
    ) -> AbstractContextManager[list[int]]: ...

    def save(self, encoded: Mapping[int, Encoded], fingerprint: Fingerprint) -> None: ...

    def load(
        self, passage_ids: Sequence[int], reader: Fingerprint
    ) -> dict[int, CompressedPassage]: ...

    def encodings(
        self, passage_ids: Sequence[int], *, cold: bool = False
    ) -> dict[int, tuple[Encoded, Fingerprint]]: ...

    def passages(self, passage_ids: Sequence[int]) -> dict[int, tuple[Passage, Document]]: ...

    def passages_of(self, document_id: str) -> list[Passage]: ...

    def choose(self, filter: Filter) -> Collection[int]: ...

    def embeddings(self, filter: Filter) -> Embeddings: ...

    def search_text(self, query: str, limit: int, filter: Filter) -> list[Hit]: ...

    def fingerprints(self) -> list[Fingerprint]: ...

    def forget_encodings(self, keep: Fingerprint | None) -> int: ...

    def evict(self, budget_bytes: int) -> int: ...

    # upkeep

    def keep_objects(self, location: str | None, cache_bytes: int) -> None: ...

    def identity(self) -> str: ...

    def stats(self) -> Stats: ...

    def check(self) -> Sequence[CheckResult]: ...

    def back_up(self, target: Path, *, overwrite: bool = False) -> Path: ...

    def note_copy(self, place: Path | str) -> None: ...

    def copies(self) -> Sequence[str]: ...

    def settings(self) -> dict[str, Any]: ...

    def set_settings(self, settings: Mapping[str, Any]) -> None: ...

    def now(self) -> datetime: ...

    def at_work(self) -> bool: ...

    def leave(self) -> None: ...

    def close(self) -> None: ...


class VectorStore(Protocol):
    """The part of a store that an index uses: vectors since a label, and the row that names the
    trusted index file. SQLiteStore documents each method.
    """

    def change_counters(self) -> ChangeCounters: ...

    def alive(self) -> int: ...

    def vectors(self, since: ChangeCounters) -> VectorRows: ...

    def generation(self) -> Generation | None: ...

    def set_generation(self, generation: Generation | None) -> bool: ...


class VectorIndex(Protocol):
    """Nearest embeddings by cosine. EmbeddingIndex documents each method."""

    def search(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> list[Hit]: ...

    def vectors(self, passage_ids: Collection[int]) -> dict[int, Vector]: ...

    def maintain(self) -> None: ...

    def rebuild(self) -> None: ...

    def erase(self) -> None: ...

    def describe(self) -> str: ...

    def at_work(self) -> bool: ...

    def leave(self) -> None: ...
