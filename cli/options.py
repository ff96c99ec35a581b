"""Options that several commands share, and how their values are parsed. Opens no memory."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

import cmt_sdk

Command = Callable[..., Any]
Place: TypeAlias = Path | cmt_sdk.DatabaseAddress  # of a memory
CONDITION = re.compile(r"(.+?)(!=|<=|>=|==|=|<|>)(.*)", re.DOTALL)


def parse_value(text: str) -> Any:
    """Parse a value: JSON values get their type, everything else is text.

    A number stays text if JSON would write it differently: 2020 and 0.5 are numbers; 1.10, 007 and
    12e3 are text, because as numbers they would lose digits. "2020" in quotes is text.
    """
    value = _parse_json(text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text if is_number and json.dumps(value) != text else value


def _parse_json(text: str) -> Any:
    """Parse JSON; return the text itself if it is not JSON."""
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return text


def _reject_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def resolve_folder(given: str | None) -> Place:
    """Return the folder of the memory that a name or path stands for, or the address of its
    database.

    Raises:
        click.BadParameter: The path is a file, for example a one-file copy of a memory.
    """
    if address := cmt_sdk.DatabaseAddress.of(given):
        return address
    folder = cmt_sdk.memory_path(given)
    here = given or ""  # notes.db as a bare name most likely means the file, not a memory
    file = here if here.endswith(".db") and not os.path.exists(folder) else folder  # noqa: PTH110 - Path's raises in a closed folder
    if not os.path.isfile(file):  # noqa: PTH113 - so does this one's
        return folder
    copy = (
        "; a copy of a memory opens when it is named memory.db in an empty folder"
        if here.endswith(".db")
        else ""
    )
    raise click.BadParameter(f"{file} is a file: give a folder or a name{copy}", param_hint="-m")


def _folder(context: click.Context, parameter: click.Parameter, value: str | None) -> Place:
    """Return the memory's folder; a subcommand without -m uses the folder of its group."""
    given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    if not given and context.parent and "folder" in context.parent.params:
        given_before: Place = context.parent.params["folder"]
        return given_before
    return resolve_folder(value)


def _metadata(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, equals, text in (pair.partition("=") for pair in pairs):
        if not equals or not key:
            raise click.BadParameter(f"{key!r}: write KEY=VALUE")
        if key in found:
            raise click.BadParameter(f"{key!r} is given twice: a key has one value")
        value = parse_value(text)
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
        if text[:1] in ("=", "<", ">") or (
            text[:1] in ("[", "{") and isinstance(parse_value(text), str)
        ):
            raise click.BadParameter(
                f"{pair!r}: {text!r} is not a value; put it in double quotes if it is meant"
            )
        if key in found:  # both would have to hold, but a filter has one condition per key
            raise click.BadParameter(f"{key!r} is given twice: give one condition per key")
        found[key] = _condition(operator, text)
    return found or None


def _condition(operator: str, text: str) -> dict[str, Any]:
    """Return the condition on the value of a key.

    A number that stays text, such as 1.10, also matches a value that was stored as the number 1.1.
    """
    kept = parse_value(text)
    number = _parse_json(text)
    if operator not in ("=", "=="):
        return {operator: kept if operator == "!=" else number}
    if isinstance(kept, list):
        return {"in": kept}
    return {"==": kept} if kept == number else {"in": [kept, number]}


def _parse_time(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r}: write a time such as 2027-01-31 or 2027-01-31T18:00+01:00"
        ) from error
    return moment.replace(tzinfo=UTC) if moment and not moment.tzinfo else moment


def _scope(_: click.Context, __: click.Parameter, scope: str | None) -> str | None:
    # "/" alone is left to the memory, which reports it
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
    help=(
        "The memory: a name, a folder's path (contains a /), or a database,"
        " postgresql+psycopg://...  [default: default]"
    ),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Also show positions, scores and reasons."
)
meta_option = click.option(
    "--meta",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_metadata,
    help=(
        "Set a metadata field (repeatable). 2020, 0.5, true, false and null are typed; everything"
        ' else is text, also 1.10, 007 and "2020" in quotes.'
    ),
)
expires_option = click.option(
    "--expires",
    metavar="TIME",
    callback=_parse_time,
    help="Expire at this time, such as 2027-01-31; UTC unless the time has a zone.",
)
exclude_option = click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Skip files and folders that match, such as drafts or '*.log' (repeatable).",
)


