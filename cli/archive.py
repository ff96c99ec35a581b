"""`cmt export` and `cmt import`: a memory as one file."""

from __future__ import annotations

from pathlib import Path

import click

from cmt_cli.common import json_option, memory_option, opened, print_json
from cmt_cli.progress import shown


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@memory_option
def export(file: Path, overwrite: bool, where: str | None) -> None:
    """Write the whole memory to one archive: JSON lines and safetensors in a zip file.

    \b
    Example:
      cmt export backup.cmt
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory:
        count = memory.export(file, overwrite=overwrite)
    click.echo(f"{count} documents in {file}")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@memory_option
@json_option
def import_(file: Path, where: str | None, as_json: bool) -> None:
    """Add what an archive of `cmt export` holds.

    \b
    Example:
      cmt import backup.cmt -m restored
    """  # noqa: D301 - click reads the escape
    with opened(where, create=True) as memory, shown("importing") as update:
        progress = memory.import_(file, on_progress=update)
    if as_json:
        print_json(progress)
    else:
        click.echo(f"{progress.added} added, {progress.unchanged} unchanged")
