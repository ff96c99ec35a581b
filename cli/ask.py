"""`cmt ask`: an answer from memory, with its sources."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import click

from cmt_cli.cut import marked, tell_if_cut
from cmt_cli.inputs import standard_input
from cmt_cli.memories import narrowed, opened
from cmt_cli.options import (
    filter_options,
    filter_words,
    json_option,
    k_option,
    memory_option,
    reader_option,
    verbose_option,
)
from cmt_cli.output import on_terminal, one_line, print_json, say
from cmt_cli.progress import waiting
from cmt_cli.quoting import print_sources


@click.command()
@click.argument("words", nargs=-1, metavar="[QUESTION|-]")
@k_option
@click.option(
    "--budget", type=click.IntRange(min=1), help="Find as many passages as fit in this many tokens."
)
@reader_option
@click.option(
    "--max-tokens",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    help="The longest answer.",
)
@filter_options
@verbose_option
@memory_option
@json_option
def ask(
    words: Sequence[str],
    folder: Path,
    as_json: bool,
    verbose: bool,
    chosen: Mapping[str, Any],
    **options: Any,
) -> None:
    """Answer QUESTION, or the one on standard input, from memory.

    Below the answer stand the documents that hold it, each with the line in which it does; a date
    stands behind their names where they are of different days. Documents that say an older value of
    the same thing follow, as superseded. -v shows every passage that was read, with its score and
    the reasons.

    \b
    Example:
      cmt ask "Where is the museum now?"
      cmt ask --reader text --scope user/ann --json "What does she drink?"
    """  # noqa: D301 - click reads the escape
    if not words and on_terminal(sys.stdin):
        raise click.UsageError("give a QUESTION, or pipe one in")
    if len(words) > 1:
        raise click.UsageError(
            "the question is several arguments: put it in quotes, cmt ask"
            f' "{one_line(" ".join(words), 80)}"'
        )
    asked = standard_input().strip() if words in ((), ("-",)) else words[0]
    with opened(folder) as memory:
        narrowing = narrowed(memory, chosen)
        stream = memory.model.ask(asked, stream=True, **options, **narrowing)
        if as_json:
            print_json(stream.answer)
            return
        say_pieces(marked(iter(stream), lambda: stream.answer))
        tell_if_cut(stream.answer)
        if stream.answer.sources or stream.answer.reader == "none" or memory.count(**narrowing):
            print_sources(stream.answer, verbose=verbose)
        else:
            say(
                (
                    f"no document fits {filter_words(chosen)}"
                    if memory.count()
                    else "the memory is empty"
                ),
                err=True,
            )


def say_pieces(pieces: Iterator[str]) -> None:
    """An answer: as it comes on a terminal, in one piece elsewhere."""
    with waiting("reading"):
        first = next(pieces, "").lstrip()
        whole = "" if on_terminal(sys.stdout) else (first + "".join(pieces)).strip()
    for piece in [whole] if whole else chain([first], pieces):
        say(piece, nl=False)
    say()
