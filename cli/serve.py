"""`cmt serve`: serve a memory over HTTP to programs and browsers."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

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
@click.option(
    "--drain",
    "drain_seconds",
    default=8.0,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long running requests have to end after SIGTERM.",
)
@click.option(
    "--log",
    "log_format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="The form of the log on stderr; json is one object per line.",
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
    drain_seconds: float,
    log_format: Literal["text", "json"],
    folder: Place,
    generator: Mapping[str, Any],
) -> None:
    """Serve a memory over HTTP, until Ctrl-C or SIGTERM.

    /v1 answers OpenAI clients from the memory and stores the facts that they state. /api manages
    documents; /openapi.json describes it. / is a page for a browser. The log has one line per
    request, without its text.

    /healthz, /readyz and /metrics are for operations. On SIGTERM /readyz and new requests get 503,
    and running ones end. With OTEL_EXPORTER_OTLP_ENDPOINT set, spans of requests are sent there.

    \b
    Example:
      cmt serve -m notes
      CMT_TOKEN=$(openssl rand -hex 16) cmt serve --host 0.0.0.0
      curl "localhost:8765/api/search?q=oil"
    """  # noqa: D301 - click reads the escape
    from cmt_adapters.server.serve import serve as run

    is_new = not cmt_sdk.Memory.exists(folder)

    def tell(message: str) -> None:
        if log_format == "json":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            message = json.dumps({"time": now, "level": "info", "message": message.strip()})
        echo(message, err=True)

    def ready(url: str) -> None:
        tell(f"serving {folder} at {url}; Ctrl-C ends")
        if is_new:
            tell("there was no memory in that folder: this is a new one, with nothing in it")

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
        "drain_seconds": drain_seconds,
        "log_format": log_format,
    }
    with open_or_create(folder, **generator) as memory:
        has_served = run(memory, on_ready=ready, **options)
        _close(memory)
    tell("\nstopped; what was stored is safe")
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
