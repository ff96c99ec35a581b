"""The options that `cmt serve` and `cmt mcp` share: where to listen, and whom to let in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]

host_option = click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. An address that other machines can reach needs a token.",
)


def port_option(default: int) -> Callable[[Command], Command]:
    """Return --port with a default."""
    return click.option(
        "--port",
        default=default,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="The port to listen on; 0 picks a free one.",
    )


token_option = click.option(
    "--token",
    envvar="CMT_TOKEN",
    show_envvar=True,
    help=(
        'The token that clients must send as "Authorization: Bearer TOKEN". Other users can see it'
        " on the command line."
    ),
)
origin_option = click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    help=(
        "Allow requests from this web page, desktop app or extension, e.g. http://localhost:* or"
        " app://obsidian.md (repeatable)."
    ),
)
