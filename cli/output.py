"""What reaches the terminal: text made harmless, tables for people, JSON for programs. Knows no memory."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
GENERATED_ID = re.compile(r"[0-9a-f]{32}")


def printable(text: object) -> str:
    """Text without the characters that could steer a terminal or turn its words around, and what no terminal can encode."""
    return HARMFUL.sub("\ufffd", str(text).replace("\r\n", "\n"))


def one_line(text: object, width: int | None = None) -> str:
    """The beginning of a text, printable, on one line."""
    line = " ".join(printable("" if text is None else text).split())
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def short_id(document_id: str) -> str:
    """An id as it is shown: generated ones by their first eight digits, those that users chose in full."""
    return document_id[:8] if GENERATED_ID.fullmatch(document_id) else document_id


def say(text: object = "", *, label: str = "", err: bool = False, nl: bool = True, **style: Any) -> None:
    """Print a text for people; what is stored in a memory passes through here on its way to a terminal.

    The style is that of the label, where there is one.
    """
    body = printable(text)
    whole = f"{click.style(label, **style)} {body}" if label else click.style(body, **style) if style else body
    _write(whole, err=err, nl=nl)


def print_json(value: object) -> None:
    """One JSON document on a line of stdout; ASCII, so that no control character passes."""
    _write(json.dumps(plain(value)), err=False, nl=True)


def _write(text: str, *, err: bool, nl: bool) -> None:
    try:
        click.echo(text, err=err, nl=nl, color=None if colours() else False)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise click.ClickException(f"the output cannot be written: {error.strerror or error}") from error


def drop_output() -> None:
    """Send what is still buffered for stdout nowhere: python would fail on it once more at its end."""
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

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on a terminal; lines of tab-separated cells, without the heading, for anything else."""
    if not on_terminal(sys.stdout):
        for row in rows:
            say("\t".join(map(one_line, row)))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(*columns, box=box.SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for row in rows:
        made.add_row(*(Text(one_line(cell)) for cell in row))
    if made.row_count:
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
    """A source as short as it is clear: a path beneath the current folder without that; an id where there is none."""
    if not source:
        return short_id(document_id)
    path = Path(source)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else source


def amount(count: int, thing: str) -> str:
    """A number with its noun: 1 document, 2,000 documents."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
