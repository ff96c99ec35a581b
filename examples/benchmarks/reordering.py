"""How many candidates the model puts in order before it reads: answers and cost by their number.

    cmt eval squad_dev_tail.jsonl.gz --limit 1 --reader memory -m STORE   # fills the memory
    python examples/benchmarks/reordering.py squad_dev_tail.jsonl.gz -m STORE --rows FILE

Every question is asked with each choice, as `cmt eval --protocol stream --k 5 --reader memory --set
rerank=N` asks it. What several choices compute alike (the question's likelihood after a passage,
the reading of the same passages in the same order) is computed once; its CPU time counts for each.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cmt_sdk
from cmt_sdk.evaluation.drawing import draw
from cmt_sdk.evaluation.metrics import f1
from cmt_sdk.questions.dataset import read_passages

DEPTHS = (10, 5, 3, 0)
LEADS = (0.1, 0.2, 0.3, 0.4)  # of the best candidate over the second, in fused score
Row = dict[str, dict[str, float]]


class Shared:
    """Computes what choices have in common once, and remembers its CPU time.

    Args:
        memory: The memory that is asked; its engine's reader and its retriever are wrapped.
    """

    def __init__(self, memory: cmt_sdk.Memory) -> None:
        self.spent = 0.0
        self._made: dict[Hashable, tuple[Any, float]] = {}
        self.retriever = memory.model._retriever
        reader = self.retriever.engine.reader
        read, likelihoods = reader.read, reader.word_likelihoods

        def shared_read(prompt: Any, max_tokens: int) -> Iterator[Any]:
            places = tuple(_name(m) for m in prompt.memories)
            key = ("read", prompt.question, places, tuple(prompt.texts), max_tokens)
            return iter(self.once(key, lambda: list(read(prompt, max_tokens))))

        def shared_likelihoods(question: str, memories: Sequence[Any]) -> list[list[float]]:
            names = [_name(m) for m in memories]
            missing = [n for n, name in enumerate(names) if (question, name) not in self._made]
            began = time.process_time()
            made = likelihoods(question, [memories[n] for n in missing])
            cost = (time.process_time() - began) / max(1, len(missing))
            for n, row in zip(missing, made, strict=True):
                self._made[question, names[n]] = row, cost
            rows = [self._made[question, name] for name in names]
            self.spent += sum(cost for _, cost in rows)
            return [row for row, _ in rows]

        object.__setattr__(reader, "read", shared_read)
        object.__setattr__(reader, "word_likelihoods", shared_likelihoods)
        embed = self.retriever.embed_question
        self.retriever.embed_question = lambda q: self.once(("embed", q), lambda: embed(q))

    def once(self, key: Hashable, work: Callable[[], Any]) -> Any:
        """The result of `work`, which runs once for a key; its CPU time is added to `spent`."""
        if key not in self._made:
            began = time.process_time()
            result = work()
            self._made[key] = result, time.process_time() - began
        result, cost = self._made[key]
        self.spent += cost
        return result

    def next_question(self) -> None:
        """Forget what belongs to the last question."""
        self._made.clear()
        self.forget_rows()

    def forget_rows(self) -> None:
        """Empty the retriever's own cache, so that a choice asks for its rows again."""
        self.retriever._words._entries.clear()


def _name(memory: Any) -> int:
    return hash((memory.tokens, *(a.tobytes() for a in memory.arrays.values())))


def ask(memory: cmt_sdk.Memory, shared: Shared, item: Any) -> Row:
    """By number of candidates: F1, whether the own passage is read and leads, and CPU seconds."""
    matches = memory.search(item.question.text, 2)
    replies: Row = {"search": {"lead": matches[0].score - matches[1].score}}
    shared.next_question()
    for depth in DEPTHS:
        shared.spent = 0.0
        shared.forget_rows()
        shared.retriever.rerank_depth = depth
        answer = memory.model.ask(item.question.text, reader="memory", k=5, max_tokens=32)
        sources = [s.source for s in answer.sources]
        replies[str(depth)] = {
            "f1": f1(answer.text.strip().partition("\n")[0], item.question.answers),
            "read": float(item.source in sources),
            "first": float(sources[:1] == [item.source]),
            "cpu": shared.spent,
        }
    return replies


def choices(rows: Sequence[Row]) -> dict[str, list[dict[str, float]]]:
    """By name of a choice, its reply to each question; "close": none are put in order where the
    best candidate leads by more.
    """
    found = {str(depth): [row[str(depth)] for row in rows] for depth in DEPTHS}
    for depth in DEPTHS[:-1]:
        for lead in LEADS:
            found[f"{depth} where the lead is below {lead}"] = [
                row[str(depth) if row["search"]["lead"] < lead else "0"] for row in rows
            ]
    return found


def table(rows: Sequence[Row]) -> str:
    """The figures as Markdown; intervals by a paired bootstrap against the first choice."""
    found = choices(rows)
    base = np.array([reply["f1"] for reply in found["10"]])
    picks = np.random.default_rng(0).integers(0, len(rows), (4000, len(rows)))
    lines = [
        "| candidates put in order | F1 | against 10 (95 %) | own passage first | CPU, ms |",
        "|---|---|---|---|---|",
    ]
    for name, replies in found.items():
        mine = np.array([reply["f1"] for reply in replies])
        low, high = 100 * np.percentile((mine - base)[picks].mean(1), [2.5, 97.5])
        first, cpu = (np.mean([reply[n] for reply in replies]) for n in ("first", "cpu"))
        lines.append(
            f"| {name} | {100 * mine.mean():.1f} | {100 * (mine - base).mean():+.1f}"
            f" ({low:+.1f} to {high:+.1f}) | {100 * first:.1f} % | {1000 * cpu:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Ask, write the rows as they come, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("-m", "--memory", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", default="onnx")
    parser.add_argument("--rows", type=Path, required=True, help="written, and continued")
    options = parser.parse_args()
    items = draw(read_passages(options.file), options.limit, options.seed, with_other=False)
    random.Random(options.seed).shuffle(items)  # so that a part of the run is a fair sample
    done = options.rows.read_text().splitlines() if options.rows.exists() else []
    with (
        cmt_sdk.open(options.memory, runtime=options.runtime) as memory,
        options.rows.open("a") as out,
    ):
        memory.ask(items[0].question.text)  # loads the model
        shared = Shared(memory)
        for item in items[len(done) :]:
            out.write(json.dumps(ask(memory, shared, item)) + "\n")
            out.flush()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    print(f"{len(rows)} questions\n\n{table(rows)}")


if __name__ == "__main__":
    main()
