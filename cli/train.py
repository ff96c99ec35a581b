"""`cmt train`: adapters for the model of one's choice, from questions or from plain text."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cmt_cli import output
from cmt_cli.output import amount, say

if TYPE_CHECKING:
    from cmt_sdk.training.run import Prepared

PARTS = ["reader", "compressor", "soft", "cmt", "matcher", "embedding"]
EXISTING = click.Path(exists=True, path_type=Path)
OnStep = Callable[[Mapping[str, Any]], None]


@click.command()
@click.argument("questions", nargs=-1, type=EXISTING)
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=EXISTING,
    help="A file or folder of plain text; may be given again.",
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the adapter goes.",
)
@click.option(
    "--part",
    type=click.Choice(PARTS),
    default="reader",
    show_default=True,
    help="What learns: see below.",
)
@click.option("--model", help="A pulled model or a local folder.  [default: the default model]")
@click.option(
    "--start",
    default="default",
    show_default=True,
    help="Go on from: default, none, or an adapter's folder.",
)
@click.option(
    "--steps",
    default=1000,
    show_default=True,
    help="Optimiser steps; the rate falls towards the last.",
)
@click.option(
    "--minutes",
    type=float,
    default=math.inf,
    help="Train for so many, loading apart; the same command goes on.",
)
@click.option("--rate", type=float, help="The peak learning rate.  [default: soft 2e-3, else 1e-3]")
@click.option(
    "--accumulate", default=3, show_default=True, help="Examples a step, or batches of them."
)
@click.option(
    "--batch",
    default=1,
    show_default=True,
    help="reader, compressor, soft: examples at once; more fill a GPU.",
)
@click.option("--rank", default=32, show_default=True, help="The rank of a new adapter.")
@click.option(
    "--nf4",
    default=0.3,
    show_default=True,
    help="The share of examples read by the base as NF4 makes it.",
)
@click.option(
    "--ablate",
    multiple=True,
    metavar="INGREDIENT",
    help="Ablate a training ingredient (repeatable): see below.",
)
@click.option(
    "--answer", default=0.5, show_default=True, help="The weight of the answers' cross-entropy."
)
@click.option(
    "--teacher",
    default=1.0,
    show_default=True,
    help="The weight of the divergence from reading all.",
)
@click.option(
    "--states",
    type=float,
    help="soft: of the distance from the text reader's states.  [default: soft 3, else 0]",
)
@click.option(
    "--alpha",
    type=float,
    help="soft, cmt: of the memory-aware logits; 0: off.  [default: cmt 0.5, else 0]",
)
@click.option("--ratio", default=8, show_default=True, help="cmt: tokens a latent.")
@click.option(
    "--candidates",
    default=0,
    help="embedding: passages to tell apart at once.  [default: as many as suit the device]",
)
@click.option("--held-out", default=4, show_default=True, help="How much each validation looks at.")
@click.option(
    "--validate-every", default=100, show_default=True, help="Steps between two validations."
)
@click.option(
    "--save-every", default=50, show_default=True, help="Steps between two savings of the state."
)
@click.option(
    "--patience",
    default=0,
    help="Stop after so many validations without a better one.  [default: never]",
)
@click.option(
    "--checkpointing",
    is_flag=True,
    help="Hold less memory: layers compute again for their gradients.",
)
@click.option("--seed", default=0, show_default=True, help="Draws the examples.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option(
    "-y", "--yes", is_flag=True, help="Begin without asking, as where no terminal can answer."
)
def train(
    *, model: str | None, yes: bool, steps: int, rate: float | None, accumulate: int, **options: Any
) -> None:
    """Train an adapter on QUESTIONS, or on plain text with --text.

    QUESTIONS are JSON lines, .gz or not: {"title", "context", "question", "answers": [...]}. The
    base model never changes. The same command goes on where an earlier one was stopped, even by a
    kill.

    Parts: reader reads the kv memories that there are; compressor makes and reads kv memories,
    which then have to be encoded again; soft makes and reads soft memories; cmt makes soft memories
    and gathers them as the paper does, without a reader adapter; matcher makes the embeddings that
    passages are found by, from the bare model's states; keys makes better ones, with an adapter of
    the lower layers, and takes longer.

    Ingredients that can be ablated: distractors (passages beside the right one), absent (questions
    whose passage is absent), rounding (the four bits of stored memories), pruning (reader,
    compressor: memories with fewer entries), repetition, ratios and warm-start (soft), matching
    (cmt: self-matching), negatives (matcher, embedding: passages that the question's words also
    fit).

    \b
    Example:
      cmt train questions.jsonl --out my-reader --minutes 30
      cmt train --text ~/notes --out my-reader --minutes 30
      cmt config set adapter my-reader
    """  # noqa: D301 - click reads the escape
    from cmt_sdk.training import Plan, Recipe, objectives_for, prepare, rate_for

    weights = {name: options.pop(name) for name in ("answer", "teacher", "alpha", "states")}
    objectives = objectives_for(options["part"], **weights)
    pauses = {name: options.pop(name) for name in ("validate_every", "save_every", "patience")}
    plan = Plan(steps, rate_for(options["part"], rate), accumulate, **pauses)
    recipe = Recipe(
        plan=plan, objectives=objectives, **options | ({"model": model} if model else {})
    )
    prepared = prepare(recipe)
    if not prepared.is_main:
        prepared.run()
        return
    _announce(prepared)
    if (
        not yes
        and prepared.alone
        and output.on_terminal(sys.stdin)
        and not click.confirm("Begin?", default=True, err=True)
    ):
        return
    with _bar(plan.steps) as on_step:
        progress = prepared.run(on_step)
    say(
        f"{amount(progress.step, 'step')}, {amount(progress.questions, 'question')}:"
        f" {recipe.out}/README.md tells the rest"
    )


def _announce(prepared: Prepared) -> None:
    """What the run learns from and what it will take."""
    estimate = prepared.needs
    plan = prepared.recipe.plan
    passages = sum(p for p, _ in prepared.material.learned.values())
    questions = sum(q for _, q in prepared.material.learned.values())
    held = sum(p for p, _ in prepared.material.judged.values())
    sources = f"{amount(questions, 'question')} on {amount(passages, 'passage')}"
    sizes = (
        f"{estimate.memory / 2**30:.1f} GiB of memory, {estimate.disk / 2**20:,.0f} MiB on the disk"
    )
    time = (
        f"{estimate.seconds:.1f} s a step: {_duration(estimate.seconds * plan.steps)} for"
        f" {amount(plan.steps, 'step')}"
    )
    say(
        f"learns {amount(estimate.parameters, 'number')} from {sources}; {amount(held, 'passage')}"
        " held out to judge by",
        err=True,
    )
    say(f"takes about {sizes}, and {time}{_limit(prepared)}", err=True)


def _limit(prepared: Prepared) -> str:
    """How many steps there will be in the minutes that were given, where these do not suffice for
    all.
    """
    recipe, seconds = prepared.recipe, prepared.needs.seconds
    fits = 60 * recipe.minutes / max(seconds, 1e-9)
    if fits >= recipe.plan.steps:
        return ""
    return f"; --minutes {recipe.minutes:g} ends it after about {amount(max(1, int(fits)), 'step')}"


def _duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def _bar(steps: int) -> Iterator[OnStep]:
    """A bar with loss, speed and the time that is left; validations as lines above it, or alone
    where nobody looks.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = output.console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as shown:
        task, learned = shown.add_task("training", total=steps), 0

        def on_step(line: Mapping[str, Any]) -> None:
            nonlocal learned
            if "loss" in line:
                learned += line["tokens"]
                speed = learned / max(1e-9, line["seconds"])
                shown.update(
                    task,
                    completed=line["step"],
                    description=f"loss {line['loss']:.3f}, {speed:.0f} answer tokens/s",
                )
            elif figures := [
                f"{n} {v:.4f}" for n, v in line.items() if n.startswith(("held_out", "recall"))
            ]:
                say(f"step {line['step']}: {', '.join(figures)}", err=True)

        yield on_step
