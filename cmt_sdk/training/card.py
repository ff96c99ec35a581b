"""The model card and the loss curve that a run leaves for people. Reads the log; knows no model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cmt_sdk.errors import MissingExtra
from cmt_sdk.plotting import training_curve
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.recipe import DatasetSizes, Recipe, ResourceEstimate
from cmt_sdk.training.task import Progress

CARD = """\
# {part} for {model}

Made by `cmt train`: {what}, {numbers:,} trained parameters. The base model is unchanged. To use it:
`cmt_sdk.open("notes", adapter="{out}")`, or `cmt config set adapter {out}`.

{scores}
{progress.step} steps, {progress.questions:,} questions, {progress.tokens:,} answer tokens.
Best validation score {progress.best:.4f}, the lower the better; these are its weights.

{material}
Up to {plan.steps} steps of {examples} examples, peak rate {plan.rate:g}, cosine, AdamW;
rank {recipe.rank}; {recipe.nf4:.0%} of the examples read by the base as NF4 makes it;
started from {recipe.start!r}; seed {recipe.seed}{minutes}{without}.
`log.jsonl` holds a line per step.

An adapter remembers some of the texts that it was trained on: share it as you would share them.
"""
WORDS = {
    "reader": "the adapter that reads memories",
    "compressor": "the adapters that make and read memories",
    "soft": "the adapters that make and read soft memories",
    "cmt": "the adapter that makes soft memories, and psi and pi, which gather them",
    "matcher": "the head that makes embeddings",
    "embedding": "the adapter and the head that make embeddings",
}


def write_card(
    recipe: Recipe, needs: ResourceEstimate, material: DatasetSizes, progress: Progress
) -> None:
    """Write `out/README.md`, and `out/curve.svg` where the plotting library is installed.

    Args:
        recipe: The run.
        needs: The resources that it took.
        material: What it learned from.
        progress: How far it came.
    """
    card = CARD.format(
        part=recipe.part.capitalize(),
        model=recipe.model,
        what=WORDS[recipe.part],
        numbers=needs.parameters,
        out=recipe.out,
        scores=_scores(recipe.out / "log.jsonl"),
        progress=progress,
        material=_material(material),
        plan=recipe.plan,
        examples=recipe.plan.accumulate * recipe.batch * Workers().size,
        recipe=recipe,
        minutes=(
            "" if math.isinf(recipe.minutes) else f", at most {recipe.minutes:g} minutes a call"
        ),
        without=f"; without {', '.join(recipe.ablate)}" if recipe.ablate else "",
    )
    (recipe.out / "README.md").write_text(card, encoding="utf-8")
    lines = [
        json.loads(line)
        for line in (recipe.out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    with suppress(MissingExtra):  # the log has the numbers
        (recipe.out / "curve.svg").write_text(training_curve(lines), encoding="utf-8")


def _scores(log: Path) -> str:
    """The validation figures of a log, the first and the last ones, as a table."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    judged = [line for line in lines if figures_of(line)]
    first = judged[0]
    last = judged[-1]
    rows = [
        (
            "on held-out data",
            f"after {first['questions']:,} questions",
            f"after {last['questions']:,}",
        )
    ]
    rows += [
        (name, f"{value:.4f}", f"{last[name]:.4f}") for name, value in figures_of(first).items()
    ]
    return _table(rows)


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The validation figures of a line of the log, if it has any."""
    return {n: v for n, v in line.items() if n.startswith(("held_out", "recall"))}


def _material(material: DatasetSizes) -> str:
    """The numbers of passages and questions by file, as a table."""
    rows = [("file", "passages learned from", "questions", "passages held out")]
    for name, (passages, questions) in material.learned.items():
        rows.append((name, f"{passages:,}", f"{questions:,}", f"{material.judged[name][0]:,}"))
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first as its head."""
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest, ""])
