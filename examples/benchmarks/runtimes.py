"""torch and onnxruntime next to each other on this machine's CPU: `cmt ask` from a fresh process
and with a daemon, the first token, and tokens per second, on the example documents.

    python examples/benchmarks/runtimes.py [--rounds 5] [--out runtimes.md]

The runs of both alternate, so that other work on the machine meets both alike; medians are given.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cmt_sdk

EXAMPLES = Path(__file__).parent.parent
RUNTIMES = ("torch", "onnx")
QUESTIONS = ("When did Iceland become independent?", "What is the capital of Bhutan?")
PASSAGES = (1, 5)


def cold_start(folder: Path) -> float:
    """Seconds of `cmt ask` in a fresh process, start to end."""
    command = [sys.executable, "-m", "cmt_cli.main", "ask", "-m", str(folder), QUESTIONS[0]]
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - our own command
    return time.perf_counter() - began


def cold_starts(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each cold start, by runtime."""
    found: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
    for _ in range(rounds):
        for runtime in RUNTIMES:
            with cmt_sdk.open(folder) as memory:
                memory.configure(runtime=runtime)
            found[runtime].append(cold_start(folder))
    return found


def daemon_starts(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of `cmt ask` while a daemon has the model, whole process, by runtime."""
    found: dict[str, list[float]] = {}
    command = [sys.executable, "-m", "cmt_cli.start", "ask", "-m", str(folder), QUESTIONS[0]]
    with tempfile.TemporaryDirectory() as place:
        variables = os.environ | {"XDG_RUNTIME_DIR": place, "CMT_KEEP_ALIVE": "300"}
        for runtime in RUNTIMES:
            with cmt_sdk.open(folder) as memory:
                memory.configure(runtime=runtime)
            for number in range(rounds + 1):
                began = time.perf_counter()
                subprocess.run(command, capture_output=True, check=True, env=variables)  # noqa: S603 - our own command
                if number:  # the first round loads the model
                    found.setdefault(runtime, []).append(time.perf_counter() - began)
        subprocess.run(  # noqa: S603 - our own command
            [*command[:3], "daemon", "stop"], capture_output=True, check=True, env=variables
        )
    return found


def warm(folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """By measure and runtime: milliseconds to the first token, and tokens per second."""
    found: dict[str, dict[str, list[float]]] = {}
    opened = {runtime: cmt_sdk.open(folder, runtime=runtime) for runtime in RUNTIMES}
    try:
        for number in range(rounds + 1):
            for k in PASSAGES:
                for runtime, memory in opened.items():
                    for question in QUESTIONS:
                        answer = memory.ask(question, k=k)
                        times = answer.milliseconds
                        first = sum(ms for stage, ms in times.items() if stage != "decode")
                        rate = 1000 * (answer.answer_tokens - 1) / max(times["decode"], 1e-9)
                        if number:  # the first round loads the model
                            by_k = found.setdefault(f"first token, k={k}, ms", {})
                            by_k.setdefault(runtime, []).append(first)
                            rates = found.setdefault("decoding, tokens/s", {})
                            rates.setdefault(runtime, []).append(rate)
    finally:
        for memory in opened.values():
            memory.close()
    return found


def table(rows: dict[str, dict[str, list[float]]]) -> str:
    """A Markdown table of medians."""
    lines = ["| | torch | onnx |", "|---|---|---|"]
    for name, by_runtime in rows.items():
        medians = [f"{statistics.median(by_runtime[runtime]):.2f}" for runtime in RUNTIMES]
        lines.append(f"| {name} | {' | '.join(medians)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "memory"
        with cmt_sdk.open(folder) as memory:
            memory.add_many(sorted((EXAMPLES / "documents").iterdir()))
        rows = {
            "`cmt ask` from a fresh process, s": cold_starts(folder, options.rounds),
            "`cmt ask` with a daemon that has the model, s": daemon_starts(folder, options.rounds),
        }
        rows |= warm(folder, options.rounds)
    text = (
        "# Runtimes\n\n`python examples/benchmarks/runtimes.py --rounds"
        f" {options.rounds}` ({os.cpu_count()} cores, {platform.machine()}, load before"
        f" {load:.2f})\n\n{table(rows)}\n"
    )
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
