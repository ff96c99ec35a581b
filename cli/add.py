"""`cmt add`: files, folders, standard input or a text into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.common import json_option, memory_option, metadata, opened, print_json, standard_input
from cmt_cli.progress import shown


@click.command()
@click.argument("paths", nargs=-1, metavar="[FILE|FOLDER|GLOB|-]...")
@click.option("--text", help="A text to remember.")
@click.option("--source", help="Where a text comes from; files have their path.")
@click.option("--scope", default="", help="A path of names, such as user/ann.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="Metadata; numbers, true, false and null are typed.")
@click.option("--expires", type=click.DateTime(), help="When to forget it, UTC.")
@click.option("--no-wait", is_flag=True, help="Store the text now, compress later (`cmt compress`, or at a question).")
@memory_option
@json_option
def add(
    paths: Sequence[str],
    text: str | None,
    source: str | None,
    scope: str,
    meta: Sequence[str],
    expires: datetime | None,
    no_wait: bool,
    where: str | None,
    as_json: bool,
) -> None:
    """Remember files, folders, or a text.

    What is unchanged is skipped, what has changed since is updated.

    \b
    Example:
      cmt add ~/notes report.pdf "letters/*.md"
      echo "The oil was changed in May." | cmt add - --source car --meta year=2026
    """  # noqa: D301 - click reads the escape
    if not paths and text is None:
        raise click.UsageError("give files, folders, - for standard input, or --text")
    fields = {"scope": scope, "metadata": metadata(meta), "expires_at": expires and expires.replace(tzinfo=UTC)}
    documents = (_completed(d, source, fields) for d in _documents(paths, text))
    with opened(where, create=True) as memory, shown("adding") as update:
        progress = memory.add_many(documents, replace=True, compress=not no_wait, on_progress=update)
    if as_json:
        print_json(progress)
        return
    parts = [f"{progress.added} added", f"{progress.updated} updated", f"{progress.unchanged} unchanged"]
    waiting = progress.passages - progress.compressed
    click.echo(", ".join(parts) + (f"; {waiting} passages wait to be compressed" if waiting else ""))


def _documents(paths: Sequence[str], text: str | None) -> Iterator[cmt_sdk.Document]:
    if text is not None:
        yield cmt_sdk.Document(text)
    for path in paths:
        if path == "-":
            yield cmt_sdk.Document(standard_input())
            continue
        matching = sorted(glob(path, recursive=True)) if not Path(path).exists() else []  # noqa: PTH207 - may be absolute
        yield from cmt_sdk.read_documents(matching or [path])


def _completed(document: cmt_sdk.Document, source: str | None, fields: dict[str, Any]) -> cmt_sdk.Document:
    whole = fields | {"metadata": {**document.metadata, **fields["metadata"]}}
    return replace(document, source=document.source or source, **whole)
