"""How a memory behaves as it grows: python examples/benchmarks/load.py --out
examples/benchmarks/load.md.

Synthetic passages, embeddings and memories go through the ports into a real store and index; no
language model takes part. The sizes are stages of one memory, and each stage runs in a process of
its own, so that opening times and RAM are those of a fresh start. `--index N` adds the figures of a
bare index of N vectors. Knows nothing of answers: bench.py times those.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import numpy as np

from cmt_sdk import Document, Memory, __version__
from cmt_sdk.plotting import COLOURS, MARKERS
from cmt_sdk.storage import graph
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, FakeReader, open_fake
from cmt_sdk.types import CompressedPassage, Encoded, Span, Vector

DIMENSION = 256  # as the shipped matching head makes them
BYTES = 10_000  # of a memory: as `soft` makes of 120 tokens
ADDED = 1000  # of each size one by one; the others go into the store together
TOPICS = 1000  # vectors lie in clusters, as those of real passages do
SYLLABLES = [
    a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "ir", "os", "un")
]
WORDS = ["".join(word) for word in product(SYLLABLES, SYLLABLES)] + [
    "".join(w) for w in product(SYLLABLES[::7], repeat=3)
]
# As often as words are in a language (Zipf's law, with Mandelbrot's shift): a few are in almost
# every passage, most in few.
OFTEN = list(accumulate(1 / (rank + 2.7) for rank in range(len(WORDS))))
ASKED = 200
SEARCHES: Mapping[str, dict[str, Any]] = {
    "search": {},
    "search by words alone": {"mode": "text"},
    "search, scope of 1 in 100": {"scope": "user/7"},
    "search, metadata of 1 in 10": {"where": {"year": {">=": 2013}}},
}
Row = dict[str, str]


def topics() -> Vector:
    """The middles of the clusters."""
    middles: Vector = np.random.default_rng(0).standard_normal(
        (TOPICS, DIMENSION), dtype=np.float32
    )
    return middles


@dataclass
class Synthetic(FakeCompressor):
    """Vectors around a topic that the text's hash chooses; memories of random bytes."""

    def __post_init__(self) -> None:
        self._topics = topics()

    def compress(self, texts: Sequence[str]) -> list[Encoded]:
        """One memory a text, which no other has."""
        return [
            Encoded(
                CompressedPassage(
                    "fake",
                    1,
                    {"bytes": np.frombuffer(random.Random(t).randbytes(BYTES), np.uint8)},
                ),
                self.embed_question(t),
            )
            for t in texts
        ]

    def embed_question(self, question: str) -> Vector:
        """A unit vector, shape [256]."""
        seed = zlib.crc32(question.encode())
        vector = self._topics[seed % TOPICS] + np.random.default_rng(seed).standard_normal(
            DIMENSION, dtype=np.float32
        )
        unit: Vector = vector / np.linalg.norm(vector)
        return unit


class Silent(FakeReader):
    """Every passage is as likely as every other."""

    def word_likelihoods(
        self,
        question: str,  # noqa: ARG002
        memories: Sequence[CompressedPassage],
    ) -> list[list[float]]:
        """One 0 a passage."""
        return [[0.0] for _ in memories]


def document(number: int) -> Document:
    """A text of forty words, in one of a hundred scopes and seventy years."""
    choice = random.Random(number)
    words = " ".join(choice.choices(WORDS, cum_weights=OFTEN, k=40))
    scope, year = f"user/{number % 100}", 1950 + choice.randrange(70)
    return Document(
        f"Note {number}: {words}.",
        source=f"note-{number}.md",
        scope=scope,
        metadata={"year": year, "number": number},
    )


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call takes."""
    began = clock()
    work()
    return clock() - began


def mebibytes() -> float:
    """What this process holds in RAM now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def percentiles(times: Sequence[float]) -> str:
    """The 50th, 95th and 99th, in milliseconds."""
    return " / ".join(f"{1000 * p:.1f}" for p in np.percentile(times, (50, 95, 99)))


def opened(folder: Path) -> Memory:
    """The memory under test."""
    return open_fake(folder, FakeEngine(Synthetic(), Silent()))


