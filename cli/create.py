"""`cmt create`: an empty memory, optionally encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cmt_cli.error_handling import warn
from cmt_cli.memory_folder import open_memory, open_or_create
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, print_json
from cmt_cli.setting_values import set_option, setting_warning
from cmt_sdk.errors import AlreadyExists, MemoryNotFound


@click.command()
@click.option(
    "--encrypted",
    is_flag=True,
    help="Encrypt all stored data; needs `pip install 'cmt-sdk[encryption]'`.",
)
@set_option
@memory_option
@json_option
def create(encrypted: bool, settings: Mapping[str, Any], folder: Place, as_json: bool) -> None:
    """Create an empty memory.

    `cmt add` creates a memory too, with the default settings; only this command can create an
    encrypted one. A model of --set must be on this machine; the default model is not needed then.

    The environment variable CMT_KEY holds the key of an encrypted memory: 64 hexadecimal digits are
    the key itself; from any other text of 15 characters or more, the key is derived. Without
    CMT_KEY, the command creates a key and stores it in the system keyring. Every command needs the
    key to open the memory. If you lose the key, you lose the memory: there is no other way to open
    it.

    \b
    Example:
      cmt create -m work
      cmt create -m work --set model=Qwen/Qwen3-0.6B --set compression=2
      cmt create -m diary --encrypted
      CMT_KEY="$(cat /run/secrets/cmt)" cmt create -m diary --encrypted
    """  # noqa: D301 - click reads the escape
    _refuse_existing(folder)
    with open_or_create(folder, **settings, **({"encrypted": True} if encrypted else {})) as memory:
        details = {result.check: result.detail for result in memory.check()}
    for name, value in settings.items():
        if warning := setting_warning(name, value):
            warn(warning, as_json=as_json)
    if as_json:
        print_json({"path": folder, "encrypted": encrypted})
        return
    echo(f"{folder}")
    if encrypted:
        echo(
            f"{details['encryption']}: without the key the memory cannot be opened, so keep a copy"
            " of the key elsewhere"
        )


def _refuse_existing(folder: Place) -> None:
    try:
        open_memory(folder).close()
    except MemoryNotFound:
        return
    raise AlreadyExists(f"there is a memory in {folder} already: give another name with -m")
