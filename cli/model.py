"""`cmt model`: fetch, list, show and remove base models."""

from __future__ import annotations

import click

import cmt_sdk
from cmt_cli.options import json_option
from cmt_cli.output import echo, print_json, print_table, to_jsonable
from cmt_cli.progress import progress_bars
from cmt_cli.suggestions import SuggestingGroup
from cmt_sdk.errors import ModelNotFound

DEFAULT = cmt_sdk.Settings().model
name_argument = click.argument("name", default=DEFAULT)


@click.group(cls=SuggestingGroup)
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
    """Fetch a model: the default one, a hub id, or a .gguf file, which is converted.

    \b
    Example:
      cmt model pull
      cmt model pull HuggingFaceTB/SmolLM2-360M-Instruct
    """  # noqa: D301 - click reads the escape
    with progress_bars(of_bytes=True) as update:
        info = cmt_sdk.pull_model(name, on_progress=update)
    if as_json:
        print_json(info)
    else:
        echo(f"{info.name}: {_megabytes(info)} in {info.path}")


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
    print_table(
        ["name", "size", "licence", "source"],
        [(i.name, _megabytes(i), i.licence, i.source) for i in found],
    )
    if not found:
        echo("no models yet: `cmt model pull` fetches the default one", err=True)


@model.command()
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the details of a model.

    \b
    Example:
      cmt model show
    """  # noqa: D301 - click reads the escape
    info = cmt_sdk.model_info(name)
    if as_json:
        print_json(info)
    else:
        print_table(["", ""], list(to_jsonable(info).items()))


@model.command()
@name_argument
@json_option
def remove(name: str, as_json: bool) -> None:
    """Delete a pulled model. Memories made with it stay, but cannot be read without it.

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
        echo(f"{info.name} removed, {_megabytes(info)}")


def _megabytes(info: cmt_sdk.ModelInfo) -> str:
    return f"{info.bytes / 1e6:,.0f} MB"
