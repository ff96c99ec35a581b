"""`cmt ask`: an answer from memory with its sources."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import click

from cmt_cli.daemon_report import report_daemon
from cmt_cli.inputs import read_stdin
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import (
    Place,
    filter_options,
    format_filter,
    generator_options,
    json_option,
    k_option,
    max_tokens_option,
    memory_option,
    reader_option,
    verbose_option,
)
from cmt_cli.output import echo, on_terminal, one_line, print_json
from cmt_cli.progress import spinner
from cmt_cli.resolve import resolve_filter
from cmt_cli.source_display import print_sources
from cmt_cli.truncation import mark_truncated, report_truncation
from cmt_sdk.errors import CMTError


@click.command()
@click.argument("words", nargs=-1, metavar="[QUESTION|-]")
@k_option
@click.option(
    "--budget", type=click.IntRange(min=1), help="Read as many passages as fit in this many tokens."
)
@reader_option
@max_tokens_option
@generator_options
@filter_options
@verbose_option
@memory_option
@json_option
def ask(
    words: Sequence[str],
    folder: Place,
    as_json: bool,
    verbose: bool,
    filters: Mapping[str, Any],
    generator: Mapping[str, Any],
    **options: Any,
) -> None:
    """Answer QUESTION, or the question on standard input, from memory.

    Below the answer, the command lists the documents that hold it, each with the line that answers
    the question, and with dates if they differ. Documents with an older value of the same fact
    follow, marked as superseded. -v shows every passage that was read, with its score and the
    reasons.

    \b
    Example:
      cmt ask "Where is the museum now?"
      cmt ask --reader text --scope user/ann --json "What does she drink?"
      cmt ask --generator http://127.0.0.1:11434/v1 --generator-model qwen3 "Who is Ann?"
    """  # noqa: D301 - click reads the escape
    if not words and on_terminal(sys.stdin):
        raise click.UsageError("give a QUESTION, or pipe one in")
    if len(words) > 1:
        raise click.UsageError(
            "the question is several arguments: put it in quotes, cmt ask"
            f' "{one_line(" ".join(words), 80)}"'
        )
    if verbose:
        report_daemon()
    question = read_stdin().strip() if words in ((), ("-",)) else words[0]
    with open_memory(folder, **generator) as memory:
        resolved = resolve_filter(memory, filters)
        stream = memory.model.ask(question, stream=True, **options, **resolved)
        if as_json:
            print_json(stream.answer)
            return
        print_pieces(mark_truncated(iter(stream), lambda: stream.answer))
        report_truncation(stream.answer)
        if stream.answer.sources or stream.answer.reader == "none" or memory.count(**resolved):
            print_sources(stream.answer, verbose=verbose)
        elif memory.count():
            echo(f"no document fits {format_filter(filters)}", err=True)
        else:
            echo("the memory is empty", err=True)


def print_pieces(pieces: Iterator[str]) -> None:
    """Print an answer: piece by piece on a terminal, at once elsewhere.

    The line of an answer that breaks off is ended, for the error to have its own.
    """
    with spinner("reading"):
        first = next(pieces, "").lstrip()
        text = "" if on_terminal(sys.stdout) else (first + "".join(pieces)).strip()
    try:
        for piece in [text] if text else chain([first], pieces):
            echo(piece, nl=False)
    except CMTError:
        echo()
        raise
    echo()
