"""`cmt backup`: a copy of a memory."""

from __future__ import annotations

from pathlib import Path

import click

from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, print_json


@click.command()
@click.argument("target", metavar="FILE_OR_FOLDER", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace an existing copy.")
@memory_option
@json_option
def backup(target: Path, overwrite: bool, folder: Place, as_json: bool) -> None:
    """Copy the complete memory, as it is at one moment.

    Other processes may write meanwhile. If the name ends in .db, the copy is one file; it opens as
    a memory after you name it memory.db in an empty folder. Any other name is a folder, which opens
    as it is. The copy of an encrypted memory is encrypted with the same key.

    \b
    Example:
      cmt backup /media/usb/notes
      cmt list -m /media/usb/notes
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory:
        file = memory.backup(target, overwrite=overwrite)
    size = file.stat().st_size
    if as_json:
        print_json({"file": file, "bytes": size})
    else:
        echo(f"{file}, {size / 1e6:,.1f} MB")
