"""CPU time of each stage of a question with onnxruntime, for one row and for several at once.

    cmt eval squad_dev_tail.jsonl.gz --limit 1 --reader memory -m STORE   # fills the memory
    python examples/benchmarks/stages.py -m STORE "Who designed the first clarinet?"

What a stage costs a row when 1, 4 or 16 rows are read together says what a server gains that reads
several questions in one pass. One thread: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import cmt_sdk
from cmt_sdk.cpu.engine import CPUModel
from cmt_sdk.reading.limits import NON_BEST_BIAS
from cmt_sdk.types import CompressedPassage

BATCHES = (1, 4, 16)  # questions
CANDIDATES = (1, 3, 5, 10)  # passages put in order
READ = 5  # passages of a question
STEPS = 8  # tokens of an answer
ROUNDS = 3


def spent(work: Callable[[], object]) -> float:
    """Milliseconds of CPU time of one call: the median, after one that warms up."""
    work()
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times)


def figures(
    model: CPUModel, question: str, memories: list[CompressedPassage]
) -> Iterator[tuple[str, float, int]]:
    """The name of a stage, its milliseconds, and its rows."""
    reader, adapter = model.reader, model.reader.adapter("reader")
    ids = reader.prompts.question_ids(question, ())
    yield "encode the question", spent(lambda: model.embed(question)), 1
    for count in CANDIDATES:
        some = memories[:count]
        yield (
            f"put {count} in order",
            spent(lambda some=some: reader.word_likelihoods(question, some)),
            count,
        )
    for rows in BATCHES:
        read = [memories[:READ]] * rows

        def placed(read: list[list[CompressedPassage]] = read) -> object:
            return reader.layout.cache(read, NON_BEST_BIAS)

        yield f"place {READ} passages for {rows}", spent(placed), rows
        tokens, last = np.array([ids] * rows), np.array([len(ids) - 1])
        caches = [reader.layout.cache(read, NON_BEST_BIAS) for _ in range(ROUNDS + 1)]
        left = iter(caches)
        yield (
            f"read the {len(ids)} tokens of {rows}",
            spent(lambda: reader.network.logits(tokens, next(left), adapter, last)),  # noqa: B023
            rows,
        )
        one = np.full((rows, 1), ids[0])

        def steps(cache: object = caches[0], one: object = one) -> None:
            for _ in range(STEPS):
                reader.network.logits(one, cache, adapter, np.zeros(1, np.int64))

        yield f"write a token of {rows}", spent(steps) / STEPS, rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question")
    parser.add_argument("-m", "--memory", type=Path, required=True)
    options = parser.parse_args()
    with cmt_sdk.open(options.memory, runtime="onnx") as memory:
        found = memory.search(options.question, max(CANDIDATES))
        ids = [match.passage.id for match in found]
        memories = list(memory.model._retriever.passage_encoder.load(ids).values())
        model = memory._engine._cpu
        assert model is not None, "this model has no graph for onnxruntime"
        print("| stage | CPU, ms | ms a row |\n|---|---|---|")
        for name, milliseconds, rows in figures(model, options.question, memories):
            print(f"| {name} | {milliseconds:.0f} | {milliseconds / rows:.1f} |", flush=True)


if __name__ == "__main__":
    main()
