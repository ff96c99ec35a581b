"""The peak memory of training steps on this machine, next to what was foretold of them.

    python examples/benchmarks/training_memory.py QUESTIONS MODEL [PART NF4 [--checkpointing]]

Each case runs in a process of its own: on a GPU the peak of torch's allocator, on a CPU that of the
process. Without PART all of CASES run.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from cmt_sdk.training import Recipe, prepare

CASES = (
    ("reader", 0.0, False),
    ("reader", 1.0, False),
    ("compressor", 0.0, True),
    ("compressor", 1.0, True),
    ("soft", 1.0, True),
)
EXAMPLES = 4


def measure(options: argparse.Namespace) -> None:
    """Run examples of one case, and print the figures of it."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(
            options.part,
            Path(folder) / "run",
            [options.questions],
            model=options.model,
            device=options.device,
            start="none",
            nf4=options.nf4,
            checkpointing=options.checkpointing,
        )
        prepared = prepare(recipe)
        for _ in range(EXAMPLES):
            prepared.task.learn()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if torch.cuda.is_available() and options.device != "cpu":
        peak = torch.cuda.max_memory_reserved()
    ways = f"--nf4 {options.nf4:g}{' --checkpointing' if options.checkpointing else ''}"
    print(
        f"{options.model} {options.part} {ways}: foretold"
        f" {prepared.needs.memory / 2**30:.2f} GiB, peak {peak / 2**30:.2f} GiB,"
        f" {prepared.needs.seconds:.1f} s a step",
        flush=True,
    )


def main() -> None:
    """Measure one case, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=Path)
    parser.add_argument("model")
    parser.add_argument("part", nargs="?")
    parser.add_argument("nf4", nargs="?", type=float, default=0.0)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.part:
        measure(options)
        return
    for part, nf4, checkpointing in CASES:
        given = [*sys.argv[1:], part, str(nf4), *(["--checkpointing"] if checkpointing else [])]
        subprocess.run([sys.executable, __file__, *given], check=True)  # noqa: S603 - this file


if __name__ == "__main__":
    main()
