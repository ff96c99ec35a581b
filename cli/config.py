"""`cmt config`: a memory's settings, and where things lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.memories import opened
from cmt_cli.options import json_option, memory_option, typed
from cmt_cli.output import plain, print_json, say, table
from cmt_sdk.errors import InvalidSetting, MemoryNotFound

NEED_REENCODING = ("model", "adapter", "precision", "compressor", "keep", "compression")


@click.group(invoke_without_command=True)
@memory_option
@json_option
@click.pass_context
def config(context: click.Context, folder: Path, as_json: bool) -> None:
    """Show the settings of a memory, and where things lie.

    \b
    Example:
      cmt config
      cmt config set keep 0.5
    """  # noqa: D301 - click reads the escape
    if context.invoked_subcommand is not None:
        return
    try:
        with opened(folder) as memory:
            settings, state = memory.settings, ""
    except MemoryNotFound:
        settings, state = cmt_sdk.Settings(), " (not made yet: these are the defaults)"
    if as_json:
        places = {"memory": folder, "home": cmt_sdk.home(), "models": cmt_sdk.model_home(), "exists": not state}
        print_json({"places": places, "settings": settings})
        return
    table(["", ""], [("memory", f"{folder}{state}"), ("home", cmt_sdk.home()), ("models", cmt_sdk.model_home())])
    table(["", ""], list(plain(settings).items()))


@config.command("set", epilog=f"NAME is one of {', '.join(cmt_sdk.Settings.names())}.")
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
    with opened(folder, create=True) as memory:
        settings = memory.configure(**{name: _value(name, value)})
        stale = name in NEED_REENCODING and memory.count() > 0
    if as_json:
        print_json(settings)
        return
    say(f"{name} = {getattr(settings, name)}")
    if stale:
        say("`cmt reencode` makes what is stored anew with it", err=True)


def _value(name: str, text: str) -> Any:
    """The text in the type of that setting."""
    kind = type(getattr(cmt_sdk.Settings(), name))
    if kind is bool:
        return typed(text.lower())
    try:
        return kind(text.replace("_", "") if kind is int else text)
    except ValueError as error:
        raise InvalidSetting(f"{name}={text!r}: choose a number") from error
