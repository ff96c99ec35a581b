"""What the commands share: options, opening a memory, ids by prefix, and output for people and for programs."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

import cmt_sdk
from cmt_sdk.errors import InvalidDocument, InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])
PREFIX = 4
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

memory_option = click.option(
    "-m", "--memory", "where", envvar="CMT_MEMORY", metavar="NAME_OR_PATH",
    help="The memory: a name, or the path of a folder (with a / in it).  [default: the memory 'default']",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def filter_options(command: F) -> F:
    """The options --scope, --source and --where, as the parameters `scope`, `source` and `where_`."""
    for option in (
        click.option("--where", "where_", multiple=True, metavar="KEY=VALUE", help="Metadata; also !=, <, <=, >, >=."),
        click.option("--source", help="The source; * and ? are wildcards."),
        click.option("--scope", help="The scope, with everything beneath it."),
    ):
        command = option(command)
    return command


def opened(where: str | None, *, create: bool = False) -> cmt_sdk.Memory:
    """The memory that -m names; tests replace this function's `opener`."""
    return opener(cmt_sdk.locate(where), create=create)


opener: Callable[..., cmt_sdk.Memory] = cmt_sdk.open


def conditions(scope: str | None, source: str | None, where: Sequence[str]) -> dict[str, Any]:
    """The filter arguments of Memory's methods; raises click.BadParameter for a condition without a comparison."""
    wanted: dict[str, Any] = {}
    for pair in where:
        found = re.fullmatch(r"(.+?)(!=|<=|>=|==|=|<|>)(.*)", pair, re.DOTALL)
        if not found:
            raise click.BadParameter(f"--where {pair!r}: write KEY=VALUE, or with !=, <, <=, >, >=")
        key, operator, value = found.groups()
        wanted[key] = typed(value) if operator in ("=", "==") else {operator: typed(value)}
    return {"scope": scope, "source": source, "where": wanted or None}


def typed(text: str) -> Any:
    """A JSON scalar as itself, anything else as text: 2020 is a number, "2020" in quotes is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, list | dict) else value


def metadata(pairs: Sequence[str]) -> dict[str, Any]:
    """Metadata from KEY=VALUE pairs."""
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"--meta {pair!r}: write KEY=VALUE")
    return {key: typed(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def whole_id(memory: cmt_sdk.Memory, given: str) -> str:
    """The id that begins with `given`, of at least four characters; InvalidInput if several ids do."""
    found = memory.ids(given) if len(given) >= PREFIX else [given]
    if given in found or not found:
        return given
    if len(found) > 1:
        raise InvalidInput(f"{given!r} begins the ids {', '.join(found[:5])}: write more of the one you mean")
    return found[0]


def printable(text: object) -> str:
    """Text without the control characters that could steer a terminal."""
    return CONTROL.sub("\ufffd", str(text))


def console(*, stderr: bool = False) -> Console:
    """A console that takes no markup from users' text."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table to a terminal, tab-separated lines to anything else."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(printable(cell) for cell in row))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    console().print(made)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(plain(value), ensure_ascii=False))


def plain(value: Any) -> Any:
    """Dataclasses, times and mappings as JSON takes them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def first_line(text: str, width: int = 60) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def standard_input() -> str:
    """All of standard input as UTF-8 text; InvalidDocument when it is none."""
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"standard input is no UTF-8 text ({error.reason} at byte {error.start})") from error


def given_text(text: str | None, file: str | None) -> str:
    """The text of --text, of a file, or of standard input for "-"; click.UsageError if none is given."""
    if text is not None:
        return text
    if file == "-":
        return standard_input()
    if file is None:
        raise click.UsageError("give a FILE, - for standard input, or --text")
    return cmt_sdk.read_document(file).text
