"""Output to the terminal: text without control characters, tables for people, JSON for programs.

Widths are in terminal cells: an ideograph takes two, a combining mark none. Opens no memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from cmt_cli.streams import as_encoded, forced_width, terminal_width

if TYPE_CHECKING:
    from rich.console import Console

UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
GENERATED_ID = re.compile(r"[0-9a-f]{32}")
SHORTEST_ID = 8  # digits of a generated id that are shown
MIN_COLUMN_WIDTH = 12  # cells; if a column would get fewer, each row is printed as lines
COLUMN_GAP = 3  # cells between two columns
MAX_GRAPHEME_CHARS = 16  # longer graphemes are truncated


def printable(text: object) -> str:
    """Replace control characters, bidirectional overrides and lone surrogates."""
    return UNSAFE.sub("\ufffd", str(text).replace("\r\n", "\n"))


def one_line(text: object, width: int | None = None) -> str:
    """Return the beginning of a text on one line, at most `width` cells wide.

    The line is truncated between two graphemes (what a reader sees as one character).
    """
    line = " ".join(printable("" if text is None else text).split())
    if width is None or (line.isascii() and len(line) <= width):
        return line
    return f"{line[: width - 1]}…" if line.isascii() else _truncated(line, width)


def _truncated(line: str, width: int) -> str:
    """Return the line in at most `width` cells, with an ellipsis if it is longer."""
    from wcwidth import iter_graphemes

    first = line[: MAX_GRAPHEME_CHARS * width]
    if len(first) == len(line) and display_width(line) <= width:
        return line
    kept = []
    used = 0
    for grapheme in iter_graphemes(first):
        used += display_width(grapheme)
        if used >= width:
            break
        kept.append(grapheme)
    return f"{''.join(kept).rstrip()}…"


def display_width(text: str) -> int:
    """Return how many terminal cells a printable text fills."""
    if text.isascii():
        return len(text)
    from wcwidth import width

    return width(text)


def short_id(document_id: str, others: Iterable[str] = ()) -> str:
    """Return an id as it is shown: a generated id by its first digits, any other id in full.

    Args:
        document_id: The complete id.
        others: Ids that begin alike; enough digits are shown to distinguish the id from them.
    """
    if not GENERATED_ID.fullmatch(document_id):
        return document_id
    apart = [other for other in others if other != document_id]
    length = SHORTEST_ID
    while any(other.startswith(document_id[:length]) for other in apart):
        length += 1
    return document_id[:length]


def echo(
    text: object = "", *, label: str = "", err: bool = False, nl: bool = True, **style: Any
) -> None:
    """Print a text for people, without control characters.

    Args:
        text: The text; text from a memory may hold anything.
        label: A word before the text. The style applies to the label if there is one.
        err: Print to stderr.
        nl: End the line.
        **style: See `click.style`.
    """
    body = printable(text)
    if label:
        body = f"{click.style(label, **style)} {body}"
    elif style:
        body = click.style(body, **style)
    _write(body, err=err, nl=nl)


def print_json(value: object) -> None:
    """Print one JSON document on one line of stdout; ASCII, so that no control character passes."""
    _write(json.dumps(to_jsonable(value)), err=False, nl=True)


def _write(text: str, *, err: bool, nl: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # the caller closed it
        return
    try:
        click.echo(text, file=stream, nl=nl, color=None if use_colour() else False)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise click.ClickException(
            f"the output cannot be written: {error.strerror or error}"
        ) from error


def drop_output() -> None:
    """Discard the output that is still buffered: Python would fail on it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def use_colour() -> bool:
    """Return False if NO_COLOR is set (https://no-color.org) or the terminal has no colours."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def on_terminal(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal; the stream is None if the caller closed it."""
    return stream is not None and stream.isatty()


def console(*, stderr: bool = False) -> Console:
    """Return a rich console that does not interpret markup in users' text."""
    from rich.console import Console

    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
        width=forced_width(),
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on a terminal, and tab-separated cells without a heading anywhere else.

    On a terminal no cell is truncated: the first column keeps to one line, the others wrap, and
    empty columns are left out. If the terminal is too narrow, each row becomes lines of
    "heading: cell".
    """
    if not on_terminal(sys.stdout):
        for row in rows:
            echo("\t".join(map(one_line, row)))
        return
    shown = [[as_encoded(one_line(cell)) for cell in row] for row in rows]
    if not shown:
        return
    used = [n for n in range(len(columns)) if not n or any(row[n] for row in shown)]
    headings = [columns[n] for n in used]
    shown = [[row[n] for n in used] for row in shown]
    widths = [max(map(display_width, column)) for column in zip(headings, *shown, strict=True)]
    least = [width if not n else min(width, MIN_COLUMN_WIDTH) for n, width in enumerate(widths)]
    if sum(least) + COLUMN_GAP * len(least) > terminal_width():
        _print_records(headings, shown)
    else:
        _print_columns(headings, shown, least)


def _print_records(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print each row as lines: the first cell, then the others with their headings."""
    for first, *rest in rows:
        echo(first, bold=True)
        for name, cell in zip(columns[1:], rest, strict=True):
            if cell:
                echo(f"  {name}: {cell}" if name else f"  {cell}")


def _print_columns(
    columns: Sequence[str], rows: Iterable[Sequence[str]], least: Sequence[int]
) -> None:
    """Print the rows in columns; `least` holds the minimum width of each column in cells."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for n, (name, width) in enumerate(zip(columns, least, strict=True)):
        table.add_column(name, min_width=width, no_wrap=not n, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table, soft_wrap=False)


def to_jsonable(value: Any) -> Any:
    """Convert dataclasses, times, paths and collections to what `json` can write."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, Mapping):
        return {key: to_jsonable(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_jsonable(item) for item in value]
    return value


def local_time(moment: datetime | None) -> str:
    """Return a time in the local zone, to the minute; "" for None."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""


def short_source(source: str | None, document_id: str) -> str:
    """Return a source for display, or the short id of a document without a source.

    A path inside the current folder is shown relative to it.
    """
    if not source:
        return short_id(document_id)
    path = Path(source)
    with suppress(OSError):  # the current folder may have been deleted
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            return str(path.relative_to(Path.cwd()))
    return source


def pluralize(count: int, thing: str) -> str:
    """Return a number with its noun: 1 document, 2,000 documents."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
