"""PassageEncoder: compresses pending passages, loads compressed ones, and checks which model made
them.

Imports no torch and no SQL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cmt_sdk.errors import CMTError, ModelMismatch
from cmt_sdk.ports import Engine, Store, VectorIndex
from cmt_sdk.system.background import PriorityLock
from cmt_sdk.system.handles import NoModel
from cmt_sdk.text.rendering import render_passage
from cmt_sdk.types import CompressedPassage, Encoded, Fingerprint, Passage

log = logging.getLogger(__name__)

BATCH = 16  # passages compressed together
LOOKAHEAD = 64  # oldest pending passages from which a batch of like length is chosen
PATIENCE = 60.0  # seconds to wait for another process that compresses the same passages
RETRY = 0.05  # seconds between two looks at passages that another process compresses


@dataclass
class PassageEncoder:
    """Compresses the passages of one store with one engine. Calls that use the model hold `lock`.

    Attributes:
        memory_budget: bytes of compressed passages to keep on disk; 0 keeps all.
    """

    store: Store
    index: VectorIndex
    engine: Engine
    memory_budget: int = 0
    lock: PriorityLock | NoModel = field(default_factory=PriorityLock)
    _dimension: int = 0  # of embeddings; 0 until `accepts` first needs it

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

    def compressed(
        self, passages: Sequence[Passage], loaded: Mapping[int, CompressedPassage]
    ) -> list[CompressedPassage]:
        """Return the compressed passages, in the order of the given ones.

        A passage whose compressed form is not stored is compressed now, and stored unless the store
        is read-only.

        Args:
            passages: the passages to read.
            loaded: those that are loaded already, by passage id.

        Raises:
            ModelMismatch: another model made one of them.
        """
        known = {p.id: loaded[p.id] for p in passages if p.id in loaded}
        if absent := [p.id for p in passages if p.id not in known]:
            known |= self.load(absent)
        missing = [p for p in passages if p.id not in known]
        if missing:
            compress = self._compress if self.store.read_only else self.compress_passages
            known |= {i: made.compressed for i, made in compress(missing).items()}
        return [known[p.id] for p in passages]

    def compress_passages(self, passages: Sequence[Passage]) -> dict[int, Encoded]:
        """Compress passages and store the results; return them by passage id."""
        with self.lock:
            encoded = self._compress(passages)
            self.store.save(encoded, self.engine.compressor.fingerprint)
        if self.memory_budget:
            self.store.evict(self.memory_budget)
        return encoded

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
