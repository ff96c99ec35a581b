"""Two runs of `cmt eval` on the same questions, paired: F1, abstention, and what differs.

    cmt eval FILE --protocol stream --limit 300 --seed 1 --reader memory --set runtime=torch
        --rows torch.rows
    cmt eval FILE --protocol stream --limit 300 --seed 1 --reader memory --set runtime=onnx
        --rows onnx.rows
    python examples/benchmarks/paired.py torch.rows onnx.rows

Intervals: 95 %, bootstrap over questions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmt_sdk.evaluation.metrics import auroc, bootstrap

Rows = Mapping[str, Mapping[str, Any]]


def rows_of(file: Path) -> Rows:
    """The questions of a --rows file by id."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def abstention(rows: Sequence[Mapping[str, Any]], reader: str) -> float | None:
    """AUROC of the confidence, of questions with their passage against those without."""
    present = [row["replies"][reader]["confidence"] for row in rows]
    absent = [row["absent"][reader]["confidence"] for row in rows if row["absent"]]
    return auroc([*present, *absent], [True] * len(present) + [False] * len(absent))


def lines(first: Rows, second: Rows, reader: str = "memory") -> list[str]:
    """The comparison in lines: first, second, and second - first."""
    ids = [i for i in first if i in second]
    one, two = ([rows[i] for i in ids] for rows in (first, second))
    before, after = ([100 * row["replies"][reader]["f1"] for row in rows] for rows in (one, two))
    gains = [b - a for a, b in zip(before, after, strict=True)]
    mean = bootstrap(gains, 0, 10_000)

    def other(field: str) -> int:
        return sum(
            a["replies"][reader][field] != b["replies"][reader][field]
            for a, b in zip(one, two, strict=True)
        )

    scores = (
        f"{len(ids)} questions, F1 {sum(before) / len(ids):.2f} and {sum(after) / len(ids):.2f}:"
        f" {mean.mean:+.2f} ({mean.low:+.2f} to {mean.high:+.2f}),"
        f" {sum(g > 0 for g in gains)} better, {sum(g < 0 for g in gains)} worse"
    )
    found = [
        scores,
        f"other words {other('text')}, other passages or another order {other('sources')}",
    ]
    known = [abstention(rows, reader) for rows in (one, two)]
    if None not in known:
        found.append("AUROC of the confidence " + " and ".join(f"{value:.4f}" for value in known))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison of two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--reader", default="memory")
    given = parser.parse_args(arguments)
    print("\n".join(lines(rows_of(given.first), rows_of(given.second), given.reader)))


if __name__ == "__main__":
    main()
