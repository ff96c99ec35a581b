"""`cmt config`: a memory's settings, and where things lie."""

from __future__ import annotations

import dataclasses

import click

import cmt_sdk
from cmt_cli.common import json_option, memory_option, opened, plain, print_json, table, typed


@click.group(invoke_without_command=True)
@memory_option
@json_option
@click.pass_context
def config(context: click.Context, where: str | None, as_json: bool) -> None:
    """Show the settings of a memory, and where things lie.

    \b
    Example:
      cmt config
      cmt config set keep 0.5
    """  # noqa: D301 - click reads the escape
    if context.invoked_subcommand is not None:
        return
    folder = cmt_sdk.locate(where)
    places = {"memory": str(folder), "home": str(cmt_sdk.home()), "models": str(cmt_sdk.model_home())}
    settings = plain(cmt_sdk.Settings())
    if folder.exists():
        with opened(where) as memory:
            settings = plain(memory.settings)
    if as_json:
        print_json({"places": places, "settings": settings})
    else:
        table(["", ""], [*places.items(), *settings.items()])


@config.command("set")
@click.argument("name", type=click.Choice([f.name for f in dataclasses.fields(cmt_sdk.Settings)]))
@click.argument("value")
@memory_option
def set_(name: str, value: str, where: str | None) -> None:
    """Change a setting of a memory; it holds for what is compressed from now on (`cmt reencode` for the rest).

    \b
    Example:
      cmt config set memory_budget 2000000000
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory:
        memory.configure(**{name: typed(value)})
    click.echo(f"{name} = {value}")
