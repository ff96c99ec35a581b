"""`cmt export` and `cmt import`: a memory as one file."""

from __future__ import annotations

from pathlib import Path
from zipfile import is_zipfile

import click

from cmt_cli.inputs import is_there
from cmt_cli.memories import opened
from cmt_cli.options import json_option, memory_option
from cmt_cli.output import amount, plain, print_json, say
from cmt_cli.progress import bars
from cmt_sdk.errors import InvalidInput, NotFound


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@memory_option
@json_option
def export(file: Path, overwrite: bool, folder: Path, as_json: bool) -> None:
    """Write the whole memory to one file.

    It is a zip archive of JSON lines and safetensors.

    \b
    Example:
      cmt export backup.cmt
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        count = memory.export(file, overwrite=overwrite)
    if as_json:
        print_json({"documents": count, "file": file, "bytes": file.stat().st_size})
    else:
        say(f"{amount(count, 'document')} in {file}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--no-wait", is_flag=True, help="Leave what has no usable memory in the archive to `cmt compress`.")
@memory_option
@json_option
def import_(file: Path, no_wait: bool, folder: Path, as_json: bool) -> None:
    """Add what an archive of `cmt export` holds.

    \b
    Example:
      cmt import backup.cmt -m restored
    """  # noqa: D301 - click reads the escape
    if not is_there(str(file)):  # before a memory is made for it
        raise NotFound(f"there is no file {file}")
    if file.is_file() and not is_zipfile(file):
        raise InvalidInput(f"{file} is no archive of `cmt export`; `cmt add {file}` remembers a file's text")
    with opened(folder, create=True) as memory, bars() as update:
        progress = memory.import_(file, wait=not no_wait, on_progress=lambda p: update("importing", p.added + p.unchanged, 0))
    if as_json:
        print_json(plain(progress))
    else:
        say(f"{progress.added} added, {progress.unchanged} unchanged")