def grow(folder: Path, size: int) -> Row:
    """Add what is lacking to `size` passages, and write the index."""
    with opened(folder) as memory:
        have = memory.count()
    fill(folder, range(have, size - ADDED))
    with opened(folder) as memory:
        have = memory.count()
        memory.search("Note 1")
        spent = seconds(lambda: memory.add_many(document(n) for n in range(have, size)))
    return {"add, passages/s": f"{(size - have) / spent:.0f}"}


def fill(folder: Path, numbers: Sequence[int]) -> None:
    """Put documents of one passage into the store, a thousand in a transaction."""
    compressor, store = Synthetic(), SQLiteStore(folder)
    for first in range(0, len(numbers), 1000):
        documents = [replace(document(n), id=f"{n:032x}") for n in numbers[first : first + 1000]]
        store.add_together(
            [(d, [Span(0, len(d.text), 45, f"note-{d.metadata['number']}")]) for d in documents]
        )
        passages = store.pending(1000)
        made = compressor.compress([p.content for p in passages])
        store.save(dict(zip((p.id for p in passages), made, strict=True)), compressor.fingerprint)
    store.close()


def look(folder: Path, size: int) -> Row:
    """Open, search and count, in a process that did nothing else."""
    row, before = Row(), mebibytes()
    began = time.perf_counter()
    with opened(folder) as memory:
        memory.count()
        row["open, ms"] = f"{1000 * (time.perf_counter() - began):.0f}"
        row["first search after opening, ms"] = (
            f"{1000 * seconds(lambda: memory.search('Note 1')):.0f}"
        )
        row["RAM of an open memory, MiB"] = f"{mebibytes() - before:.0f}"
        asked = [
            " ".join(document(n).text.split()[2:8])
            for n in random.Random(size).sample(range(size), ASKED)
        ]
        for name, options in SEARCHES.items():
            row |= searching(memory, name, asked, options)
        stats = memory.stats()
        row["disk, bytes a passage"] = f"{stats.file_bytes / size:.0f}"
        row["index"] = stats.index.split(",")[0]
    return row


def searching(memory: Memory, name: str, asked: Sequence[str], options: Mapping[str, Any]) -> Row:
    """Percentiles by the clock, and the median of what this process computed: neighbours on the
    machine slow the first only.
    """
    took = [seconds(lambda q=query: memory.search(q, **options)) for query in asked]  # type: ignore[misc]
    spent = [
        seconds(lambda q=query: memory.search(q, **options), time.process_time) for query in asked
    ]  # type: ignore[misc]
    return {
        f"{name}: p50 / p95 / p99, ms": percentiles(took),
        f"{name}: CPU, median, ms": f"{1000 * np.median(spent):.1f}",
    }


def maintain(folder: Path, _size: int) -> Row:
    """Write the index again; forget one document, which rewrites every file; look everything
    over.
    """
    with opened(folder) as memory:
        one = memory.list(limit=1).documents[0]
        row = {"reindex, s": f"{seconds(memory.reindex):.1f}"}
        row["forget one (compaction, scan), s"] = f"{seconds(lambda: memory.forget(one.id)):.1f}"
        row["check, s"] = f"{seconds(memory.check):.1f}"
        memory.add(one)
    return row


