"""`cmt model`: base models on this machine."""

from __future__ import annotations

import click

import cmt_sdk
from cmt_cli.options import json_option
from cmt_cli.output import plain, print_json, say, table
from cmt_cli.progress import bars
from cmt_cli.suggesting import Suggesting
from cmt_sdk.errors import ModelNotFound

DEFAULT = cmt_sdk.Settings().model
name_argument = click.argument("name", default=DEFAULT)


@click.group(cls=Suggesting)
def model() -> None:
    """Fetch, list and remove base models.

    \b
    Example:
      cmt model pull
    """  # noqa: D301 - click reads the escape


@model.command()
@name_argument
@json_option
def pull(name: str, as_json: bool) -> None:
    """Fetch a model once: the default one, a hub id, or a .gguf file to convert.

    \b
    Example:
      cmt model pull
      cmt model pull HuggingFaceTB/SmolLM2-360M-Instruct
    """  # noqa: D301 - click reads the escape
    with bars(of_bytes=True) as update:
        info = cmt_sdk.pull_model(name, on_progress=update)
    if as_json:
        print_json(info)
    else:
        say(f"{info.name}: {_megabytes(info)} in {info.path}")


@model.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the models on this machine.

    \b
    Example:
      cmt model list
    """  # noqa: D301 - click reads the escape
    found = cmt_sdk.list_models()
    if as_json:
        print_json(found)
        return
    table(
        ["name", "size", "licence", "source"],
        [(i.name, _megabytes(i), i.licence, i.source) for i in found],
    )
    if not found:
        say("no models yet: `cmt model pull` fetches the default one", err=True)


@model.command()
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what is known of a model.

    \b
    Example:
      cmt model show
    """  # noqa: D301 - click reads the escape
    info = cmt_sdk.model_info(name)
    if as_json:
        print_json(info)
    else:
        table(["", ""], list(plain(info).items()))


@model.command()
@name_argument
@json_option
def remove(name: str, as_json: bool) -> None:
    """Delete a pulled model; memories made with it stay, and need it again to be read.

    \b
    Example:
      cmt model remove
    """  # noqa: D301 - click reads the escape
    try:
        info = cmt_sdk.remove_model(name)
    except ModelNotFound as error:
        raise ModelNotFound(
            f"model {name!r} is not on this machine: `cmt model list` shows those that are"
        ) from error
    if as_json:
        print_json(info)
    else:
        say(f"{info.name} removed, {_megabytes(info)}")


def _megabytes(info: cmt_sdk.ModelInfo) -> str:
    return f"{info.bytes / 1e6:,.0f} MB"
