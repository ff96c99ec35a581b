"""`cmt gc`: delete the objects that no passage needs any more."""

from __future__ import annotations

import click

from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, pluralize, print_json, to_jsonable


@click.command()
@memory_option
@json_option
def gc(folder: Place, as_json: bool) -> None:
    """Delete the objects that no passage needs any more.

    A memory with the setting `objects` keeps large compressed passages in a bucket or a folder.
    `cmt forget` deletes those of what it erases, and adding deletes what updates have left over.
    This command does it now, and also finds objects that the memory does not know, such as those of
    a killed process; these are deleted once they are a day old.

    \b
    Example:
      cmt gc
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory:
        deleted = memory.delete_unused_objects()
    if as_json:
        print_json(to_jsonable(deleted))
        return
    echo(f"{pluralize(len(deleted.names), 'object')} deleted")
    if deleted.unproven:
        echo(
            f"of {pluralize(len(deleted.unproven), 'object')} earlier versions may be there: the"
            " place keeps versions, and its own rules delete them"
        )
    if deleted.left:
        echo(f"another process is deleting {pluralize(deleted.left, 'object')}")
