"""`cmt daemon`: the process that keeps the model of `cmt ask` and `cmt search` loaded."""

from __future__ import annotations

from contextlib import closing

import click

from cmt_cli.options import json_option
from cmt_cli.output import echo, print_json
from cmt_sdk.system import daemon as process
from cmt_sdk.system.links import LinkError


@click.group()
def daemon() -> None:
    """Show or end the process that keeps the model loaded.

    `cmt ask` and `cmt search` start it. It leaves after CMT_KEEP_ALIVE seconds without a question
    (default 300; 0: none is used). Only your own user can talk to it. It answers for an encrypted
    memory only with CMT_KEEP_ENCRYPTED=1. `cmt forget` ends it.

    \b
    Example:
      cmt daemon status
      cmt daemon stop
    """  # noqa: D301 - click reads the escape


@daemon.command()
@json_option
def status(as_json: bool) -> None:
    """Show whether it runs, its model, its RAM, and when it leaves.

    \b
    Example:
      cmt daemon status
    """  # noqa: D301 - click reads the escape
    try:
        with closing(process.connect(process.runtime_folder())) as link:
            link.send(process.STATUS)
            facts = link.receive_object(process.STATUS, process.CONNECT)
    except (FileNotFoundError, ConnectionRefusedError):
        facts = None
    except LinkError as error:
        raise click.ClickException(f"the daemon is not well: {error}; `cmt daemon stop`") from error
    if as_json:
        print_json({"running": facts is not None, **(facts or {})})
    elif facts is None:
        echo("not running")
    else:
        ram = f", {facts['bytes'] / 1e6:,.0f} MB of RAM" if facts["bytes"] else ""
        rest = facts["leaves_in"]
        echo(f"running: process {facts['process']}, cmt {facts['version']}{ram}")
        echo(f"model: {facts['model'] or 'none loaded'}")
        echo("answers a question" if rest is None else f"leaves in {rest} seconds")


@daemon.command()
def stop() -> None:
    """End it; one that does not leave is killed, which loses nothing.

    \b
    Example:
      cmt daemon stop
    """  # noqa: D301 - click reads the escape
    try:
        echo("stopped" if process.stop() else "not running")
    except OSError as error:
        raise click.ClickException(
            f"the daemon in {process.runtime_folder()} cannot be ended: {error}"
        ) from error
