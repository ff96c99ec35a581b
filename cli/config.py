"""`cmt config`: the settings of a memory, and the folders in use."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

import cmt_sdk
from cmt_cli.error_handling import warn
from cmt_cli.memory_folder import open_memory, open_or_create
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, print_json, print_table, to_jsonable
from cmt_cli.setting_values import parse_setting, setting_warning
from cmt_cli.suggestions import SuggestingGroup
from cmt_sdk.errors import MemoryNotFound, ModelError, ModelNotFound

# Settings whose change may make existing compressed passages unusable.
MADE_WITH = (
    "model",
    "adapter",
    "precision",
    "compressor",
    "compression",
    "keep_at_least",
    "scores",
    "codec",
)


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@memory_option
@json_option
@click.pass_context
def config(context: click.Context, folder: Place, as_json: bool) -> None:
    """Show the settings of a memory, and the folders in use.

    \b
    Example:
      cmt config
      cmt config set compression 2
    """  # noqa: D301 - click reads the escape
    if context.invoked_subcommand is not None:
        return
    try:
        with open_memory(folder) as memory:
            settings = memory.settings
            state = ""
    except MemoryNotFound:
        settings = cmt_sdk.Settings()
        state = " (not made yet: these are the defaults)"
    if as_json:
        places = {
            "memory": folder,
            "data_dir": cmt_sdk.data_dir(),
            "models": cmt_sdk.models_dir(),
            "exists": not state,
        }
        print_json({"places": places, "settings": settings})
        return
    print_table(
        ["", ""],
        [
            ("memory", f"{folder}{state}"),
            ("data_dir", cmt_sdk.data_dir()),
            ("models", cmt_sdk.models_dir()),
        ],
    )
    rows = to_jsonable(settings) | {"adapter": _adapter(settings)}
    print_table(["", ""], [(name, _shown(value)) for name, value in rows.items()])


def _shown(value: Any) -> Any:
    """Return a value as `config set` takes it; None stands for the default of a setting."""
    return "default" if value is None else value


def _adapter(settings: cmt_sdk.Settings) -> str:
    """Return the adapter as it is set, and for "default" whether the model has one."""
    # a missing model is reported by other commands
    with suppress(ModelNotFound, ModelError):
        if settings.adapter == "default" and not cmt_sdk.has_shipped_adapter(settings.model):
            return "default (none for this model)"
    return settings.adapter


# A value may be a negative number, which click would take for an option; the setting rejects it.
@config.command(
    "set",
    context_settings={"ignore_unknown_options": True},
    epilog=f"NAME is one of {', '.join(cmt_sdk.Settings.names())}.",
)
@click.argument("name", type=click.Choice(cmt_sdk.Settings.names()), metavar="NAME")
@click.argument("value")
@memory_option
@json_option
def set_(name: str, value: str, folder: Place, as_json: bool) -> None:
    """Change a setting of a memory; create the memory if it does not exist.

    \b
    Example:
      cmt config set memory_budget 2000000000
      cmt config set model Qwen/Qwen3-0.6B -m work
    """  # noqa: D301 - click reads the escape
    new = parse_setting(name, value)
    warning = setting_warning(name, new)
    # a new memory of this model needs no other one; a model that is not here yet is recorded only
    is_made_with = not warning and not cmt_sdk.Memory.exists(folder)
    with open_or_create(folder, **({name: new} if is_made_with else {})) as memory:
        before = memory.settings
        settings = memory.configure(**{name: new})
        needs_reencode = name in MADE_WITH and settings != before and memory.count() > 0
    if as_json:
        print_json(settings)
    else:
        shown = _adapter(settings) if name == "adapter" else _shown(getattr(settings, name))
        echo(f"{name} = {shown}")
    if warning:
        warn(warning, as_json=as_json)
    if needs_reencode and not as_json:
        echo("passages compressed with another value: `cmt reencode` re-encodes them", err=True)
