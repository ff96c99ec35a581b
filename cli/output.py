"""What reaches the terminal: text made harmless, tables for people, JSON for programs. Knows no
memory.

Widths are counted in the cells of a terminal: an ideograph takes two, a combining mark none.
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

from cmt_cli.streams import as_written, forced_width, terminal_width

if TYPE_CHECKING:
    from rich.console import Console

HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
GENERATED_ID = re.compile(r"[0-9a-f]{32}")
SHORTEST_ID = 8  # digits of a generated id that are shown
NARROW = 12  # cells that a column needs; with fewer, a row is written line by line
GAP = 3  # cells between two columns
LONGEST_GRAPHEME = 16  # characters; what is longer is cut


def printable(text: object) -> str:
    """Text without the characters that could steer a terminal or turn its words around, and what no
    terminal can encode.
    """
    return HARMFUL.sub("\ufffd", str(text).replace("\r\n", "\n"))


def one_line(text: object, width: int | None = None) -> str:
    """The beginning of a text, printable, on one line; cut between two characters as people see
    them.
    """
    line = " ".join(printable("" if text is None else text).split())
    if width is None or (line.isascii() and len(line) <= width):
        return line
    return f"{line[: width - 1]}…" if line.isascii() else _cut(line, width)


def _cut(line: str, width: int) -> str:
    """A line that fills at most `width` cells, with an ellipsis where it goes on."""
    from wcwidth import iter_graphemes

    first = line[: LONGEST_GRAPHEME * width]
    if len(first) == len(line) and cells(line) <= width:
        return line
    kept, used = [], 0
    for grapheme in iter_graphemes(first):
        used += cells(grapheme)
        if used >= width:
            break
        kept.append(grapheme)
    return f"{''.join(kept).rstrip()}…"


def cells(text: str) -> int:
    """How many cells of a terminal a printable text fills."""
    if text.isascii():
        return len(text)
    from wcwidth import width

    return width(text)


def short_id(document_id: str, others: Iterable[str] = ()) -> str:
    """An id as it is shown: generated ones by their first digits, those that users chose in full.

    Args:
        document_id: The whole id.
        others: Ids that begin alike. So many digits are shown that none of them begins with these.
    """
    if not GENERATED_ID.fullmatch(document_id):
        return document_id
    apart, length = [other for other in others if other != document_id], SHORTEST_ID
    while any(other.startswith(document_id[:length]) for other in apart):
        length += 1
    return document_id[:length]


def say(
    text: object = "", *, label: str = "", err: bool = False, nl: bool = True, **style: Any
) -> None:
    """Print a text for people; what is stored in a memory passes through here on its way to a
    terminal.

    The style is that of the label, where there is one.
    """
    body = printable(text)
    whole = (
        f"{click.style(label, **style)} {body}"
        if label
        else click.style(body, **style)
        if style
        else body
    )
    _write(whole, err=err, nl=nl)


def print_json(value: object) -> None:
    """One JSON document on a line of stdout; ASCII, so that no control character passes."""
    _write(json.dumps(plain(value)), err=False, nl=True)


def _write(text: str, *, err: bool, nl: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # the caller closed it
        return
    try:
        click.echo(text, file=stream, nl=nl, color=None if colours() else False)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise click.ClickException(
            f"the output cannot be written: {error.strerror or error}"
        ) from error


def drop_output() -> None:
    """Send what is still buffered for stdout nowhere: python would fail on it once more at its
    end.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def colours() -> bool:
    """False where the user asked for none (https://no-color.org) or the terminal has none."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def on_terminal(stream: TextIO | None) -> bool:
    """True when somebody looks at the stream; it is None where the caller closed it."""
    return stream is not None and stream.isatty()


def console(*, stderr: bool = False) -> Console:
    """A rich console that takes no markup from users' text."""
    from rich.console import Console

    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
        width=forced_width(),
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on a terminal; lines of tab-separated cells, without the heading, for anything else.

    On a terminal nothing is cut: the first column stands on one line, the others wrap, empty ones
    are left out. Where that needs more than the terminal's width, each row becomes lines of
    "heading: cell".
    """
    if not on_terminal(sys.stdout):
        for row in rows:
            say("\t".join(map(one_line, row)))
        return
    shown = [[as_written(one_line(cell)) for cell in row] for row in rows]
    if not shown:
        return
    used = [n for n in range(len(columns)) if not n or any(row[n] for row in shown)]
    named = [columns[n] for n in used]
    shown = [[row[n] for n in used] for row in shown]
    widths = [max(map(cells, column)) for column in zip(named, *shown, strict=True)]
    least = [width if not n else min(width, NARROW) for n, width in enumerate(widths)]
    if sum(least) + GAP * len(least) > terminal_width():
        _write_records(named, shown)
    else:
        _write_columns(named, shown, least)


def _write_records(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Each row as lines: the first cell, then the others with their headings."""
    for first, *rest in rows:
        say(first, bold=True)
        for name, cell in zip(columns[1:], rest, strict=True):
            if cell:
                say(f"  {name}: {cell}" if name else f"  {cell}")


def _write_columns(
    columns: Sequence[str], rows: Iterable[Sequence[str]], least: Sequence[int]
) -> None:
    """Rows side by side; `least` are the widths that no column falls below."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for n, (name, width) in enumerate(zip(columns, least, strict=True)):
        made.add_column(name, min_width=width, no_wrap=not n, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    console().print(made, soft_wrap=False)


def plain(value: Any) -> Any:
    """Dataclasses, times, paths and collections as JSON takes them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def local_time(moment: datetime | None) -> str:
    """A time as people here read it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""


def place(source: str | None, document_id: str) -> str:
    """A source as short as it is clear: a path beneath the current folder without that; an id where
    there is none.
    """
    if not source:
        return short_id(document_id)
    path = Path(source)
    with suppress(OSError):  # the current folder was deleted meanwhile
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            return str(path.relative_to(Path.cwd()))
    return source


def amount(count: int, thing: str) -> str:
    """A number with its noun: 1 document, 2,000 documents."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
