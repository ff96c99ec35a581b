"""`cmt config`: a memory's settings, and where things lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.failures import warn
from cmt_cli.memories import begun, opened
from cmt_cli.named import device_doubt, model_doubt, whole_adapter, whole_model
from cmt_cli.options import json_option, memory_option
from cmt_cli.output import plain, print_json, say, table
from cmt_cli.suggesting import Suggesting
from cmt_sdk.errors import MemoryNotFound, ModelError, ModelNotFound

# what memories may depend on
MADE_WITH = ("model", "adapter", "precision", "compressor", "compression", "keep_at_least")
WHOLE: Mapping[str, Callable[[str], str]] = {"model": whole_model, "adapter": whole_adapter}
DOUBTS: Mapping[str, Callable[[str], str]] = {"model": model_doubt, "device": device_doubt}


@click.group(cls=Suggesting, invoke_without_command=True)
@memory_option
@json_option
@click.pass_context
def config(context: click.Context, folder: Path, as_json: bool) -> None:
    """Show the settings of a memory, and where things lie.

    \b
    Example:
      cmt config
      cmt config set compression 2
    """  # noqa: D301 - click reads the escape
    if context.invoked_subcommand is not None:
        return
    try:
        with opened(folder) as memory:
            settings, state = memory.settings, ""
    except MemoryNotFound:
        settings, state = cmt_sdk.Settings(), " (not made yet: these are the defaults)"
    if as_json:
        places = {
            "memory": folder,
            "data_dir": cmt_sdk.data_dir(),
            "models": cmt_sdk.models_dir(),
            "exists": not state,
        }
        print_json({"places": places, "settings": settings})
        return
    table(
        ["", ""],
        [
            ("memory", f"{folder}{state}"),
            ("data_dir", cmt_sdk.data_dir()),
            ("models", cmt_sdk.models_dir()),
        ],
    )
    rows = plain(settings) | {"adapter": _adapter(settings)}
    table(["", ""], [(name, _shown(value)) for name, value in rows.items()])


def _shown(value: Any) -> Any:
    """A value as `config set` takes it; None is the default of a setting that may have none."""
    return "default" if value is None else value


def _adapter(settings: cmt_sdk.Settings) -> str:
    """The adapter as it is set; of "default" whether there is one."""
    # a model that is not here, which other commands tell of
    with suppress(ModelNotFound, ModelError):
        if settings.adapter == "default" and not cmt_sdk.has_shipped_adapter(settings.model):
            return "default (none for this model)"
    return settings.adapter


# A value may be a negative number: what is wrong with that the setting says.
@config.command(
    "set",
    context_settings={"ignore_unknown_options": True},
    epilog=f"NAME is one of {', '.join(cmt_sdk.Settings.names())}.",
)
@click.argument("name", type=click.Choice(cmt_sdk.Settings.names()), metavar="NAME")
@click.argument("value")
@memory_option
@json_option
def set_(name: str, value: str, folder: Path, as_json: bool) -> None:
    """Change a setting of a memory; where there is none yet, make one with it.

    \b
    Example:
      cmt config set memory_budget 2000000000
      cmt config set model Qwen/Qwen3-0.6B -m work
    """  # noqa: D301 - click reads the escape
    chosen = _value(name, value)
    doubt = DOUBTS[name](chosen) if name in DOUBTS else ""
    with begun(folder) as memory:
        before = memory.settings
        settings = memory.configure(**{name: chosen})
        is_otherwise = name in MADE_WITH and settings != before and memory.count() > 0
    if as_json:
        print_json(settings)
    else:
        say(f"{name} = {_shown(getattr(settings, name))}")
    if doubt:
        warn(doubt, as_json=as_json)
    if is_otherwise and not as_json:
        say("memories that were made with something else are made anew by `cmt reencode`", err=True)


def _value(name: str, text: str) -> Any:
    """The text in the type of that setting, a path as a whole one."""
    if name in WHOLE:
        return WHOLE[name](text)
    return cmt_sdk.Settings.parse(name, text)
