"""Fit the probe of `cmt_sdk.understanding.newest` to pairs of texts, and measure it on pairs that
were kept apart.

    python examples/newest/fit.py probe.npz [MODEL]

`pairs.tsv` holds, a line each: the part (hand, chat, held-out), 1 where the newer text
gives a newer value of what the older one says, the older text, the newer one, and a question about
them. The file that is written belongs into `cmt_sdk/understanding/newest/shipped`, under the name
that is printed. Takes some minutes on a CPU.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import cmt_sdk
from cmt_sdk.understanding.newest import text_of

RIDGE = 3.0
WEIGHTS = {"hand": 3.0, "chat": 5.0}  # of the pairs that the probe is fitted to


def main() -> None:
    """Fit, measure, write."""
    model = sys.argv[2] if len(sys.argv) > 2 else cmt_sdk.Settings().model
    with (Path(__file__).parent / "pairs.tsv").open(encoding="utf-8") as file:
        rows = [
            [cell.replace("\\n", "\n") for cell in row]
            for row in csv.reader(file, "excel-tab", quoting=csv.QUOTE_NONE)
        ]
    parts = np.array([row[0] for row in rows])
    labels = np.array([row[1] == "1" for row in rows])
    with tempfile.TemporaryDirectory() as folder, cmt_sdk.open(folder, model=model) as memory:
        state_reader = memory._engine.state_reader
        states = state_reader.states([text_of(older, newer) for _, _, older, newer, _ in rows])
        name = state_reader.name
    chosen = parts != "held-out"
    weights, bias = fit(
        states[chosen], labels[chosen], np.array([WEIGHTS[part] for part in parts[chosen]])
    )
    for part in ("hand", "held-out"):
        found, wanted = states[parts == part] @ weights + bias > 0, labels[parts == part]
        print(f"{part}: recall {found[wanted].mean():.2f}, of others {found[~wanted].mean():.2f}")
    np.savez(sys.argv[1], weights=weights.astype(np.float32), bias=np.float32(bias))
    print(f"{sys.argv[1]}: as {name}.npz")


def fit(states: Any, labels: Any, counts: Any) -> tuple[Any, float]:
    """Weights [d] and bias by ridge regression on n pairs, their states [n, d]; `counts` [n] says
    how much each counts.
    """
    states = states.astype(np.float64)
    mean, scale = states.mean(0), (states.std(0) + 1e-6) * np.sqrt(states.shape[1])
    features, targets = (states - mean) / scale, 2.0 * labels - 1.0
    centre, middle = (
        np.average(features, axis=0, weights=counts),
        np.average(targets, weights=counts),
    )
    inner = features - centre
    dual = np.linalg.solve(inner @ inner.T + RIDGE * np.diag(1 / counts), targets - middle)
    weights = inner.T @ dual
    return weights / scale, float(middle - (mean / scale + centre) @ weights)


if __name__ == "__main__":
    main()
