"""Finding: a question becomes a ranked list of passages, and passages become memories. No torch, no SQL in here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, get_args

from cmt_sdk.background import Turns
from cmt_sdk.config import RERANKED
from cmt_sdk.errors import CMTError, InvalidInput, InvalidSetting, ModelMismatch
from cmt_sdk.ports import Compressor, Reader, Store, VectorIndex
from cmt_sdk.ranking import fuse, reorder
from cmt_sdk.rendering import render
from cmt_sdk.types import Encoded, Filter, Fingerprint, Hit, Match, PackedMemory, Passage, SearchMode, Vector
from cmt_sdk.words.folding import legible

log = logging.getLogger(__name__)

CANDIDATES = 50
LONGEST_QUESTION = 20_000  # characters
BATCH, AHEAD = 16, 64  # passages compressed together, out of so many that wait longest
PATIENCE = 60.0  # seconds for another process that is at work on the same passages


def check_question(text: str) -> None:
    """Raise InvalidInput for what nobody can answer: nothing, or what is no text."""
    if not text.strip():
        raise InvalidInput("the question is empty")
    if len(text) > LONGEST_QUESTION:
        raise InvalidInput(
            f"the question has {len(text):,} characters, the limit is {LONGEST_QUESTION:,}: add what it quotes, then ask"
        )
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidInput("the question holds NUL or a lone surrogate: decode it again, for example with errors='replace'")


class Engine(Protocol):
    """The language model in its roles; each is made on first use, because loading it takes seconds."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without loading the model."""

    @property
    def loaded(self) -> bool:
        """True once the model is in memory."""

    @property
    def compressor(self) -> Compressor:
        """The compressor, which loads the model."""

    @property
    def reader(self) -> Reader:
        """The reader, which loads the model."""

    def judge(self, texts: Sequence[str]) -> Vector:
        """What texts want, as scores [n, labels] for `understanding.understand`; loads the model."""

    @property
    def vector_weight(self) -> float:
        """How much closeness in meaning counts against words in common (1: the same), as `ranking.fuse` adds them."""


