"""`cmt train`: train adapters for a model, on questions or on plain text."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cmt_cli import output
from cmt_cli.output import echo, pluralize
from cmt_cli.progress import progress_bars

if TYPE_CHECKING:
    from cmt_sdk.training import Plan, Recipe
    from cmt_sdk.training.run import Prepared

PARTS = ["reader", "compressor", "soft", "cmt", "matcher", "embedding", "gates", "codec"]
EXISTING = click.Path(exists=True, path_type=Path)
OnStep = Callable[[Mapping[str, Any]], None]


def _weights_of(
    _context: click.Context, option: click.Parameter, given: Sequence[str]
) -> dict[str, float]:
    """The numbers by name in FILE=N."""
    weights = {}
    for pair in given:
        name, _, number = pair.partition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            raise click.BadParameter(f"{pair!r}: give FILE=N, as squad=0.5", param=option) from None
    return weights


@click.command()
@click.argument("questions", nargs=-1, type=EXISTING)
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=EXISTING,
    help="A file or folder of plain text (repeatable).",
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the adapter.",
)
@click.option(
    "--part",
    type=click.Choice(PARTS),
    default="reader",
    show_default=True,
    help="The part to train; see below.",
)
@click.option("--model", help="A pulled model or a local folder.  [default: the default model]")
@click.option(
    "--start",
    default="default",
    show_default=True,
    help="The adapter to start from: default, none, or a folder.",
)
@click.option(
    "--steps",
    default=1000,
    show_default=True,
    help="Optimiser steps; the learning rate decays towards the last.",
)
@click.option(
    "--minutes",
    type=float,
    default=math.inf,
    help="Stop after this many minutes (model loading not counted); run again to resume.",
)
@click.option(
    "--fit",
    is_flag=True,
    help="The learning rate decays with --minutes too, not only with --steps.",
)
@click.option("--rate", type=float, help="The peak learning rate.  [default: soft 2e-3, else 1e-3]")
@click.option("--accumulate", default=3, show_default=True, help="Batches per optimiser step.")
@click.option(
    "--batch",
    default=1,
    show_default=True,
    help="reader, compressor, soft: examples per batch; raise it to use a GPU fully.",
)
@click.option("--rank", default=32, show_default=True, help="The rank of a new adapter.")
@click.option(
    "--nf4",
    default=0.3,
    show_default=True,
    help="The share of examples that the base model reads with NF4 weights; 1 loads these alone,"
    " in a quarter of the memory (QLoRA).",
)
@click.option(
    "--ablate",
    multiple=True,
    metavar="PIECE",
    help="Ablate a training ingredient (repeatable); see below.",
)
@click.option(
    "--answer", default=0.5, show_default=True, help="Weight of the answers' cross-entropy."
)
@click.option(
    "--teacher",
    default=1.0,
    show_default=True,
    help="Weight of the divergence from a teacher that reads the text.",
)
@click.option(
    "--states",
    type=float,
    help="soft: weight of the distance to the teacher's states.  [default: soft 3, else 0]",
)
@click.option(
    "--alpha",
    type=float,
    help="soft, cmt: weight of the memory-aware logits.  [default: cmt 0.5, else 0]",
)
@click.option("--ratio", default=8, show_default=True, help="cmt: text tokens per soft token.")
@click.option(
    "--candidates",
    default=0,
    help="embedding: candidate passages per step.  [default: depends on the device]",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="FILE=N",
    callback=_weights_of,
    help="How often a question file is drawn, by its name without suffixes (repeatable).",
)
@click.option(
    "--passages",
    default=3000,
    show_default=True,
    help="matcher: passages to learn from.",
)
@click.option("--held-out", default=4, show_default=True, help="Size of each validation.")
@click.option(
    "--validate-every", default=100, show_default=True, help="Steps between two validations."
)
@click.option("--save-every", default=50, show_default=True, help="Steps between two checkpoints.")
@click.option(
    "--patience",
    default=0,
    help="Stop after this many validations without improvement.  [default: never]",
)
@click.option(
    "--checkpointing",
    is_flag=True,
    help="Use less memory: recompute activations in the backward pass.",
)
@click.option("--seed", default=0, show_default=True, help="Seed for drawing examples.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option(
    "-y", "--yes", is_flag=True, help="Start without asking. Without a terminal it never asks."
)
def train(
    *, model: str | None, yes: bool, steps: int, rate: float | None, accumulate: int, **options: Any
) -> None:
    """Train an adapter on QUESTIONS, or on plain text with --text.

    QUESTIONS are JSON lines, gzipped or not: {"title", "context", "question", "answers": [...]}.
    The base model never changes. Run the same command again to resume after an interruption, even
    after a kill.

    Parts (--part):

    \b
    reader      reads passages compressed by kv
    compressor  compresses and reads by kv; existing passages must be re-encoded
    soft        compresses and reads by soft
    cmt         compresses by soft and aggregates as in the paper, without a reader adapter
    matcher     makes the embeddings for search from the base model's states
    embedding   makes better embeddings with an adapter of the lower layers; takes longer
    gates       lets kv compress a passage in one reading; takes minutes, and resumes nothing
    codec       lets kv store a passage in fewer bytes; takes minutes, and resumes nothing

    Ingredients to ablate (--ablate):

    \b
    distractors  other passages next to the right one
    absent       questions whose passage is absent
    rounding     the 4-bit quantization of compressed passages
    pruning      reader, compressor: compressed passages with fewer entries
    repetition, ratios, warm-start
                 soft
    matching     cmt: self-matching
    negatives    matcher, embedding: passages that share words with the question

    \b
    Example:
      cmt train questions.jsonl --out my-reader --minutes 30
      cmt train --text ~/notes --out my-reader --minutes 30
      cmt config set adapter my-reader
    """  # noqa: D301 - click reads the escape
    from cmt_sdk.training import Plan, prepare, rate_for

    pauses = {name: options.pop(name) for name in ("validate_every", "save_every", "patience")}
    plan = Plan(steps, rate_for(options["part"], rate), accumulate, **pauses)
    recipe = _recipe(plan, options | ({"model": model} if model else {}))
    if recipe.part in FITTED:
        FITTED[recipe.part](recipe)
        return
    prepared = prepare(recipe)
    if not prepared.is_main:
        prepared.run()
        return
    _announce(prepared)
    if not yes and not _begins(prepared):
        return
    with _bar(plan.steps) as on_step:
        progress = prepared.run(on_step)
    echo(
        f"{pluralize(progress.step, 'step')}, {pluralize(progress.questions, 'question')}:"
        f" see {prepared.recipe.out}/README.md"
    )


def _begins(prepared: Prepared) -> bool:
    """Whether the run is to begin; asks on a terminal, and a run of one process alone."""
    if not (prepared.alone and output.on_terminal(sys.stdin)):
        return True
    return click.confirm("Begin?", default=True, err=True)


def _fit_gates(recipe: Recipe) -> None:
    """Fit gates, and say how well they choose."""
    from cmt_sdk.training import train_gates

    with progress_bars() as update:
        fitted = train_gates(recipe, lambda read: update("reading passages", read, 0))
    echo(
        f"{pluralize(fitted.passages, 'passage')}; of the entries that a second reading keeps, the"
        f" gates keep {100 * fitted.recall:.1f} % on held-out passages"
    )


def _fit_codec(recipe: Recipe) -> None:
    """Fit a codec, and say what its memories take."""
    from cmt_sdk.training import train_codec

    with progress_bars() as update:
        fitted = train_codec(recipe, lambda read: update("reading passages", read, 0))
    echo(
        f"{pluralize(fitted.passages, 'passage')}; held-out passages take"
        f" {fitted.bytes_per_token:.0f} bytes a token"
    )


FITTED = {"gates": _fit_gates, "codec": _fit_codec}  # the parts that no steps train


def _recipe(plan: Plan, options: Mapping[str, Any]) -> Recipe:
    from cmt_sdk.training import Recipe, objectives_for

    weights = {name: options[name] for name in ("answer", "teacher", "alpha", "states")}
    objectives = objectives_for(options["part"], **weights)
    others = {name: value for name, value in options.items() if name not in weights}
    return Recipe(plan=plan, objectives=objectives, **others)


def _announce(prepared: Prepared) -> None:
    """Print the data that the run uses and the resources that it needs."""
    needs = prepared.needs
    plan = prepared.recipe.plan
    passages = sum(p for p, _ in prepared.material.learned.values())
    questions = sum(q for _, q in prepared.material.learned.values())
    held = sum(p for p, _ in prepared.material.judged.values())
    sources = f"{pluralize(questions, 'question')} on {pluralize(passages, 'passage')}"
    sizes = f"{needs.memory / 2**30:.1f} GiB of memory, {needs.disk / 2**20:,.0f} MiB on the disk"
    time = (
        f"{needs.seconds:.1f} s per step: {_duration(needs.seconds * plan.steps)} for"
        f" {pluralize(plan.steps, 'step')}"
    )
    echo(
        f"trains {pluralize(needs.parameters, 'parameter')} on {sources};"
        f" {pluralize(held, 'passage')} held out for validation",
        err=True,
    )
    echo(f"takes about {sizes}, and {time}{_limit(prepared)}", err=True)


def _limit(prepared: Prepared) -> str:
    """Return how many steps --minutes allows, or "" if it allows all of them."""
    recipe = prepared.recipe
    fits = 60 * recipe.minutes / max(prepared.needs.seconds, 1e-9)
    if fits >= recipe.plan.steps:
        return ""
    return (
        f"; --minutes {recipe.minutes:g} ends it after about {pluralize(max(1, int(fits)), 'step')}"
    )


def _duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def _bar(steps: int) -> Iterator[OnStep]:
    """Show a bar with loss, speed and remaining time while the block runs.

    Validations are printed as lines, also without a terminal.
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
        task = shown.add_task("training", total=steps)
        tokens = 0

        def on_step(line: Mapping[str, Any]) -> None:
            nonlocal tokens
            if "loss" in line:
                tokens += line["tokens"]
                speed = tokens / max(1e-9, line["seconds"])
                shown.update(
                    task,
                    completed=line["step"],
                    description=f"loss {line['loss']:.3f}, {speed:.0f} answer tokens/s",
                )
            elif figures := [
                f"{n} {v:.4f}" for n, v in line.items() if n.startswith(("held_out", "recall"))
            ]:
                echo(f"step {line['step']}: {', '.join(figures)}", err=True)

        yield on_step
