"""`cmt export`: the memory as one file."""

from __future__ import annotations

from pathlib import Path

import click

from cmt_cli.error_handling import warn
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, pluralize, print_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@memory_option
@json_option
def export(file: Path, overwrite: bool, folder: Place, as_json: bool) -> None:
    """Write the complete memory to one file.

    The file is a zip archive of JSON lines and safetensors. It is never encrypted, even if the
    memory is; for an encrypted copy use `cmt backup`.

    \b
    Example:
      cmt export backup.cmt
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory:
        count = memory.export(file, overwrite=overwrite)
        if memory.encrypted:
            warn(
                f"{file} is not encrypted, as the memory is: guard it, or use `cmt backup`",
                as_json=as_json,
            )
    if as_json:
        print_json({"documents": count, "file": file, "bytes": file.stat().st_size})
    else:
        echo(f"{pluralize(count, 'document')} in {file}")
