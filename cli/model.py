"""`cmt model`: base models on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

import cmt_sdk
from cmt_cli.common import json_option, plain, print_json, table

DEFAULT = cmt_sdk.Settings().model
name_argument = click.argument("name", default=DEFAULT)


@click.group()
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
      cmt model pull HuggingFaceTB/SmolLM2-360M-Instruct
    """  # noqa: D301 - click reads the escape
    with _bar() as update:
        info = cmt_sdk.pull_model(name, on_progress=update)
    if as_json:
        print_json(plain(info) | {"path": str(info.path)})
    else:
        click.echo(f"{info.name}: {info.bytes / 1e6:.0f} MB in {info.path}")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from cmt_cli.common import console

    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console(stderr=True)) as bars:
        tasks: dict[str, int] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)  # type: ignore[arg-type]

        yield update


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
        print_json([plain(i) | {"path": str(i.path)} for i in found])
        return
    table(["name", "MB", "licence", "source"], [(i.name, f"{i.bytes / 1e6:.0f}", i.licence, i.source) for i in found])
    if not found:
        click.echo("no models yet: `cmt model pull` fetches the default one", err=True)


@model.command()
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what is known of a model.

    \b
    Example:
      cmt model show
    """  # noqa: D301 - click reads the escape
    info = cmt_sdk.show_model(name)
    facts = plain(info) | {"path": str(info.path)}
    if as_json:
        print_json(facts)
    else:
        table(["", ""], list(facts.items()))


@model.command()
@name_argument
def remove(name: str) -> None:
    """Delete a pulled model; memories made with it stay, and need it again to be read.

    \b
    Example:
      cmt model remove
    """  # noqa: D301 - click reads the escape
    info = cmt_sdk.remove_model(name)
    click.echo(f"{info.name} removed, {info.bytes / 1e6:.0f} MB")