def index(folder: Path, size: int) -> Row:
    """A bare index: built and proved, then asked, next to exact search over the same vectors."""
    random_ = np.random.default_rng(1)
    matrix = random_.standard_normal((size, DIMENSION), dtype=np.float32)
    matrix += topics()[random_.integers(0, TOPICS, size)]
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    folder.mkdir()
    built = time.perf_counter()
    made = graph.build(folder, 1, np.arange(size), matrix)
    built = time.perf_counter() - built
    assert made is not None
    asked = matrix[random_.integers(0, size, ASKED)] + 0.03 * random_.standard_normal(
        (ASKED, DIMENSION), dtype=np.float32
    )
    near, exact, hits = [], [], 0
    for vector in asked:
        began = time.perf_counter()
        found = made[0].nearest(vector, 100)
        best = found[np.argsort(-(matrix[found] @ vector))[:10]]
        near.append(time.perf_counter() - began)
        began = time.perf_counter()
        true = np.argpartition(-(matrix @ vector), 10)[:10]
        exact.append(time.perf_counter() - began)
        hits += len(set(best.tolist()) & set(true.tolist()))
    return {
        "vectors": f"{size:,} of {DIMENSION} values",
        "build and prove, s": f"{built:.0f}",
        "file, MiB": f"{(folder / made[1].file).stat().st_size / 2**20:.0f}",
        "peak RAM, vectors included, MiB": (
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f}"
        ),
        "open with its hash, s": (
            f"{seconds(lambda: graph.open_trusted(folder, made[1], DIMENSION)):.1f}"
        ),
        "ten nearest: p50 / p95 / p99, ms": percentiles(near),
        "exact search: p50 / p95 / p99, ms": percentiles(exact),
        "recall of the ten nearest": f"{hits / (10 * ASKED):.3f}",
    }


STAGES = {"grow": grow, "look": look, "maintain": maintain, "index": index}


def stage(name: str, folder: Path, size: int) -> Row:
    """One stage in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--stage",
        name,
        "--folder",
        str(folder),
        "--sizes",
        str(size),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - this file
    row: Row = json.loads(done.stdout)
    print(f"{size:,} {name}: {row}", flush=True)
    return row


def table(columns: Mapping[str, Row]) -> str:
    """Rows of figures under the names of their columns."""
    names = list(next(iter(columns.values())))
    lines = [f"| passages | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return "\n".join(
        [*lines, *(f"| {n} | {' | '.join(c[n] for c in columns.values())} |" for n in names)]
    )


def plot(columns: Mapping[int, Row], file: Path) -> None:
    """Milliseconds against passages, both logarithmic: the median line and, dotted, the 99th
    percentile.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot(xlabel="passages", ylabel="milliseconds", xscale="log", yscale="log")
    for number, name in enumerate(SEARCHES):
        points = [c[f"{name}: p50 / p95 / p99, ms"].split(" / ") for c in columns.values()]
        for place, line in ((0, "-"), (2, ":")):
            label = name if not place else None
            ys = [float(p[place]) for p in points]
            axes.plot(
                list(columns), ys, line, color=COLOURS[number], marker=MARKERS[number], label=label
            )
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    with mpl.rc_context({"svg.hashsalt": "cmt", "svg.fonttype": "none"}):
        figure.savefig(file, transparent=True, metadata={"Date": None, "Creator": None})


def main() -> None:
    """Run a stage, or all of them, and write the table and the plot next to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument(
        "--index", type=int, help="also the figures of a bare index of so many vectors"
    )
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        print(json.dumps(STAGES[given.stage](given.folder, given.sizes[0])))
        return
    columns: dict[int, Row] = {}
    with tempfile.TemporaryDirectory() as root:
        for size in given.sizes:
            columns[size] = {
                k: v
                for name in ("grow", "look", "maintain")
                for k, v in stage(name, Path(root) / "m", size).items()
            }
        publish(given.out, given.index, columns, {})
        if given.index:
            publish(
                given.out, given.index, columns, stage("index", Path(root) / "index", given.index)
            )


def publish(out: Path | None, vectors: int | None, columns: Mapping[int, Row], bare: Row) -> None:
    """The page with its command, to the terminal or to a file with the plot next to it."""
    command = " ".join(
        ["python examples/benchmarks/load.py", *([f"--index {vectors}"] if vectors else [])]
    )
    where = (
        f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[2]:.1f}; cmt-sdk"
        f" {__version__}"
    )
    text = (
        f"# Load\n\n`{command}` ({where})\n\n{table({f'{n:,}': c for n, c in columns.items()})}\n"
    )
    if bare:
        text += "\nA bare index:\n\n| what | figure |\n|---|---|\n" + "".join(
            f"| {k} | {v} |\n" for k, v in bare.items()
        )
    if out is None:
        print(text)
        return
    plot(columns, out.with_suffix(".svg"))
    text += (
        "\n![Milliseconds a search against passages; dotted: the 99th"
        f" percentile]({out.stem}.svg)\n"
    )
    out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
