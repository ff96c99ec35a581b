"""KeyIndex: nearest key vectors by cosine; exact while they are few, an HNSW file (hnswlib) above. Knows no documents.

hnswlib writes to full disks without a word and dies on damaged files, so a file is written under a new name, proved by
re-opening it in another process, and only then named in the database, with its hash: that row is the switch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmt_sdk.errors import InvalidInput, StorageFull
from cmt_sdk.ports import VectorStore
from cmt_sdk.types import Generation, Hit, Vector

log = logging.getLogger(__name__)

SPACE = "cosine"
NEIGHBOURS, BUILD_EFFORT = 16, 200
FEW = 2_000  # filtered sets up to this size are searched exactly


class KeyIndex:
    """The index of one folder. All vectors are held in memory as one float32 matrix; labels never return."""

    def __init__(self, store: VectorStore, folder: Path, exact_limit: int) -> None:
        self._store = store
        self._folder = folder
        self._exact_limit = exact_limit
        self._lock = threading.RLock()
        self._changes = -1
        self._labels = np.zeros(0, np.int64)
        self._passages = np.zeros(0, np.int64)
        self._matrix = np.zeros((0, 0), np.float32)
        self._graph: Any = None
        self._graph_last = 0

    def search(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> list[Hit]:
        """See ports.VectorIndex. Raises InvalidInput for a vector of another dimension."""
        with self._lock:
            self._refresh()
            if not len(self._labels):
                return []
            if vector.shape != (self._matrix.shape[1],):
                raise InvalidInput(f"a vector of {vector.shape} values in an index of {self._matrix.shape[1]}")
            rows = self._rows_to_search(vector, limit, allowed)
            scores = self._matrix[rows] @ vector
            best = np.argsort(-scores, kind="stable")[:limit]
            return [Hit(int(self._passages[rows[b]]), float(scores[b])) for b in best]

    def _rows_to_search(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> np.ndarray[Any, Any]:
        every = np.arange(len(self._labels))
        if allowed is not None:
            inside = np.isin(self._passages, np.fromiter(allowed, np.int64, len(allowed)))
            if self._graph is None or inside.sum() <= FEW:
                return every[inside]
        if self._graph is None:
            return every
        known = self._labels <= self._graph_last
        wanted = known if allowed is None else known & inside
        live = set(self._labels[wanted].tolist())
        many = min(max(2 * limit, 64), len(live))
        near = np.zeros(0, np.int64)
        if many:
            self._graph.set_ef(2 * many)
            near = self._graph.knn_query(vector, many, filter=live.__contains__)[0][0].astype(np.int64)
        newer = every[~known] if allowed is None else every[~known & inside]
        return np.concatenate([np.searchsorted(self._labels, np.sort(near)), newer])

    def _refresh(self) -> None:
        changes = self._store.changes()
        if changes == self._changes:
            return
        changes, live = self._store.live()
        last = int(self._labels[-1]) if len(self._labels) else 0
        labels, passages, matrix = self._store.vectors(last)
        if len(self._labels):
            keep = np.isin(self._labels, np.fromiter(live, np.int64, len(live)))
            self._labels, self._passages, self._matrix = self._labels[keep], self._passages[keep], self._matrix[keep]
        if labels:
            old = self._matrix if len(self._labels) else matrix[:0]
            self._labels = np.concatenate([self._labels, np.array(labels, np.int64)])
            self._passages = np.concatenate([self._passages, np.array(passages, np.int64)])
            self._matrix = np.concatenate([old, _normalised(matrix)])
        self._changes = changes
        self._choose_graph()

    def _choose_graph(self) -> None:
        """Above the exact limit: the trusted file, or a new one where that is missing, damaged or far behind."""
        if len(self._labels) <= self._exact_limit:
            self._graph = None
            return
        if self._graph is None:
            self._open_trusted()
        newer = int((self._labels > self._graph_last).sum())
        if self._graph is None or newer > max(1000, len(self._labels) // 5):
            self.rebuild()

    def _open_trusted(self) -> None:
        trusted = self._store.generation()
        self._graph_last = 0
        if trusted is None:
            return
        file = self._folder / trusted.file
        fits = trusted.dimension == self._matrix.shape[1] and trusted.space == SPACE
        if not fits or not file.is_file() or sha256(file) != trusted.sha256:
            log.warning("%s is missing or damaged: searching exactly while it is made again", file)
            return
        self._graph = _load(file, trusted.dimension, trusted.count)
        self._graph_last = trusted.last_label

    def rebuild(self) -> None:
        """See ports.VectorIndex. Raises StorageFull when what was written does not prove readable."""
        with self._lock:
            self._changes, self._graph = -2, None
            self._labels, self._passages = self._labels[:0], self._passages[:0]
            self._matrix = self._matrix[:0]
            old = self._store.generation()
            labels, _, matrix = self._store.vectors(0)
            if len(labels) > self._exact_limit:
                self._write(labels, _normalised(matrix), (old.number if old else 0) + 1)
            keep = self._store.generation()
            for stale in self._folder.glob("index-*.hnsw"):
                if len(labels) <= self._exact_limit or (keep and stale.name != keep.file):
                    _remove(stale)

    def _write(self, labels: Sequence[int], matrix: Vector, number: int) -> None:
        import hnswlib

        file = self._folder / f"index-{number}-{os.getpid()}.hnsw"
        graph = hnswlib.Index(SPACE, matrix.shape[1])
        graph.init_index(len(labels), ef_construction=BUILD_EFFORT, M=NEIGHBOURS)
        graph.add_items(matrix, labels)
        graph.save_index(str(file))
        _flush(file)
        proof = [sys.executable, "-m", "cmt_sdk.storage.index", str(file), str(matrix.shape[1]), str(len(labels))]
        if not file.is_file() or subprocess.run(proof, check=False, capture_output=True).returncode:  # noqa: S603 - our own module
            _remove(file)
            raise StorageFull(f"{file} cannot be read back after writing: is the disk full? Search stays exact meanwhile")
        made = Generation(number, file.name, sha256(file), matrix.shape[1], SPACE, len(labels), max(labels))
        self._store.set_generation(made)
        self._graph, self._graph_last = graph, made.last_label

    def describe(self) -> str:
        """See ports.VectorIndex."""
        with self._lock:
            self._refresh()
            kind = "exact" if self._graph is None else f"hnsw (m={NEIGHBOURS})"
            return f"{kind}, {len(self._labels)} vectors"


def _normalised(matrix: Vector) -> Vector:
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    result: Vector = matrix / np.maximum(lengths, 1e-12)
    return result


def _load(file: Path, dimension: int, count: int) -> Any:
    import hnswlib

    graph = hnswlib.Index(SPACE, dimension)
    graph.load_index(str(file), max_elements=count)
    return graph


def sha256(file: Path) -> str:
    """The hash of a file's bytes."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _flush(file: Path) -> None:
    for path in (file, file.parent):
        if path.exists() and os.name == "posix":
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s stays for now: %s", file, error)


def _prove(file: str, dimension: str, count: str) -> int:
    """In a process of its own: the file opens, holds what it should, and answers."""
    graph = _load(Path(file), int(dimension), int(count))
    found = graph.knn_query(np.ones(int(dimension), np.float32), k=1)[0]
    return 0 if graph.get_current_count() == int(count) and found.shape == (1, 1) else 1


if __name__ == "__main__":
    sys.exit(_prove(*sys.argv[1:]))
