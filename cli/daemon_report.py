"""Say with -v why the daemon did not run a command."""

from __future__ import annotations

from cmt_cli import daemon_client
from cmt_cli.output import echo


def report_daemon() -> None:
    """Print on stderr why this process runs the command in place of the daemon."""
    if daemon_client.reason:
        echo(f"without the daemon: {daemon_client.reason}", err=True, dim=True)
