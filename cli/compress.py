"""`cmt compress`: compress pending passages."""

from __future__ import annotations

import click

from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, pluralize, print_json
from cmt_cli.progress import progress_bars


@click.command()
@memory_option
@json_option
def compress(folder: Place, as_json: bool) -> None:
    """Compress pending passages.

    Passages are pending after `add --no-wait`, or after an `add` that was interrupted.

    \b
    Example:
      cmt compress
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory, progress_bars() as update:
        pending = memory.stats().pending
        count = memory.compress(lambda p: update("compressing", p.compressed, pending))
    if as_json:
        print_json({"compressed": count})
    else:
        echo(f"{pluralize(count, 'passage')} compressed")