def diverged_options(source: str, here: str) -> Callable[[Command], Command]:
    """Options for documents that changed at both ends; `one_choice` reads them.

    Args:
        source: What the other text comes from, such as FILE.
        here: The text that is there already, in words.
    """
    helps = {
        "theirs": f"If a document changed in both, make {source}'s text the current one.",
        "ours": f"Keep {here} as the current one; {source}'s text goes into the history.",
        "both": f"Keep both: {source}'s text becomes another document.",
    }

    def decorate(command: Command) -> Command:
        for name, text in reversed(helps.items()):
            command = click.option(f"--{name}", is_flag=True, help=text)(command)
        return command

    return decorate


def one_choice(choices: Mapping[str, bool]) -> str | None:
    """Return the flag that is set, None without one.

    Raises:
        click.UsageError: Two are set.
    """
    chosen = [name for name, is_chosen in choices.items() if is_chosen]
    if len(chosen) > 1:
        raise click.UsageError(
            f"--{chosen[0]} and --{chosen[1]} exclude each other: give one of them"
        )
    return next(iter(chosen), None)


k_option = click.option(
    "-k", "k", default=5, show_default=True, type=click.IntRange(min=1), help="Number of passages."
)
reader_option = click.option(
    "--reader",
    type=click.Choice(cmt_sdk.READERS),
    default="memory",
    show_default=True,
    help=(
        "memory: read compressed passages; text: read their text; auto: read the text if the answer"
        " from memory is unsure; none: read nothing."
    ),
)
MAX_TOKENS: Mapping[str, Any] = {
    "type": click.IntRange(min=1),
    "help": "Maximum length of the answer, in tokens.",
}
max_tokens_option = click.option("--max-tokens", default=64, show_default=True, **MAX_TOKENS)
generator_option = click.option(
    "--generator",
    metavar="URL",
    envvar="CMT_GENERATOR",
    show_envvar=True,
    help=(
        "Let the model of an OpenAI-compatible server write, e.g. http://127.0.0.1:11434/v1. Its"
        " key is read from CMT_GENERATOR_KEY."
    ),
)
generator_model_option = click.option(
    "--generator-model",
    metavar="NAME",
    envvar="CMT_GENERATOR_MODEL",
    show_envvar=True,
    help="The server's name of that model.",
)
FILTERS = (
    click.option(
        "--scope",
        callback=_scope,
        help="Only this namespace path and those below it, e.g. user/ann.",
    ),
    click.option("--source", help="Only this source; * is a wildcard."),
    click.option(
        "--where",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_where,
        help=(
            "Only documents with this metadata (repeatable). Operators: = != < <= > >=;"
            ' KEY=["a","b"] matches any of them. 1.10 also matches 1.1, and 12.50 is more than 12.'
        ),
    ),
)


def filter_options(command: Command) -> Command:
    """Add --scope, --source and --where, passed on as one parameter `filters`.

    `filters` are the keyword arguments by which the methods of Memory filter.
    """

    @functools.wraps(command)
    def filtered(
        *args: Any, scope: str | None, source: str | None, where: dict[str, Any] | None, **rest: Any
    ) -> Any:
        filters = {"scope": scope, "source": source, "where": where}
        return command(*args, filters=filters, **rest)

    return functools.reduce(lambda done, option: option(done), reversed(FILTERS), filtered)


def generator_options(command: Command) -> Command:
    """Add --generator and --generator-model, passed on as one parameter `generator`.

    `generator` holds the settings that were given, for `open_memory`.
    """

    @functools.wraps(command)
    def with_generator(
        *args: Any, generator: str | None, generator_model: str | None, **rest: Any
    ) -> Any:
        settings = {"generator": generator, "generator_model": generator_model}
        given = {name: value for name, value in settings.items() if value}
        return command(*args, generator=given, **rest)

    return generator_option(generator_model_option(with_generator))


def format_filter(filters: Mapping[str, Any]) -> str:
    """Return the filter as a command line writes it, without quotes."""
    words = [f"--{name} {filters[name]}" for name in ("scope", "source") if filters[name]]
    for key, condition in (filters["where"] or {}).items():
        ((operator, value),) = condition.items()
        sign = "=" if operator in ("==", "in") else operator
        words.append(f"--where {key}{sign}{json.dumps(value, ensure_ascii=False)}")
    return " ".join(words)
