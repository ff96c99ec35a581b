"""`cmt list`: the documents of a memory."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import click

import cmt_sdk
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, filter_options, json_option, memory_option
from cmt_cli.output import (
    SHORTEST_ID,
    echo,
    local_time,
    one_line,
    print_json,
    print_table,
    short_id,
    short_source,
)
from cmt_cli.resolve import resolve_filter

COLUMNS = ["id", "source", "scope", "version", "updated", "text"]
TEXT_CELLS = 60


@click.command("list")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(min=1),
    help="List at most this many documents.",
)
@click.option("--all", "every", is_flag=True, help="List all documents.")
@filter_options
@memory_option
@json_option
def list_(
    limit: int, every: bool, filters: Mapping[str, Any], folder: Place, as_json: bool
) -> None:
    """List documents, oldest first.

    With --json, one object per line.

    \b
    Example:
      cmt list --scope user/ann --where "year>=2020"
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory:
        filters = resolve_filter(memory, filters)
        documents = islice(memory.documents(**filters), None if every else limit)
        if as_json:
            for document in documents:
                print_json(document)
            return
        print_table(COLUMNS, (_row(memory, d) for d in documents))
        total = memory.count(**filters)
    if not total:
        echo("no documents", err=True)
    elif total > limit and not every:
        echo(f"{limit} of {total}; --all lists the rest", err=True)


def _row(memory: cmt_sdk.Memory, document: cmt_sdk.Document) -> tuple[object, ...]:
    return (
        short_id(document.id, memory.ids(document.id[:SHORTEST_ID])),
        short_source(document.source, ""),
        document.scope,
        document.version,
        local_time(document.updated_at),
        one_line(document.text, TEXT_CELLS),
    )
