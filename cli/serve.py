"""`cmt serve`: a memory over HTTP, for programs and for a browser."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.memories import begun
from cmt_cli.options import memory_option
from cmt_cli.output import say

LAST_STEP = 0.3  # seconds for what is under way when the server has stopped


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; beyond this machine only with a token.",
)
@click.option(
    "--port",
    default=8765,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0: any that is free.",
)
@click.option(
    "--token",
    envvar="CMT_TOKEN",
    show_envvar=True,
    help="What clients must send as their API key. On the command line other users may see it.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    help=(
        "A web page, desktop app or extension that may ask, such as http://localhost:* or"
        " app://obsidian.md."
    ),
)
@click.option(
    "--require-user", is_flag=True, help="Refuse requests to /v1 that do not say who asks."
)
@click.option(
    "--user-header",
    "user_headers",
    multiple=True,
    metavar="NAME",
    help="A header that says who asks, before the usual ones.",
)
@click.option(
    "--max-body",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="MIB",
    help="The largest request.",
)
@click.option(
    "--max-queue",
    default=32,
    show_default=True,
    type=click.IntRange(min=0),
    help="Requests that may wait for the model.",
)
@click.option(
    "--remember/--no-remember",
    default=True,
    show_default=True,
    help="Add what users tell /v1 to the memory.",
)
@memory_option
def serve(
    *,
    host: str,
    port: int,
    token: str | None,
    origins: Sequence[str],
    require_user: bool,
    user_headers: Sequence[str],
    max_body: int,
    max_queue: int,
    remember: bool,
    folder: Path,
) -> None:
    """Serve a memory over HTTP, until Ctrl-C.

    /v1 answers OpenAI's clients from memory, and remembers what they tell; /api is for documents,
    described at /openapi.json; and / is a page for a browser. A line tells of each request, without
    what was asked.

    \b
    Example:
      cmt serve -m notes
      CMT_TOKEN=$(openssl rand -hex 16) cmt serve --host 0.0.0.0
      curl "localhost:8765/api/search?q=oil"
    """  # noqa: D301 - click reads the escape
    from cmt_adapters.server.serve import serve as run

    is_new = not cmt_sdk.Memory.exists(folder)

    def ready(url: str) -> None:
        say(f"serving {folder} at {url}; Ctrl-C ends", err=True)
        if is_new:
            say(
                "there was no memory in that folder: this is a new one, with nothing in it",
                err=True,
            )

    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "token": token,
        "origins": origins,
        "remember": remember,
    }
    options |= {
        "require_user": require_user,
        "user_headers": user_headers,
        "max_body": max_body * 2**20,
        "max_queue": max_queue,
    }
    with begun(folder) as memory:
        has_served = run(memory, on_ready=ready, **options)
        _close(memory)
    say("\nstopped; what was stored is safe", err=True)
    if has_served:
        sys.stderr.flush()
        # without waiting for what still computes, nor for an interpreter that takes itself apart
        os._exit(0)


def _close(memory: cmt_sdk.Memory) -> None:
    """Close the memory, unless a step under way holds that up: what is stored is safe, the rest is
    compressed later.
    """
    closing = threading.Thread(target=memory.close, daemon=True)
    closing.start()
    closing.join(LAST_STEP)
