"""Timings side by side in one run, on the example documents: python examples/benchmarks/bench.py
--out FILE.

Adding (next to a bare forward pass of the model), asking with the memory and the text reader,
decoding, bytes, cold start, and, where llama-cpp-python is installed, text RAG through llama.cpp on
the same weights.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# as the command line does, and before torch comes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

import cmt_sdk

HERE = Path(__file__).parent
DOCUMENTS, QUESTIONS = HERE.parent / "documents", HERE.parent / "demo_questions.txt"
KS = (1, 4, 8)


class Rows(list[tuple[str, str]]):
    """The lines of the table, shown as they come."""

    def append(self, row: tuple[str, str]) -> None:
        """One more line."""
        super().append(row)
        print(f"{row[0]}: {row[1]}", flush=True)


def milliseconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def adding(memory: cmt_sdk.Memory, rows: Rows) -> None:
    """Passages and tokens a second, next to one bare forward pass over the same passages one by
    one.
    """
    spent = milliseconds(lambda: memory.add_many(sorted(DOCUMENTS.iterdir()))) / 1000
    stats = memory.stats()
    lm = memory._engine._frozen  # type: ignore[attr-defined]
    passages = [p.content for d in memory.documents() for p in memory.passages(d.id)]
    with torch.inference_mode():
        ids = [torch.tensor([lm.passage_ids(p)], device=lm.device) for p in passages]
        bare = (
            milliseconds(lambda: [lm.model.base_model(input_ids=i, use_cache=True) for i in ids])
            / 1000
        )
    rows.append(("add, passages/s", f"{stats.passages / spent:.1f}"))
    rows.append(("add, tokens/s", f"{stats.tokens / spent:.0f}"))
    rows.append(("bare forward pass of the model, tokens/s", f"{stats.tokens / bare:.0f}"))
    rows.append(("add / bare forward pass, time", f"{spent / bare:.2f}"))
    rows.append(("passages", str(stats.passages)))
    rows.append(("memory, bytes a passage on disk", f"{stats.memory_bytes / stats.passages:.0f}"))
    rows.append(("memory, bytes a token", f"{stats.memory_bytes / stats.tokens:.0f}"))
    rows.append(("text, bytes a passage", f"{stats.text_bytes / stats.passages:.0f}"))


def asking(memory: cmt_sdk.Memory, questions: Sequence[str], rows: Rows) -> None:
    """Time to first token and in all, memory and text reader in turn on the same questions;
    medians.
    """
    for k in KS:
        first: dict[str, list[float]] = {"memory": [], "text": []}
        total: dict[str, list[float]] = {"memory": [], "text": []}
        tokens: dict[str, list[int]] = {"memory": [], "text": []}
        for round_ in range(2):  # the first round warms up
            for question in questions:
                for reader in ("memory", "text"):
                    a = memory.model.ask(question, k=k, reader=reader)
                    if round_:
                        stages = a.milliseconds
                        first[reader].append(sum(stages.values()) - stages["decode"])
                        total[reader].append(sum(stages.values()))
                        tokens[reader].append(a.prompt_tokens)
        for reader in ("memory", "text"):
            answers = (
                f"{statistics.median(first[reader]):.0f} / {statistics.median(total[reader]):.0f}"
            )
            rows.append((f"k={k}, {reader} reader: ms to first token / in all", answers))
            rows.append(
                (
                    f"k={k}, {reader} reader: prompt tokens",
                    f"{statistics.median(tokens[reader]):.0f}",
                )
            )
        ratios = [t / m for t, m in zip(first["text"], first["memory"], strict=True)]
        rows.append((f"k={k}, first token, text / memory", f"{statistics.median(ratios):.1f}"))
    stages = memory.model.ask(questions[0], k=KS[-1]).milliseconds
    rows.append(
        (
            f"k={KS[-1]}, memory reader, stages (ms)",
            ", ".join(f"{n} {ms:.0f}" for n, ms in stages.items()),
        )
    )


def decoding(memory: cmt_sdk.Memory, rows: Rows) -> None:
    """Tokens a second once the first is there: bare model, long answer."""
    answer = memory.model.ask("Tell a long story about a lighthouse.", reader="none", max_tokens=64)
    rate = (answer.answer_tokens - 1) / answer.milliseconds["decode"] * 1000
    rows.append(("decoding, bare model, tokens/s", f"{rate:.1f}"))
    answers = [memory.model.ask(q, k=4) for q in questions_of(QUESTIONS)]
    many = [a for a in answers if a.answer_tokens > 1]
    rates = [(a.answer_tokens - 1) / a.milliseconds["decode"] * 1000 for a in many]
    rows.append(
        ("decoding, memory reader (adapter on), tokens/s", f"{statistics.median(rates):.1f}")
    )


def cold_start(folder: Path, question: str, rows: Rows) -> None:
    """`cmt ask` in a fresh process, start to end; `cmt list` next to it."""
    for name, words in (("cmt ask", ["ask", question]), ("cmt list", ["list"])):
        command = [sys.executable, "-m", "cmt_cli.main", words[0], "-m", str(folder), *words[1:]]
        runs = [
            milliseconds(lambda c=command: subprocess.run(c, capture_output=True, check=True))  # noqa: S603
            for _ in range(3)
        ]
        rows.append(
            (f"cold start of `{name}`, s (median of 3)", f"{statistics.median(runs) / 1000:.2f}")
        )


def llama(memory: cmt_sdk.Memory, questions: Sequence[str], rows: Rows) -> None:
    """Text RAG over the same passages through llama.cpp, where it is installed and $LLAMA_GGUF
    names the weights.
    """
    try:
        from llama_cpp import Llama
    except ImportError:
        return
    gguf = os.environ.get("LLAMA_GGUF")
    if not gguf:
        return
    model = Llama(gguf, n_ctx=4096, n_threads=os.cpu_count(), verbose=False)
    for k in KS:
        times, rates = [], []
        for question in questions:
            text = "\n\n".join(m.passage.content for m in memory.search(question, k))
            model.reset()
            began = time.perf_counter()
            messages: list[Any] = [{"role": "user", "content": f"{text}\n\nQuestion: {question}"}]
            pieces = model.create_chat_completion(
                messages, max_tokens=24, temperature=0, stream=True
            )
            marks = [time.perf_counter() for _ in pieces]
            times.append(1000 * (marks[1] - began))
            rates.append((len(marks) - 2) / (marks[-1] - marks[1]))
        rows.append(
            (f"k={k}, llama.cpp text RAG: ms to first token", f"{statistics.median(times):.0f}")
        )
        rows.append((f"k={k}, llama.cpp decoding, tokens/s", f"{statistics.median(rates):.0f}"))


def questions_of(path: Path) -> list[str]:
    """The questions of the demo."""
    return [
        line.split("\t")[0]
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    questions, rows = questions_of(QUESTIONS), Rows()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "memory"
        with cmt_sdk.open(folder, precision=options.precision) as memory:
            memory.add(
                "A first document loads the model, so that loading is not timed as adding.",
                scope="warm",
            )
            memory.forget(scope="warm")
            adding(memory, rows)
            asking(memory, questions, rows)
            decoding(memory, rows)
            llama(memory, questions, rows)
        cold_start(folder, questions[0], rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("peak memory of this process, MiB", f"{peak:.0f}"))
    machine = (
        f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, load before"
        f" {load:.2f}"
    )
    command = f"python examples/benchmarks/bench.py --precision {options.precision}"
    table = "\n".join(["| what | figure |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])
    text = f"# Timings\n\n`{command}` ({machine}; cmt-sdk {cmt_sdk.__version__})\n\n{table}\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
