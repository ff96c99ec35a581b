"""`cmt create`: an empty memory, encrypted where that is asked for."""

from __future__ import annotations

from pathlib import Path

import click

from cmt_cli.memories import begun, opened
from cmt_cli.options import json_option, memory_option
from cmt_cli.output import print_json, say
from cmt_sdk.errors import AlreadyExists, MemoryNotFound


@click.command()
@click.option(
    "--encrypted",
    is_flag=True,
    help="Encrypt everything that is kept; needs `pip install 'cmt-sdk[encryption]'`.",
)
@memory_option
@json_option
def create(encrypted: bool, folder: Path, as_json: bool) -> None:
    """Make an empty memory. `cmt add` makes one too; only this one can be encrypted.

    The key of an encrypted memory is what the environment variable CMT_KEY holds: 64 hexadecimal
    digits are the key itself, from anything else, 15 characters or more, it is derived. Without
    CMT_KEY a new key is made, and kept in the system keyring. Every command needs the key to open
    the memory. Whoever loses it loses the memory: there is no other way in.

    \b
    Example:
      cmt create -m work
      cmt create -m diary --encrypted
      CMT_KEY="$(cat /run/secrets/cmt)" cmt create -m diary --encrypted
    """  # noqa: D301 - click reads the escape
    _refuse_existing(folder)
    with begun(folder, **({"encrypted": True} if encrypted else {})) as memory:
        told = {f.check: f.detail for f in memory.check()}
    if as_json:
        print_json({"path": folder, "encrypted": encrypted})
        return
    say(f"{folder}")
    if encrypted:
        say(
            f"{told['encryption']}: whoever loses that loses the memory, so keep a copy of it"
            " elsewhere"
        )


def _refuse_existing(folder: Path) -> None:
    try:
        opened(folder).close()
    except MemoryNotFound:
        return
    raise AlreadyExists(f"there is a memory in {folder} already: give another name with -m")
