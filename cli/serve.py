"""`cmt serve`: serve a memory over HTTP to programs and browsers."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import click

import cmt_sdk
from cmt_cli.memory_folder import open_or_create
from cmt_cli.options import Place, generator_options, memory_option
from cmt_cli.output import echo
from cmt_cli.server_options import host_option, origin_option, port_option, token_option

CLOSE_SECONDS = 0.3  # to close the memory after the server has stopped


@click.command()
@host_option
@port_option(8765)
@token_option
@origin_option
@click.option("--require-user", is_flag=True, help="Refuse requests to /v1 that name no user.")
@click.option(
    "--user-header",
    "user_headers",
    multiple=True,
    metavar="NAME",
    help="A header that names the user; checked before the usual ones (repeatable).",
)
@click.option(
    "--max-body",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="MIB",
    help="The maximum size of a request.",
)
@click.option(
    "--max-queue",
    default=32,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many requests may wait for the model.",
)
@click.option(
    "--remember/--no-remember",
    default=True,
    show_default=True,
    help="Store the facts that users state to /v1.",
)
@generator_options
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
    folder: Place,
    generator: Mapping[str, Any],
) -> None:
    """Serve a memory over HTTP, until Ctrl-C.

    /v1 answers OpenAI clients from the memory and stores the facts that they state. /api manages
    documents; /openapi.json describes it. / is a page for a browser. The log has one line per
    request, without its text.

    \b
    Example:
      cmt serve -m notes
      CMT_TOKEN=$(openssl rand -hex 16) cmt serve --host 0.0.0.0
      curl "localhost:8765/api/search?q=oil"
    """  # noqa: D301 - click reads the escape
    from cmt_adapters.server.serve import serve as run

    is_new = not cmt_sdk.Memory.exists(folder)

    def ready(url: str) -> None:
        echo(f"serving {folder} at {url}; Ctrl-C ends", err=True)
        if is_new:
            echo(
                "there was no memory in that folder: this is a new one, with nothing in it",
                err=True,
            )

    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "token": token,
        "origins": origins,
        "remember": remember,
        "require_user": require_user,
        "user_headers": user_headers,
        "max_body": max_body * 2**20,
        "max_queue": max_queue,
    }
    with open_or_create(folder, **generator) as memory:
        has_served = run(memory, on_ready=ready, **options)
        _close(memory)
    echo("\nstopped; what was stored is safe", err=True)
    if has_served:
        sys.stderr.flush()
        # exit at once: neither wait for a computation in a thread nor for the interpreter's cleanup
        os._exit(0)


def _close(memory: cmt_sdk.Memory) -> None:
    """Close the memory, but do not wait long for a computation in a thread.

    Stored texts are safe; pending passages are compressed later.
    """
    closing = threading.Thread(target=memory.close, daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)
