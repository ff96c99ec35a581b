"""The options that commands share, and what their values mean. Knows no memory."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import cmt_sdk

Command = Callable[..., Any]
CONDITION = re.compile(r"(.+?)(!=|<=|>=|==|=|<|>)(.*)", re.DOTALL)


def typed(text: str) -> Any:
    """A JSON value as itself, anything else as text.

    A number is one only where it is written back as it was typed: 2020 and 0.5 are numbers, "2020"
    in quotes is text, and so are 1.10, 007 and 12e3, which would lose what they say.
    """
    value = _json(text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text if is_number and json.dumps(value) != text else value


def _json(text: str) -> Any:
    """A JSON value; the text itself where it is none."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def located(given: str | None) -> Path:
    """The folder of the memory that is named. click.BadParameter where a file lies, as a copy in
    one file does.
    """
    folder = cmt_sdk.memory_path(given)
    here = given or ""  # a bare name stands for no file, but who gives that of a copy means it
    file = here if here.endswith(".db") and not os.path.exists(folder) else folder  # noqa: PTH110 - Path's raises in a closed folder
    if not os.path.isfile(file):  # noqa: PTH113 - so does this one's
        return folder
    copy = (
        "; a copy of a memory opens when it is named memory.db in an empty folder"
        if here.endswith(".db")
        else ""
    )
    raise click.BadParameter(f"{file} is a file: give a folder or a name{copy}", param_hint="-m")


def _folder(context: click.Context, parameter: click.Parameter, value: str | None) -> Path:
    """The memory's folder; a command in a group takes that of the group, unless it is given one
    itself.
    """
    given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    if not given and context.parent and "folder" in context.parent.params:
        return Path(context.parent.params["folder"])
    return located(value)


def _metadata(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, equals, text in (pair.partition("=") for pair in pairs):
        if not equals or not key:
            raise click.BadParameter(f"{key!r}: write KEY=VALUE")
        if key in found:
            raise click.BadParameter(f"{key!r} is given twice: a key has one value")
        value = typed(text)
        found[key] = text if isinstance(value, list | dict) else value
    return found


def _where(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for pair in pairs:
        parts = CONDITION.fullmatch(pair)
        if not parts:
            raise click.BadParameter(
                f"{pair!r}: write KEY=VALUE, or one of != < <= > >= in place of ="
            )
        key, operator, text = parts.groups()
        if text[:1] in ("=", "<", ">") or (text[:1] in ("[", "{") and isinstance(typed(text), str)):
            raise click.BadParameter(
                f"{pair!r}: {text!r} is no value; put it in double quotes if it is meant"
            )
        if key in found:  # both would have to hold, and a filter has one condition a key
            raise click.BadParameter(f"{key!r} is given twice: one condition a key")
        found[key] = _condition(operator, text)
    return found or None


def _condition(operator: str, text: str) -> dict[str, Any]:
    """A condition on the value of a key. A number that is kept as text, 1.10, fits what was stored
    as 1.1 before too.
    """
    kept, number = typed(text), _json(text)
    if operator not in ("=", "=="):
        return {operator: kept if operator == "!=" else number}
    if isinstance(kept, list):
        return {"in": kept}
    return {"==": kept} if kept == number else {"in": [kept, number]}


def _moment(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r}: write a time such as 2027-01-31 or 2027-01-31T18:00+01:00"
        ) from error
    return moment.replace(tzinfo=UTC) if moment and not moment.tzinfo else moment


def _scope(_: click.Context, __: click.Parameter, scope: str | None) -> str | None:
    # "/" alone means nothing here: the memory refuses it
    if scope and scope.strip("/") and not cmt_sdk.is_scope(scope.rstrip("/")):
        raise click.BadParameter(
            f"{scope!r:.60}: give names with a slash between them, such as user/ann"
        )
    return scope


memory_option = click.option(
    "-m",
    "--memory",
    "folder",
    envvar="CMT_MEMORY",
    show_envvar=True,
    metavar="NAME_OR_PATH",
    callback=_folder,
    help="The memory: a name, or the path of a folder (with a / in it).  [default: default]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show places, scores and reasons too."
)
meta_option = click.option(
    "--meta",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_metadata,
    help=(
        "Metadata; 2020, 0.5, true, false and null are typed, the rest is text, as is 1.10, 007 or"
        ' "2020" in quotes.'
    ),
)
expires_option = click.option(
    "--expires",
    metavar="TIME",
    callback=_moment,
    help="When it stops being remembered, such as 2027-01-31; UTC where it does not say.",
)
exclude_option = click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Leave out of a folder what fits, such as drafts or '*.log'; may be given more than once.",
)
k_option = click.option(
    "-k", "k", default=5, show_default=True, type=click.IntRange(min=1), help="Passages to find."
)
reader_option = click.option(
    "--reader",
    type=click.Choice(cmt_sdk.READERS),
    default="memory",
    show_default=True,
    help=(
        "What the model reads: memories; the passages' text; text where memory leaves it unsure;"
        " nothing."
    ),
)
max_tokens_option = click.option(
    "--max-tokens",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    help="The longest answer.",
)
FILTERS = (
    click.option("--scope", callback=_scope, help="Only this scope, with everything beneath it."),
    click.option("--source", help="Only this source; * is a wildcard."),
    click.option(
        "--where",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_where,
        help=(
            'Only with this metadata; also != < <= > >=, and KEY=["a","b"] for one of several. 1.10'
            " also finds 1.1, and 12.50 is more than 12."
        ),
    ),
)


def filter_options(command: Command) -> Command:
    """--scope, --source and --where as one parameter `chosen`: the filter arguments of Memory's
    methods.
    """

    @functools.wraps(command)
    def filtered(
        *args: Any, scope: str | None, source: str | None, where: dict[str, Any] | None, **rest: Any
    ) -> Any:
        return command(*args, chosen={"scope": scope, "source": source, "where": where}, **rest)

    return functools.reduce(lambda made, option: option(made), reversed(FILTERS), filtered)


def filter_words(chosen: Mapping[str, Any]) -> str:
    """The filter as it is written on the command line; without quotes."""
    words = [f"--{name} {chosen[name]}" for name in ("scope", "source") if chosen[name]]
    for key, condition in (chosen["where"] or {}).items():
        ((operator, value),) = condition.items()
        sign = "=" if operator in ("==", "in") else operator
        words.append(f"--where {key}{sign}{json.dumps(value, ensure_ascii=False)}")
    return " ".join(words)
