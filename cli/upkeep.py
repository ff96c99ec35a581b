"""`cmt compress`, `reindex`, `reencode`, `doctor`: keeping a memory well."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import cmt_sdk
from cmt_cli.memories import opened
from cmt_cli.options import json_option, memory_option
from cmt_cli.output import amount, print_json, say, table
from cmt_cli.progress import bars
from cmt_sdk.errors import ModelError, ModelNotFound


@click.command()
@memory_option
@json_option
def compress(folder: Path, as_json: bool) -> None:
    """Compress the passages that wait.

    They wait after `add --no-wait`, or when something stopped an `add`.

    \b
    Example:
      cmt compress
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory, bars() as update:
        waiting = memory.stats().pending
        count = memory.compress(lambda p: update("compressing", p.compressed, waiting))
    if as_json:
        print_json({"compressed": count})
    else:
        say(f"{amount(count, 'passage')} compressed")


@click.command()
@memory_option
@json_option
def reindex(folder: Path, as_json: bool) -> None:
    """Write the index of key vectors anew.

    \b
    Example:
      cmt reindex
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        index = memory.reindex()
    if as_json:
        print_json({"index": index})
    else:
        say(index)


@click.command()
@memory_option
@json_option
def reencode(folder: Path, as_json: bool) -> None:
    """Make memories anew that another model or other settings made.

    It works from the stored text, and goes on where it was stopped.

    \b
    Example:
      cmt reencode
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory, bars() as update:
        count = memory.reencode(lambda p: update("encoding", p.compressed, p.compressed + memory.stats().pending))
    if as_json:
        print_json({"encoded": count})
    else:
        say(f"{amount(count, 'passage')} encoded again")


@click.command()
@memory_option
@json_option
def doctor(folder: Path, as_json: bool) -> None:
    """Check files, database, index, memories and model.

    The exit code is 1 when something is wrong.

    \b
    Example:
      cmt doctor
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        found = [*memory.check(), _model(memory.settings.model)]
    if as_json:
        print_json(found)
    else:
        table(["", "check", "found", "remedy"], [("ok" if f.ok else "WRONG", f.check, f.detail, f.remedy) for f in found])
    if not all(f.ok for f in found):
        sys.exit(1)


def _model(name: str) -> cmt_sdk.Finding:
    try:
        info = cmt_sdk.show_model(name)
    except (ModelNotFound, ModelError) as error:
        return cmt_sdk.Finding("model", False, str(error), f"cmt model pull {name}")
    return cmt_sdk.Finding("model", True, f"{info.name}, {info.bytes / 1e6:.0f} MB")
