"""`cmt stats`: the memory in numbers."""

from __future__ import annotations

import click

from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import print_json, print_table, to_jsonable


@click.command()
@memory_option
@json_option
def stats(folder: Place, as_json: bool) -> None:
    """Show the memory in numbers.

    \b
    Example:
      cmt stats -m work
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory:
        figures = {"path": memory.location, **to_jsonable(memory.stats())}
    if as_json:
        print_json(figures)
        return
    rows = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else value)
        for name, value in figures.items()
    ]
    print_table(["", ""], rows)
