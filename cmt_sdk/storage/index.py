"""KeyIndex: nearest key vectors by cosine; exact while they are few, a graph above. Knows no documents.

All vectors are held in memory as one float32 matrix, read from the store as they change. The graph only chooses candidates:
every score is computed exactly, and what lies outside the graph is searched exactly. So a graph that is missing, damaged or
behind costs time, never an answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.errors import InvalidInput, StorageError
from cmt_sdk.ports import VectorStore
from cmt_sdk.storage import graph
from cmt_sdk.storage.connection import translated
from cmt_sdk.types import Hit, Vector

log = logging.getLogger(__name__)

Rows = NDArray[np.intp]
FEWEST_NEIGHBOURS = 64
FEWEST_BEHIND = 1_000  # vectors outside the graph that are always searched exactly before it is built anew


class KeyIndex:
    """The index of one folder, safe from several threads. Up to `exact_limit` vectors are searched without a graph."""

    def __init__(self, store: VectorStore, folder: Path, exact_limit: int) -> None:
        self._store = store
        self._folder = folder.absolute()
        self._exact_limit = exact_limit
        self._lock = threading.RLock()
        self._clear()

    def _clear(self) -> None:
        self._changes = -1
        self._labels = np.zeros(0, np.int64)
        self._passages = np.zeros(0, np.int64)
        self._matrix = np.zeros((0, 0), np.float32)
        self._graph: graph.Graph | None = None
        self._outside = np.zeros(0, np.intp)  # rows that the graph does not hold

    def search(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> list[Hit]:
        """See ports.VectorIndex. Raises InvalidInput for a vector of another dimension."""
        with self._lock:
            self.maintain()
            if not len(self._labels):
                return []
            if vector.shape != (self._matrix.shape[1],):
                raise InvalidInput(f"a vector of shape {vector.shape} in an index of {self._matrix.shape[1]} values each")
            rows = self._candidates(vector, limit, allowed)
            scores = self._scores(rows, vector)
            best = np.argsort(-scores, kind="stable")[:limit]
            return [Hit(int(self._passages[rows[b]]), float(scores[b])) for b in best]

    def _candidates(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> Rows:
        """The rows to score: those allowed, else the graph's choice and what it does not hold, else all."""
        if allowed is not None:
            return np.flatnonzero(np.isin(self._passages, np.fromiter(allowed, np.int64, len(allowed))))
        if self._graph is None:
            return np.arange(len(self._labels))
        near = self._graph.nearest(vector, max(2 * limit, FEWEST_NEIGHBOURS))
        return np.concatenate([np.searchsorted(self._labels, np.sort(near)), self._outside])

    def _scores(self, rows: Rows, vector: Vector) -> Vector:
        if 4 * len(rows) < len(self._matrix):
            return self._matrix[rows] @ vector
        every: Vector = self._matrix @ vector  # picking many rows would copy them
        return every[rows]

    def maintain(self) -> None:
        """See ports.VectorIndex."""
        with self._lock:
            if not self._refresh():
                return
            if len(self._labels) <= self._exact_limit:
                self._graph = None
            elif self._behind():
                self._catch_up()

    def _refresh(self) -> bool:
        """Read what the store has gained and lost; True when that was anything."""
        if self._store.changes() == self._changes:
            return False
        self._changes, live = self._store.live()
        labels, passages, matrix = self._store.vectors(int(self._labels[-1]) if len(self._labels) else 0)
        keep = np.isin(self._labels, np.fromiter(live, np.int64, len(live)))
        old = self._matrix[keep] if keep.any() or not labels else matrix[:0]
        self._labels = np.concatenate([self._labels[keep], np.array(labels, np.int64)])
        self._passages = np.concatenate([self._passages[keep], np.array(passages, np.int64)])
        self._matrix = np.concatenate([old, _normalised(matrix)]) if labels else old
        self._use(self._graph)
        return True

    def _use(self, chosen: graph.Graph | None) -> None:
        if chosen is not None:
            chosen.keep(self._labels)
            self._outside = np.flatnonzero(~np.isin(self._labels, chosen.labels))
        self._graph = chosen

    def _behind(self) -> bool:
        """Without a graph, or with more beside it and dead in it than exact search is meant for."""
        if self._graph is None:
            return True
        return len(self._outside) + self._graph.dropped > max(self._exact_limit, FEWEST_BEHIND)

    def _catch_up(self) -> None:
        """Open the file that another process may have written, else write one; without success search stays exact."""
        trusted = self._store.generation()
        if trusted is not None and (self._graph is None or self._graph.file != trusted.file):
            self._use(graph.open_trusted(self._folder, trusted, self._matrix.shape[1]))
        if self._behind():
            try:
                self._write()
            except StorageError as error:
                log.warning("searching exactly, because the index could not be written: %s", error)

    def rebuild(self) -> None:
        """See ports.VectorIndex. Raises StorageFull when what was written does not prove readable."""
        with self._lock:
            self._clear()
            self._refresh()
            while len(self._labels) > self._exact_limit and not self._write():
                self._refresh()
            if len(self._labels) <= self._exact_limit:
                self._store.set_generation(None)
            self._remove_stale()

    def _write(self) -> bool:
        """Write a new file and make it the trusted one; False when vectors in it were deleted meanwhile."""
        trusted = self._store.generation()
        with translated(self._folder):
            number = trusted.number + 1 if trusted else 1
            built, made = graph.build(self._folder, number, self._labels, self._matrix)
        if not set(self._labels.tolist()) <= set(self._store.live()[1]):
            graph.remove(self._folder / made.file)
            return False
        self._store.set_generation(made)
        self._use(built)
        self._remove_stale()
        return True

    def _remove_stale(self) -> None:
        """Delete older files; one of the same number may be another process's work."""
        trusted = self._store.generation()
        for file in self._folder.glob("index-*.hnsw"):
            number = file.name.split("-")[1]
            if trusted is None or not number.isdecimal() or int(number) < trusted.number:
                graph.remove(file)

    def describe(self) -> str:
        """See ports.VectorIndex."""
        count = len(self._store.live()[1])
        graphed = count > self._exact_limit and self._store.generation() is not None
        return f"{f'hnsw (m={graph.NEIGHBOURS})' if graphed else 'exact'}, {count} vectors"


def _normalised(matrix: Vector) -> Vector:
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    result: Vector = matrix / np.maximum(lengths, 1e-12)
    return result
