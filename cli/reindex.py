"""`cmt reindex`: rebuild the vector index."""

from __future__ import annotations

import click

from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, print_json


@click.command()
@memory_option
@json_option
def reindex(folder: Place, as_json: bool) -> None:
    """Rebuild the vector index.

    \b
    Example:
      cmt reindex
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory:
        index = memory.reindex()
    if as_json:
        print_json({"index": index})
    else:
        echo(index)