@dataclass
class Recall:
    """Search and loading over one store, one index and one engine; every call into the engine holds `lock`."""

    store: Store
    index: VectorIndex
    engine: Engine
    memory_budget: int = 0
    reranked: int = 0
    lock: Turns = field(default_factory=Turns)
    _dimension: int = 0

    def encode(self, question: str) -> Vector:
        """The question's vector, shape [dimension]."""
        self.check_fingerprint()
        with self.lock:
            return self.engine.compressor.encode_query(legible(question))

    def judge(self, texts: Sequence[str]) -> Vector:
        """What the texts want: scores [n, labels], as `understanding.understand` takes them."""
        with self.lock:
            return self.engine.judge(texts)

    def search(self, query: str, k: int, chosen: Filter, mode: SearchMode = "fused", vector: Vector | None = None) -> list[Match]:
        """The k best passages, best first. `vector` saves encoding the query again.

        "vector" looks by meaning, "text" by words, "fused" by both; "reranked" then lets the model read the query after the
        memory of each of the first few.
        """
        check_question(query)
        if k < 1:
            raise InvalidSetting(f"k={k}: ask for at least one passage")
        if mode not in get_args(SearchMode):
            raise InvalidSetting(f"mode={mode!r}: choose one of {', '.join(get_args(SearchMode))}")
        limit = max(CANDIDATES, k)
        by_words = self.store.search_text(query, limit, chosen) if mode != "vector" else []
        by_meaning = []
        if mode != "text":
            by_meaning = self._near(self.encode(query) if vector is None else vector, limit, chosen)
        matches = self._matches(by_meaning, by_words)
        return (self.rerank(query, matches) if mode == "reranked" else matches)[:k]

    def nearest(self, vector: Vector, k: int, chosen: Filter) -> list[Match]:
        """The k passages whose key vectors are nearest to `vector`, shape [dimension]."""
        if k < 1:
            raise InvalidSetting(f"k={k}: ask for at least one passage")
        return self._matches(self._near(vector, k, chosen), [])

    def _near(self, vector: Vector, limit: int, chosen: Filter) -> list[Hit]:
        return self.index.search(vector, limit, None if chosen.empty else self.store.choose(chosen))

    def _matches(self, by_meaning: Sequence[Hit], by_words: Sequence[Hit]) -> list[Match]:
        fused = fuse(by_meaning, by_words, weight=self.engine.vector_weight if by_meaning else 1.0)
        found = self.store.passages([f.passage_id for f in fused])
        return [
            Match(*found[f.passage_id], f.score, f.vector_rank, f.vector_score, f.text_rank, f.text_score)
            for f in fused
            if f.passage_id in found
        ]

    def rerank(self, query: str, matches: Sequence[Match]) -> list[Match]:
        """The first few in a new order; those whose memories are not there yet are judged by their places alone.

        Scores fall in this order too: those of the rest become a share of the last one that was judged.
        """
        first, rest = matches[: self.reranked or RERANKED], matches[self.reranked or RERANKED :]
        stored = self.store.load([m.passage.id for m in first], self.engine.compressor.fingerprint)
        if len(stored) < 2:  # no order to choose
            return list(matches)
        with self.lock:
            likely = dict(zip(stored, self.engine.reader.likelihoods(query, list(stored.values())), strict=True))
        judged = [replace(m, likelihood=likely.get(m.passage.id)) for m in first]
        ordered = [replace(judged[n], score=score) for n, score in reorder([m.likelihood for m in judged])]
        last = ordered[-1].score / max([m.score for m in rest], default=1.0)
        return [*ordered, *(replace(m, score=m.score * last) for m in rest)]

    def memories(self, passages: Sequence[Passage]) -> list[PackedMemory]:
        """The memories of these passages, in their order; cold or waiting ones are encoded now, and kept where that can be."""
        stored = self.store.load([p.id for p in passages], self.engine.compressor.fingerprint)
        missing = [p for p in passages if p.id not in stored]
        if missing:
            encoded = self._encoded(missing) if self.store.read_only else self.encode_passages(missing)
            stored |= {i: e.memory for i, e in encoded.items()}
        return [stored[p.id] for p in passages]

    def encode_passages(self, passages: Sequence[Passage]) -> dict[int, Encoded]:
        """Compress passages and store what comes out; returns it by passage id."""
        with self.lock:
            encoded = self._encoded(passages)
            self.store.save(encoded, self.engine.compressor.fingerprint)
        if self.memory_budget:
            self.store.evict(self.memory_budget)
        return encoded

    def _encoded(self, passages: Sequence[Passage]) -> dict[int, Encoded]:
        """Compress passages; returns what comes out by passage id."""
        self.check_fingerprint()
        with self.lock:
            made = self.engine.compressor.compress([render(p) for p in passages])
        return {p.id: e for p, e in zip(passages, made, strict=True)}

    def encode_pending(
        self,
        on_batch: Callable[[int], None] | None = None,
        stop: Callable[[], bool] | None = None,
        of: Collection[str] | None = None,
    ) -> int:
        """Compress the passages that wait (`of` these documents), batch by batch; returns how many.

        `stop` is asked between batches. What another process is at work on is waited for, a minute at the most. A passage
        that cannot be compressed holds up no other: what went wrong with the first of them is raised in the end, and each
        waits on.
        """
        done, failed = 0, dict[int, Exception]()
        patient_until = time.monotonic() + PATIENCE
        while not (stop and stop()):
            with self.lock.after_others(stop):  # two threads never compress the same passages; questions go first
                waiting = [p for p in self.store.pending(AHEAD + len(failed), of=of) if p.id not in failed]
                if not waiting:
                    break
                count = self._encode_some(waiting, failed)
            if count:
                done, patient_until = done + count, time.monotonic() + PATIENCE
                if on_batch:
                    on_batch(count)
            elif count == 0 or time.monotonic() > patient_until:
                break  # nothing of it can be compressed: that is not about one passage; or another process takes long
            else:
                time.sleep(0.05)
        if done:
            self.index.maintain()  # here, and not at the first question after
        for error in failed.values():
            raise error
        return done

    def _encode_some(self, waiting: Sequence[Passage], failed: dict[int, Exception]) -> int | None:
        """Encode a batch of those that no other process is at work on; how many, None where there are none."""
        shortest = sorted(waiting, key=lambda p: p.tokens)  # of like length: less padding
        with self.store.claimed([p.id for p in shortest], BATCH) as mine:
            batch = [p for p in shortest if p.id in mine]
            return self._encode_each(batch, failed) if batch else None

    def _encode_each(self, batch: Sequence[Passage], failed: dict[int, Exception]) -> int:
        """Encode a batch, and one by one what cannot be encoded together; what is wrong with them goes to `failed`."""
        try:
            return len(self.encode_passages(batch))
        except CMTError:  # the disk's, or the model's: it would meet every passage alike
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, encode_pending raises it once the others are done
            if len(batch) == 1:
                kind = type(error).__name__  # its words may be those of the passage
                log.warning("passage %d of %s cannot be compressed: %s", batch[0].ordinal, batch[0].document_id, kind)
                failed[batch[0].id] = error
                return 0
            return sum(self._encode_each([passage], failed) for passage in batch)

    def accepts(self, made_by: Fingerprint, encoded: Encoded) -> bool:
        """True when a memory from elsewhere can be read here: made by the same things, and whole."""
        with self.lock:
            compressor = self.engine.compressor
            if made_by.differences(compressor.fingerprint):
                return False
            self._dimension = self._dimension or compressor.encode_query("An example.").size
            return encoded.key.size == self._dimension and compressor.reads(encoded.memory)

    def check_fingerprint(self) -> None:
        """Raise ModelMismatch when stored memories were made by something that this model cannot read."""
        with self.lock:
            mine = self.engine.compressor.fingerprint
        for theirs in self.store.fingerprints():
            differences = theirs.differences(mine)
            if differences:
                raise ModelMismatch(
                    f"the memories were made by {theirs.model} ({theirs.compressor}, {theirs.quantization}), the model "
                    f"that is open is {mine.model} ({mine.compressor}, {mine.quantization}); {'; '.join(differences)}. "
                    "Open it with the first, or encode the stored text again: cmt reencode"
                )
