"""`cmt model`: fetch, list, show and remove base models."""

from __future__ import annotations

from collections.abc import Sequence

import click

import cmt_sdk
from cmt_cli.options import json_option
from cmt_cli.output import echo, print_json, print_table, to_jsonable
from cmt_cli.progress import progress_bars, spinner
from cmt_cli.suggestions import SuggestingGroup
from cmt_sdk.errors import ModelError, ModelNotFound

DEFAULT = cmt_sdk.Settings().model
CATALOGUE_HEADINGS = (
    "name",
    "parameters",
    "licence",
    "download",
    "on disk",
    "in 4 bits",
    "bytes a token",
    "a passage",
    "adapters",
    "F1 from memory / text (questions)",
)
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
    """Fetch a model: one of `cmt model list --all`, a hub id, or a .gguf file.

    A .gguf file, here or on the hub, is converted. An interrupted pull goes on where it was. On a
    machine without a GPU the model is prepared for its CPU too, in seconds.

    \b
    Example:
      cmt model pull
      cmt model pull qwen2.5-coder-0.5b-instruct
      cmt model pull HuggingFaceTB/SmolLM2-360M-Instruct
      cmt model pull Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q4_k_m.gguf
    """  # noqa: D301 - click reads the escape
    with progress_bars(of_bytes=True) as update:
        info = cmt_sdk.pull_model(name, on_progress=update)
    try:
        with spinner(f"preparing {info.name} for this machine's CPU"):
            cmt_sdk.prepare_model(info.name)
    except ModelError as error:
        echo(f"torch will read with it, which is slower: {error}", err=True)
    if as_json:
        print_json(info)
    else:
        echo(f"{info.name}: {_megabytes(info)} in {info.path}")


@model.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those to choose from, with sizes.")
@json_option
def list_(everything: bool, as_json: bool) -> None:
    """List the models on this machine, or all to choose from.

    \b
    Example:
      cmt model list
      cmt model list --all
    """  # noqa: D301 - click reads the escape
    if everything:
        _list_catalogue(as_json)
        return
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


def _list_catalogue(as_json: bool) -> None:
    """Print every model to choose from, with what it costs."""
    entries = cmt_sdk.catalogue()
    if as_json:
        print_json(entries)
        return
    here = ["yes" if entry.is_here else "no" for entry in entries]
    rows = [[*row, word] for row, word in zip(catalogue_rows(entries), here, strict=True)]
    print_table([*CATALOGUE_HEADINGS, "here"], rows)


def catalogue_rows(entries: Sequence[cmt_sdk.CatalogueEntry]) -> list[list[str]]:
    """Return a row of cells per model, under CATALOGUE_HEADINGS."""
    return [
        [
            entry.name,
            f"{entry.parameters / 1e6:,.0f} M",
            entry.licence,
            f"{entry.download_bytes / 1e6:,.0f} MB" if entry.download_bytes else "",
            f"{entry.disk_bytes / 1e6:,.0f} MB",
            f"{entry.nf4_bytes / 2**30:.1f} GiB",
            f"{entry.token_bytes:,.0f}" if entry.passage_bytes else "unknown",
            f"{entry.passage_bytes / 1e3:,.0f} KB" if entry.passage_bytes else "unknown",
            "yes" if entry.has_adapters else "none",
            _figures(entry.measured),
        ]
        for entry in entries
    ]


def _figures(measured: cmt_sdk.Measured | None) -> str:
    """Return F1 from memory and from the text, with the number of questions."""
    if measured is None:
        return "not measured"
    return f"{measured.memory:.1f} / {measured.text:.1f} ({measured.questions:,})"


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
