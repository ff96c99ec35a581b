"""`cmt reencode`: re-encode compressed passages made by a different model, settings or release."""

from __future__ import annotations

import click

from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, pluralize, print_json
from cmt_cli.progress import progress_bars


@click.command()
@memory_option
@json_option
def reencode(folder: Place, as_json: bool) -> None:
    """Re-encode compressed passages made by a different model, other settings or an earlier
    release.

    The command works from the stored text and resumes where it was interrupted. Compressed passages
    that are up to date stay.

    \b
    Example:
      cmt reencode
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory, progress_bars() as update:
        count = memory.reencode(
            lambda p: update("encoding", p.compressed, p.compressed + memory.stats().pending)
        )
    if as_json:
        print_json({"encoded": count})
    else:
        echo(f"{pluralize(count, 'passage')} encoded again")
