"""What each piece of training is worth: ablations.py DATA OUT [--part PART]... trains each variant
as long, from the same start.

All variants of a part begin with the bare model, see the same number of examples and are judged by
the same held-out packs. Called again it goes on where it stopped; the table is printed at the end,
and kept in OUT/table.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmt_sdk.training import Objectives, Plan, Recipe, prepare

BOTH = Objectives(answer=0.5, teacher=1.0)
PAPER = Objectives(answer=1.0, alpha=0.5)
VARIANTS: Mapping[str, Sequence[tuple[str, dict[str, Any]]]] = {
    "reader": (
        ("all pieces", {}),
        ("without distractors", {"ablate": ("distractors",)}),
        ("without absent passages", {"ablate": ("absent",)}),
        ("without pruned memories", {"ablate": ("pruning",)}),
        ("without the four bits", {"ablate": ("rounding",)}),
        ("with an encoder adapter too", {"part": "compressor"}),
    ),
    "soft": (
        ("all pieces", {"objectives": BOTH}),
        ("without the teacher", {"objectives": Objectives(answer=1.0)}),
        ("without the answers' cross-entropy", {"objectives": Objectives(answer=0.0, teacher=1.0)}),
        ("with the teacher's states too, weight 3", {"objectives": replace(BOTH, states=3.0)}),
        ("with memory-aware logits, alpha 0.5", {"objectives": replace(BOTH, alpha=0.5)}),
        ("without the warm start", {"objectives": BOTH, "ablate": ("warm-start",)}),
        ("without drawn ratios", {"objectives": BOTH, "ablate": ("ratios",)}),
        ("without the four bits", {"objectives": BOTH, "ablate": ("rounding",)}),
    ),
    "cmt": (
        ("all pieces", {"objectives": PAPER}),
        ("without the memory-aware objective", {"objectives": replace(PAPER, alpha=0.0)}),
        ("without self-matching", {"objectives": PAPER, "ablate": ("matching",)}),
    ),
    "matcher": (("all pieces", {}), ("without hard negatives", {"ablate": ("negatives",)})),
}


def main() -> None:
    """Train what is not trained yet, then tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--part",
        action="append",
        choices=tuple(VARIANTS),
        help="one of these parts; may be given again",
    )
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--held-out", type=int, default=4)
    options = parser.parse_args()
    table = []
    for part in options.part or VARIANTS:
        for name, changes in VARIANTS[part]:
            out = options.out / part / name.replace(" ", "-").replace(",", "").replace("'", "")
            _train(_recipe(part, changes, out, options))
            table.append(_row(part, name, out / "log.jsonl"))
            (options.out / "table.md").write_text("".join(table), encoding="utf-8")
            print(table[-1], end="", flush=True)


def _recipe(part: str, changes: dict[str, Any], out: Path, options: argparse.Namespace) -> Recipe:
    plan = Plan(
        options.steps,
        1e-3,
        accumulate=1,
        warmup=4,
        validate_every=options.steps,
        save_every=options.steps,
    )
    whole = replace(plan, steps=4 * options.steps, rate=2e-3, validate_every=4 * options.steps)
    return Recipe(
        **{"part": part, "plan": whole if part == "matcher" else plan, **changes},
        out=out,
        questions=[options.data],
        model=options.model,
        device=options.device,
        start="none",
        nf4=0.0,
        held_out=options.held_out,
        passages=800,
    )


def _train(recipe: Recipe) -> None:
    log = recipe.out / "log.jsonl"
    if not log.exists() or '"end"' not in log.read_text(encoding="utf-8"):
        prepare(recipe).run(lambda line: print(line, flush=True) if "loss" not in line else None)


def _row(part: str, name: str, log: Path) -> str:
    """Part, variant, questions seen, and each held-out figure before and after."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    judged = [line for line in lines if any(n.startswith(("held_out", "recall")) for n in line)]
    first, last = judged[0], judged[-1]
    figures = [
        f"{n} {first[n]:.3f} → {last[n]:.3f}" for n in last if n.startswith(("held_out", "recall"))
    ]
    return f"| {part} | {name} | {last['questions']} | {'; '.join(figures)} |\n"


if __name__ == "__main__":
    main()
