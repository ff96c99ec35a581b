"""`cmt compress`, `reindex`, `reencode`, `doctor`: keeping a memory well."""

from __future__ import annotations

import sys

import click

from cmt_cli.common import json_option, memory_option, opened, print_json, table
from cmt_cli.progress import shown


@click.command()
@memory_option
def compress(where: str | None) -> None:
    """Compress the passages that wait: after `add --no-wait`, or after a crash.

    \b
    Example:
      cmt compress
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory, shown("compressing") as update:
        count = memory.compress(update)
    click.echo(f"{count} passages compressed")


@click.command()
@memory_option
def reindex(where: str | None) -> None:
    """Write the index of key vectors anew.

    \b
    Example:
      cmt reindex
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory:
        click.echo(memory.reindex())


@click.command()
@memory_option
def reencode(where: str | None) -> None:
    """Encode again, from the stored text, what another model or other settings made. Goes on where it was stopped.

    \b
    Example:
      cmt reencode
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory, shown("encoding") as update:
        count = memory.reencode(update)
    click.echo(f"{count} passages encoded again")


@click.command()
@memory_option
@json_option
def doctor(where: str | None, as_json: bool) -> None:
    """Check files, database, index and memories; the exit code is 1 when something is wrong.

    \b
    Example:
      cmt doctor
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory:
        found = memory.check()
    if as_json:
        print_json(found)
    else:
        table(["", "check", "found", "remedy"], [("ok" if f.ok else "WRONG", f.check, f.detail, f.remedy) for f in found])
    if not all(f.ok for f in found):
        sys.exit(1)
