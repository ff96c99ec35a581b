"""`cmt ask`: an answer from memory, with its sources."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

import cmt_sdk
from cmt_cli.common import (
    conditions,
    filter_options,
    first_line,
    json_option,
    memory_option,
    opened,
    print_json,
    printable,
    standard_input,
)

READERS = click.Choice(["memory", "text", "auto", "none"])


@click.command()
@click.argument("question", required=False)
@click.option("-k", "k", default=5, show_default=True, type=click.IntRange(min=1), help="Passages to read.")
@click.option("--budget", type=click.IntRange(min=1), help="Read as many passages as fit in so many tokens.")
@click.option("--reader", type=READERS, default="memory", show_default=True, help="What the model reads.")
@click.option("--max-tokens", default=64, show_default=True, type=click.IntRange(min=1), help="The longest answer.")
@filter_options
@memory_option
@json_option
def ask(
    question: str | None,
    k: int,
    budget: int | None,
    reader: str,
    max_tokens: int,
    scope: str | None,
    source: str | None,
    where_: Sequence[str],
    where: str | None,
    as_json: bool,
) -> None:
    """Answer QUESTION (or standard input) from memory.

    \b
    Example:
      cmt ask "Where is the museum now?"
      cmt ask --reader text --scope user/ann --json "What does she drink?"
    """  # noqa: D301 - click reads the escape
    asked = question if question is not None else standard_input().strip()
    options = {
        "k": k,
        "budget": budget,
        "reader": reader,
        "max_tokens": max_tokens,
        **conditions(scope, source, where_),
    }
    with opened(where) as memory:
        stream = memory.model.ask(asked, stream=True, **options)
        if as_json:
            print_json(stream.answer)
            return
        for piece in stream if sys.stdout.isatty() else [stream.answer.text]:
            click.echo(printable(piece), nl=False)
        click.echo()
        print_sources(stream.answer)


def print_sources(answer: cmt_sdk.Answer) -> None:
    """The sources beneath an answer, dimmed on a terminal."""
    for number, found in enumerate(answer.sources, 1):
        name = Path(found.source).name if found.source else found.document_id[:8]
        line = f"  {number}. {name}[{found.start}:{found.end}]  {found.why}  {first_line(found.text, 50)}"
        click.secho(printable(line), dim=True)
