"""PassageEncoder: compresses pending passages, loads compressed ones, and checks which model made
them.

Imports no torch and no SQL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from math import inf

from cmt_sdk.errors import CMTError, ModelMismatch
from cmt_sdk.ports import Engine, Store, VectorIndex
from cmt_sdk.system.background import PriorityLock
from cmt_sdk.system.handles import NoModel
from cmt_sdk.text.rendering import render_passage
from cmt_sdk.types import CompressedPassage, Encoded, Fingerprint, Passage, is_poor

log = logging.getLogger(__name__)

BATCH = 16  # passages compressed together
LOOKAHEAD = 64  # oldest pending passages from which a batch of like length is chosen
PATIENCE = 60.0  # seconds to wait for another process that compresses the same passages
RETRY = 0.05  # seconds between two looks at passages that another process compresses
QUIET = 1.0  # seconds without a question before what was read from its text is compressed
MOST_COLD = 64  # passages read from their text that are remembered to be compressed


@dataclass
class PassageEncoder:
    """Compresses the passages of one store with one engine. Calls that use the model hold `lock`.

    A cold passage has no compressed form: it was dropped to hold the budget. It is read from its
    text, and compressed behind the answer. What waits for that is noted in RAM alone: where the
    process ends before, the passage stays cold.

    Attributes:
        memory_budget: bytes of compressed passages to keep on disk; 0 keeps all.
    """

    store: Store
    index: VectorIndex
    engine: Engine
    memory_budget: int = 0
    lock: PriorityLock | NoModel = field(default_factory=PriorityLock)
    _dimension: int = 0  # of embeddings; 0 until `accepts` first needs it
    _cold: dict[int, None] = field(default_factory=dict)  # ids to compress, the one read last last
    # ids that are read from their text, as the compressed form is poor or larger than the budget
    _kept_cold: set[int] = field(default_factory=set)

    @property
    def fingerprint(self) -> Fingerprint:
        """What identifies the compressed passages of the open model; loads it."""
        with self.lock:
            return self.engine.compressor.fingerprint

    def check_fingerprint(self) -> None:
        """Raise ModelMismatch where stored compressed passages were made by a model or settings
        that the open model cannot read.
        """
        mine = self.fingerprint
        for theirs in self.store.fingerprints():
            differences = theirs.differences(mine)
            if differences:
                raise ModelMismatch(
                    f"the compressed passages were made by {theirs.model} ({theirs.compressor},"
                    f" {theirs.quantization}), the model that is open is {mine.model}"
                    f" ({mine.compressor}, {mine.quantization}); {'; '.join(differences)}. Open it"
                    " with the first, or encode the stored text again: cmt reencode",
                    differences=differences,
                )

    def accepts(self, made_by: Fingerprint, encoded: Encoded) -> bool:
        """Return whether the open model can use a compressed passage from elsewhere: the same model
        and settings made it, and it is intact.
        """
        with self.lock:
            compressor = self.engine.compressor
            if made_by.differences(compressor.fingerprint):
                return False
            self._dimension = self._dimension or compressor.embed_question("An example.").size
            return encoded.embedding.size == self._dimension and compressor.is_valid(
                encoded.compressed
            )

    def load(self, passage_ids: Sequence[int]) -> dict[int, CompressedPassage]:
        """Load the stored compressed passages, by passage id; passages without one are missing from
        the result.

        Raises:
            ModelMismatch: another model made one of them.
        """
        return self.store.load(passage_ids, self.fingerprint)

    def readable(
        self, passages: Sequence[Passage], loaded: MutableMapping[int, CompressedPassage]
    ) -> list[CompressedPassage]:
        """Return passages as the reader takes them, in the order given.

        One whose compressed form is not stored, because it was dropped, is damaged or was not made
        yet, is read from its text at once, uncompressed.

        Args:
            passages: the passages to read.
            loaded: those that are known already, by passage id; those that are not are added.

        Raises:
            ModelMismatch: another model made one of them.
            InvalidInput: those without a compressed form are longer than the model's context.
        """
        if absent := [p.id for p in passages if p.id not in loaded]:
            loaded.update(self.load(absent))
        if cold := [p for p in passages if p.id not in loaded]:
            with self.lock:
                made = self.engine.uncompressed([render_passage(p) for p in cold])
                self.note_cold([p.id for p in cold])
            loaded.update(zip((p.id for p in cold), made, strict=True))
        return [loaded[p.id] for p in passages]

    def note_cold(self, passage_ids: Sequence[int]) -> None:
        """Note passages that were read from their text, for `compress_cold`; the lock is held."""
        if self.store.read_only:
            return
        for passage in set(passage_ids) - self._kept_cold:
            self._cold.pop(passage, None)
            self._cold[passage] = None
        for passage in list(self._cold)[:-MOST_COLD]:
            self._cold.pop(passage, None)

    @property
    def cold_read(self) -> list[int]:
        """The ids of passages that were read from their text and wait to be compressed, the one
        that was read last last.
        """
        return list(self._cold)

    def compress_cold(self, stop: Callable[[], bool]) -> None:
        """Compress the passages that were lately read from their text, the latest first, as far as
        they fit the budget together; each once no question was asked for QUIET seconds.

        Args:
            stop: called between passages; True ends the work early.
        """
        room = float(self.memory_budget or inf)
        while self._cold and not stop():
            with self.lock.after_others(stop, QUIET):
                if stop():
                    return
                number, _ = self._cold.popitem()
                found = self.store.passages([number])  # none where it was taken out meanwhile
                if found and not self.load([number]):  # else another process has compressed it
                    room -= self._compress_cold(found[number][0], room)
                if room < 0:  # more would drop what was compressed just now
                    self._cold.clear()

    def _compress_cold(self, passage: Passage, room: float) -> float:
        """Compress a cold passage, and store it if it fits `room` bytes; return its bytes.

        Where there is a budget, one whose compressed form is poor, or larger than the budget, stays
        cold.
        """
        made = self._compress([passage])[passage.id]
        size = made.compressed.nbytes
        if self.memory_budget and (size > self.memory_budget or is_poor(made.fidelity)):
            self._kept_cold.add(passage.id)
            return 0.0
        if size <= room:
            self._save({passage.id: made})
        return size

    def compress_passages(self, passages: Sequence[Passage]) -> dict[int, Encoded]:
        """Compress passages and store the results; return them by passage id."""
        with self.lock:
            encoded = self._compress(passages)
            self._save(encoded)
        return encoded

    def _save(self, encoded: Mapping[int, Encoded]) -> None:
        with self.lock:
            self.store.save(encoded, self.engine.compressor.fingerprint)
        self.hold_budget()

    def hold_budget(self) -> None:
        """Drop compressed passages until the others fit the budget."""
        if self.memory_budget and not self.store.read_only:
            self.store.evict(self.memory_budget)

    def _compress(self, passages: Sequence[Passage]) -> dict[int, Encoded]:
        """Compress passages; return the results by passage id."""
        self.check_fingerprint()
        with self.lock:
            made = self.engine.compressor.compress([render_passage(p) for p in passages])
        return {p.id: e for p, e in zip(passages, made, strict=True)}

    def compress_backlog(
        self,
        on_batch: Callable[[int], None] | None = None,
        stop: Callable[[], bool] | None = None,
        of: Collection[str] | None = None,
    ) -> int:
        """Compress pending passages batch by batch; return how many were compressed.

        Passages that another process compresses are waited for, at most PATIENCE seconds. A passage
        that cannot be compressed stays pending and does not stop the others.

        Args:
            on_batch: called after each batch with its number of passages.
            stop: called between batches; True ends the work early.
            of: ids of the documents to compress; None compresses all.

        Raises:
            Exception: the error of the first passage that could not be compressed, after all
                others are done.
            CMTError: the disk or the model failed; the rest stays pending.
        """
        done = 0
        failed: dict[int, Exception] = {}
        patient_until = time.monotonic() + PATIENCE
        while not (stop and stop()):
            # two threads never compress the same passages; questions go first
            with self.lock.after_others(stop):
                pending = [
                    p
                    for p in self.store.pending(LOOKAHEAD + len(failed), of=of)
                    if p.id not in failed
                ]
                if not pending:
                    break
                count = self._compress_some(pending, failed)
            if count is None:  # other processes have all of them
                if time.monotonic() > patient_until:
                    break
                time.sleep(RETRY)
                continue
            if count == 0:  # of a whole batch: the cause is not one passage
                break
            done += count
            patient_until = time.monotonic() + PATIENCE
            if on_batch:
                on_batch(count)
            if of is not None and count == len(pending) < LOOKAHEAD:
                break  # the caller that adds passages meanwhile compresses them
        if done:
            self.index.maintain()  # here rather than at the next question
        for error in failed.values():
            raise error
        return done

    def _compress_some(
        self, pending: Sequence[Passage], failed: dict[int, Exception]
    ) -> int | None:
        """Compress one batch of passages that no other process has; return how many, or None
        where there are none.
        """
        shortest = sorted(pending, key=lambda p: p.tokens)  # of like length: less padding
        with self.store.claimed([p.id for p in shortest], BATCH) as mine:
            batch = [p for p in shortest if p.id in mine]
            return self._compress_each(batch, failed) if batch else None

    def _compress_each(self, batch: Sequence[Passage], failed: dict[int, Exception]) -> int:
        """Compress a batch, and its passages one by one where they fail together;
        record the error of each that fails in `failed`. Return how many were compressed.
        """
        try:
            return len(self.compress_passages(batch))
        except CMTError:  # the disk's or the model's: every passage would meet it
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, compress_backlog raises it once the others are done
            if len(batch) == 1:
                kind = type(error).__name__  # the message may quote the passage
                log.warning(
                    "passage %d of %s cannot be compressed: %s",
                    batch[0].ordinal,
                    batch[0].document_id,
                    kind,
                )
                failed[batch[0].id] = error
                return 0
            return sum(self._compress_each([passage], failed) for passage in batch)
