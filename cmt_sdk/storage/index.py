"""EmbeddingIndex: nearest embeddings by cosine; exact for few, by an HNSW graph for many. Knows no
documents.

All vectors are in memory as one float32 matrix, read from the store as they change. The graph only
chooses candidates: every score is computed exactly, and vectors outside the graph are searched
exactly. So a graph that is missing, damaged or outdated costs time, but no result.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.errors import InvalidInput, StorageError
from cmt_sdk.ports import VectorStore
from cmt_sdk.storage import graph
from cmt_sdk.storage.disk_errors import translated
from cmt_sdk.system.handles import is_held
from cmt_sdk.types import Hit, Vector
from cmt_sdk.types.vectors import ChangeCounters, Generation

log = logging.getLogger(__name__)

TRIES = 2
Rows = NDArray[np.intp]
FEWEST_NEIGHBOURS = 64
# vectors outside the graph that are searched exactly before it is built again
FEWEST_BEHIND = 1_000
# overwriting one vector takes as long as building the graph for so many
BLANKED_SHARE = 8


class EmbeddingIndex:
    """The index of one folder. Safe to use from several threads.

    Up to `exact_limit` vectors are searched without a graph. With `read_only` no file is written:
    an existing graph is used, and vectors outside it are searched exactly.
    """

    def __init__(
        self, store: VectorStore, folder: Path, exact_limit: int, *, read_only: bool = False
    ) -> None:
        self._read_only = read_only
        self._store = store
        self._folder = folder.absolute()
        self._exact_limit = exact_limit
        self._lock = threading.RLock()
        self._clear()

    def at_work(self) -> bool:
        """Return whether another thread is using the index."""
        return is_held(self._lock)

    def leave(self) -> None:
        """In a forked child: replace the lock that a thread of the parent holds."""
        self._lock = threading.RLock()

    def _clear(self) -> None:
        self._changes = ChangeCounters()
        self._vectors = Vectors()
        self._graph: graph.Graph | None = None
        self._outside = np.zeros(0, np.intp)  # rows that the graph does not hold

    def search(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> list[Hit]:
        """Return the nearest passages by cosine, best first.

        Args:
            vector: float32 [dimension], of length 1.
            limit: hits at most.
            allowed: ids of the passages to search; None: all.

        Raises:
            InvalidInput: a vector of another dimension.
        """
        with self._lock:
            self.maintain()
            held = self._vectors
            if not held.count:
                return []
            if vector.shape != (held.matrix.shape[1],):
                raise InvalidInput(
                    f"a vector of shape {vector.shape} in an index of {held.matrix.shape[1]} values"
                    " each"
                )
            rows = self._candidates(vector, limit, allowed)
            scores = self._scores(rows, vector)
            best = np.argsort(-scores, kind="stable")[:limit]
            return [Hit(int(held.passage_ids[rows[b]]), float(scores[b])) for b in best]

    def vectors(self, passage_ids: Collection[int]) -> dict[int, Vector]:
        """Return the embeddings of these passages by id; a passage without one is missing."""
        with self._lock:
            self.maintain()
            held = self._vectors
            rows = held.rows_of(passage_ids)
            return {int(held.passage_ids[row]): held.matrix[row] for row in rows}

    def _candidates(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> Rows:
        """Return the rows to score: those allowed, else the graph's choice and the rows outside it,
        else all.
        """
        if allowed is not None:
            return self._vectors.rows_of(allowed)
        if self._graph is None:
            return np.arange(self._vectors.count)
        near = self._graph.nearest(vector, max(2 * limit, FEWEST_NEIGHBOURS))
        return np.concatenate([np.searchsorted(self._vectors.labels, np.sort(near)), self._outside])

    def _scores(self, rows: Rows, vector: Vector) -> Vector:
        matrix = self._vectors.matrix
        if 4 * len(rows) < len(matrix):
            return matrix[rows] @ vector
        every: Vector = matrix @ vector  # selecting many rows would copy them
        return every[rows]

    def maintain(self) -> None:
        """Take in what has changed, and write a new index file where too much lies outside the
        present one.
        """
        with self._lock:
            if not self._refresh():
                return
            if self._vectors.count <= self._exact_limit:
                self._graph = None
            elif self._behind():
                self._catch_up()

    def _refresh(self) -> bool:
        """Read what the store has gained and lost; return whether anything has changed."""
        if self._store.change_counters() == self._changes:
            return False
        news = self._store.vectors(self._changes)
        if news.live is not None:
            self._vectors.keep(news.live)
        self._vectors.append(news.labels, news.passage_ids, news.matrix)
        if news.live is not None:
            self._use(self._graph)
        else:
            new = np.arange(self._vectors.count - len(news.labels), self._vectors.count)
            self._outside = np.concatenate([self._outside, new])
        self._changes = news.changes  # last: after a failure the news is read again
        return True

    def _use(self, chosen: graph.Graph | None) -> None:
        labels = self._vectors.labels
        if chosen is not None:
            chosen.keep(labels)
        self._outside = (
            np.arange(0) if chosen is None else np.flatnonzero(~np.isin(labels, chosen.labels))
        )
        self._graph = chosen

    def _behind(self) -> bool:
        """Return whether there is no graph, or more vectors are outside it or dead in it than exact
        search is meant for.
        """
        if self._graph is None:
            return True
        return len(self._outside) + self._graph.dropped > max(self._exact_limit, FEWEST_BEHIND)

    def _catch_up(self) -> None:
        """Open the file that another process may have written, else write one. Search stays exact
        where both fail.
        """
        self._open_trusted()
        if self._behind() and not self._read_only:
            try:
                self._write()
            except StorageError as error:
                log.warning("searching exactly, because the index could not be written: %s", error)

    def _open_trusted(self) -> None:
        trusted = self._store.generation()
        if trusted is not None and (self._graph is None or self._graph.file != trusted.file):
            self._use(graph.open_trusted(self._folder, trusted, self._vectors.matrix.shape[1]))

    def rebuild(self) -> None:
        """Write a new index file from the stored embeddings, without deleted ones; delete all
        others.

        Where other processes keep deleting meanwhile, no file is written and search is exact until
        the next one is.

        Raises:
            StorageFull: the new file cannot be read back.
        """
        with self._lock:
            self._clear()
            for _ in range(TRIES):
                self._refresh()
                if self._vectors.count <= self._exact_limit or self._write():
                    break
            if self._graph is None:
                self._store.set_generation(None)
            self._remove_others()

    def erase(self) -> None:
        """Take deleted embeddings out of the index files.

        A few are overwritten with random numbers in a new file; after many deletions, `rebuild`.
        """
        with self._lock:
            for _ in range(TRIES):
                self._refresh()
                if self._vectors.count > self._exact_limit and self._blanked():
                    self._remove_others()
                    return
            self.rebuild()

    def _blanked(self) -> bool:
        """Write the trusted graph without its deleted vectors, where it has any; return False where
        it is better built again, or something was deleted meanwhile.
        """
        self._open_trusted()
        trusted, chosen = self._store.generation(), self._graph
        if trusted is None or chosen is None or trusted.file != chosen.file or self._behind():
            return False
        if len(chosen.readable) * BLANKED_SHARE > len(chosen.labels):
            return False
        if chosen.readable:
            with translated(self._folder):
                chosen.blank(trusted.dimension)
                made = graph.write(
                    self._folder,
                    trusted.number + 1,
                    chosen,
                    trusted.dimension,
                    trusted.last_label,
                )
            if made is None or not self._trusted(made):
                return False
            chosen.readable.clear()
        return True

    def _write(self) -> bool:
        """Write a new file and make it the trusted one; return False where vectors in it were
        deleted meanwhile.
        """
        trusted = self._store.generation()
        with translated(self._folder):
            number = trusted.number + 1 if trusted else 1
            made = graph.build(self._folder, number, self._vectors.labels, self._vectors.matrix)
        if made is None or not self._trusted(made[1]):
            return False
        self._use(made[0])
        for file, other in self._files():
            if other < number:  # one of the same number may be another process's work
                graph.remove(file)
        return True

    def _trusted(self, made: Generation) -> bool:
        """Make a new file the trusted one; remove it where that fails."""
        trusted = False
        try:
            trusted = self._store.set_generation(made)
        finally:
            if not trusted:
                graph.remove(self._folder / made.file)
        return trusted

    def _remove_others(self) -> None:
        """Delete every index file but the trusted one. Another process that is writing one finds it
        removed, and searches exactly.
        """
        trusted = self._store.generation()
        for file, _ in self._files():
            if trusted is None or file.name != trusted.file:
                graph.remove(file)

    def _files(self) -> list[tuple[Path, int]]:
        """Return the index files with their numbers."""
        numbers = [(file, file.name.split("-")[1]) for file in self._folder.glob("index-*.hnsw")]
        return [(file, int(number) if number.isdecimal() else 0) for file, number in numbers]

    def describe(self) -> str:
        """Return the kind of search in use and its size, in words."""
        count = self._store.alive()
        graphed = count > self._exact_limit and self._store.generation() is not None
        return f"{f'hnsw (m={graph.NEIGHBOURS})' if graphed else 'exact'}, {count} vectors"


class Vectors:
    """Normalised vectors in order of their labels, in arrays with room to grow: adding a few copies
    no others.
    """

    def __init__(self) -> None:
        self.count = 0
        self._labels = np.zeros(0, np.int64)
        self._passage_ids = np.zeros(0, np.int64)
        self._matrix = np.zeros((0, 0), np.float32)
        self._order: Rows | None = None  # rows by passage id, made when it is asked for

    @property
    def labels(self) -> NDArray[np.int64]:
        """Shape [n]."""
        return self._labels[: self.count]

    @property
    def passage_ids(self) -> NDArray[np.int64]:
        """The passages' ids, shape [n]."""
        return self._passage_ids[: self.count]

    @property
    def matrix(self) -> Vector:
        """Shape [n, dimension]."""
        return self._matrix[: self.count]

    def rows_of(self, passage_ids: Collection[int]) -> Rows:
        """Return the rows of these passages, rising; a passage without one is left out."""
        sought = np.fromiter(passage_ids, np.int64, len(passage_ids))
        if self._order is None:
            self._order = np.argsort(self.passage_ids, kind="stable")
        places = np.searchsorted(self.passage_ids, sought, sorter=self._order)
        inside = places < self.count
        rows: Rows = self._order[places[inside]]
        return np.unique(rows[self.passage_ids[rows] == sought[inside]])

    def keep(self, live: Collection[int]) -> None:
        """Keep only the vectors with these labels."""
        alive = np.isin(self.labels, np.fromiter(live, np.int64, len(live)))
        self._labels, self._passage_ids, self._matrix = (
            self.labels[alive],
            self.passage_ids[alive],
            self.matrix[alive],
        )
        self.count = len(self._labels)
        self._order = None

    def append(self, labels: Sequence[int], passage_ids: Sequence[int], matrix: Vector) -> None:
        """Append vectors with later labels. An empty set takes any dimension."""
        if not len(labels):
            return
        end = self.count + len(labels)
        if end > len(self._labels):
            room = end + end // 4
            self._labels = _grown(self.labels, (room,))
            self._passage_ids = _grown(self.passage_ids, (room,))
            self._matrix = _grown(self.matrix, (room, matrix.shape[1]))
        self._labels[self.count : end] = labels
        self._passage_ids[self.count : end] = passage_ids
        self._matrix[self.count : end] = _normalised(matrix)
        self.count = end
        self._order = None


def _grown(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    larger = np.empty(shape, values.dtype)
    if len(values):
        larger[: len(values)] = values
    return larger


def _normalised(matrix: Vector) -> Vector:
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    result: Vector = matrix / np.maximum(lengths, 1e-12)
    return result
