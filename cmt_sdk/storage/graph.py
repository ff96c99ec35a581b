"""The HNSW file of an index (Malkov and Yashunin 2016, arXiv 1603.09320): building, checking,
opening and searching it. The only module that imports hnswlib; knows no database.

hnswlib reports no error on a full disk and crashes on damaged files. So a file is written under a
new name and re-opened in another process before it is trusted, and this process opens only a file
with the trusted hash.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.errors import StorageFull
from cmt_sdk.system.disk import flush, sha256_of
from cmt_sdk.types import Vector
from cmt_sdk.types.vectors import Generation

log = logging.getLogger(__name__)

Labels = NDArray[np.int64]
SPACE = "cosine"
NEIGHBOURS, BUILD_EFFORT = 16, 200


@dataclass
class Graph:
    """An opened graph.

    Attributes:
        index: hnswlib's.
        file: the name of its file.
        labels: the live labels in it, sorted.
        dropped: how many others it has.
        readable: those of them whose vectors it still holds.
    """

    index: Any
    file: str
    labels: Labels
    dropped: int = 0
    readable: set[int] = field(default_factory=set)

    def keep(self, alive: Labels) -> None:
        """Exclude every label that is not in `alive` from later results."""
        inside = np.isin(self.labels, alive)
        for label in self.labels[~inside].tolist():
            with suppress(RuntimeError):  # deleted in the file already: by `blank`
                self.index.mark_deleted(label)
                self.readable.add(label)
        self.dropped += int((~inside).sum())
        self.labels = self.labels[inside]

    def blank(self, dimension: int) -> None:
        """Overwrite each readable vector with random numbers, and link it to other neighbours.

        Args:
            dimension: of the vectors.
        """
        labels = sorted(self.readable)
        if not labels:
            return
        noise = np.random.default_rng().standard_normal((len(labels), dimension), dtype=np.float32)
        self.index.add_items(noise, labels)
        for label in labels:  # adding has undone the mark
            self.index.mark_deleted(label)

    def nearest(self, vector: Vector, count: int) -> Labels:
        """Return about `count` labels near a vector, unordered; all labels where the graph does not
        reach `count`.
        """
        count = min(count, len(self.labels))
        if not count:
            return self.labels
        self.index.set_ef(2 * count)
        try:
            found: Labels = self.index.knn_query(vector, count)[0][0].astype(np.int64)
        except RuntimeError as error:
            log.info(
                "%s found fewer than %d neighbours (%s): searching exactly", self.file, count, error
            )
            return self.labels
        return found


def build(
    folder: Path, number: int, labels: Labels, matrix: Vector
) -> tuple[Graph, Generation] | None:
    """Build a graph in a new file of the folder; None where another process removes it meanwhile.

    Args:
        folder: the folder of the index files.
        number: the number of the new file.
        labels: int64 [n].
        matrix: float32 [n, dimension].

    Raises:
        StorageFull, OSError: the file cannot be written, or not be read back; it is removed.
    """
    import hnswlib

    index = hnswlib.Index(SPACE, matrix.shape[1])
    index.init_index(len(labels), ef_construction=BUILD_EFFORT, M=NEIGHBOURS)
    index.add_items(matrix, labels)
    made = Graph(index, "", np.sort(labels))
    written = write(folder, number, made, matrix.shape[1], int(labels.max()))
    return None if written is None else (made, written)


def write(
    folder: Path, number: int, graph: Graph, dimension: int, last_label: int
) -> Generation | None:
    """Write a graph to a new file of the folder, which becomes its own; None where another process
    removes the file meanwhile.

    Args:
        folder: the folder of the index files.
        number: the number of the new file.
        graph: what to write.
        dimension: of its vectors.
        last_label: every live label up to this one is in the graph.

    Raises:
        StorageFull, OSError: the file cannot be written, or not be read back; it is removed.
    """
    file = folder / f"index-{number}-{uuid.uuid4().hex[:8]}.hnsw"
    try:
        file.touch(mode=0o600)
        graph.index.save_index(str(file))
        flush(file)
        _prove_elsewhere(file, dimension, len(graph.labels) + graph.dropped)
        made = Generation(
            number, file.name, sha256_of(file), dimension, SPACE, len(graph.labels), last_label
        )
    except BaseException as error:
        if isinstance(error, OSError | StorageFull) and folder.exists() and not file.exists():
            return None
        remove(file)
        raise
    graph.file = file.name
    return made


def open_trusted(folder: Path, trusted: Generation, dimension: int) -> Graph | None:
    """Return the graph in the file that the database trusts; None, and a warning, where the file in
    the folder is another one.
    """
    try:
        if (trusted.dimension, trusted.space) == (dimension, SPACE) and sha256_of(
            folder / trusted.file
        ) == trusted.sha256:
            index = _load(folder / trusted.file, dimension, trusted.count)
            return Graph(index, trusted.file, np.sort(np.array(index.get_ids_list(), np.int64)))
        log.warning(
            "%s is damaged, or of another model: searching exactly until it is made again",
            trusted.file,
        )
    except (OSError, RuntimeError) as error:
        log.warning(
            "%s cannot be opened (%s): searching exactly until it is made again",
            trusted.file,
            error,
        )
    return None


def _load(file: Path, dimension: int, count: int) -> Any:
    import hnswlib

    index = hnswlib.Index(SPACE, dimension)
    index.load_index(str(file), max_elements=count)
    return index


def remove(file: Path) -> None:
    """Delete an index file, later where something holds it open."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s stays for now: %s", file, error)


def _prove_elsewhere(file: Path, dimension: int, count: int) -> None:
    """Open and search the file in another process. Raises StorageFull where that fails."""
    command = [sys.executable, "-P", "-m", __name__, str(file), str(dimension), str(count)]
    same_modules = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    proof = subprocess.run(command, check=False, capture_output=True, env=same_modules)  # noqa: S603 - our own module
    if proof.returncode:
        log.info("%s: %s", file, proof.stderr.decode(errors="replace"))
        raise StorageFull(
            f"{file} cannot be read back after writing: is the disk full? Search is exact meanwhile"
        )


def _prove(file: str, dimension: str, count: str) -> int:
    index = _load(Path(file), int(dimension), int(count))
    found = index.knn_query(np.ones(int(dimension), np.float32), k=1)[0]
    return 0 if index.get_current_count() == int(count) and found.shape == (1, 1) else 1


if __name__ == "__main__":
    sys.exit(_prove(*sys.argv[1:]))
