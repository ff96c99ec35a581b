"""`cmt mcp`: a memory as an MCP server, over stdio or HTTP. Opens the ports; what the server does
stands in the adapter.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cmt_cli.memories import begun, opened
from cmt_cli.options import memory_option
from cmt_cli.output import on_terminal, say
from cmt_sdk.errors import InvalidSetting

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - addresses to be careful with, not to listen on
FOR_HTTP = {
    "host": "--host",
    "port": "--port",
    "token": "--token",
    "names": "--allow-host",
    "origins": "--origin",
}
LAST_WORDS = 3  # seconds for requests under way when the server is stopped


@click.command()
@click.option(
    "--http", is_flag=True, help="Serve streamable HTTP instead of stdio, at http://HOST:PORT/mcp."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; beyond this machine with a token.",
)
@click.option(
    "--port",
    default=8766,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0: any that is free.",
)
@click.option(
    "--token",
    envvar="CMT_TOKEN",
    show_envvar=True,
    help='What clients must send as "Authorization: Bearer TOKEN".',
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    help="Another host name by which clients reach the server.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    help=(
        "A web page, desktop app or extension that may ask, such as http://localhost:6274 or"
        " app://obsidian.md."
    ),
)
@click.option(
    "--read-only", is_flag=True, help="Without the tools that remember, update and forget."
)
@memory_option
@click.pass_context
def mcp(
    context: click.Context,
    http: bool,
    host: str,
    port: int,
    token: str | None,
    names: Sequence[str],
    origins: Sequence[str],
    read_only: bool,
    folder: Path,
) -> None:
    """Serve a memory to assistants that speak MCP.

    The assistant starts it by itself: give it the command `cmt` with the argument `mcp`. It can
    then search, ask, list, remember, update and forget; documents are its resources.

    With --http it is started by hand, and reached from other machines with a --host and a token.
    Give the token in CMT_TOKEN: arguments are for all users of a machine to see.

    \b
    Example:
      cmt mcp -m work --read-only
      cmt mcp --http --port 8766
    """  # noqa: D301 - click reads the escape
    from cmt_adapters.mcp import http_app, mcp_server
    from cmt_adapters.origins import check_null

    if not http:
        _refuse_http_options(context)
        token = None
    check_null(origins, token)
    hosts = _hosts(host, names, token) if http else ()
    _log_to_stderr()
    with opened(folder) if read_only else begun(folder) as memory:
        server = mcp_server(memory, read_only=read_only, token=token)
        if http:
            _serve(http_app(server, hosts, origins), host, port)
        else:
            _wait_for_client()
            server.run()


def _refuse_http_options(context: click.Context) -> None:
    for name, option in FOR_HTTP.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} is for --http")


def _hosts(host: str, names: Sequence[str], token: str | None) -> list[str]:
    """The host names that clients may use. InvalidSetting where others than this machine could come
    without a token.
    """
    if _is_loopback(host):
        return [*LOOPBACK, host, *names]
    if token is None:
        raise InvalidSetting(
            f"--host {host!r} is reached from other machines: give a --token, or set CMT_TOKEN"
        )
    if host not in EVERYWHERE:
        return [*LOOPBACK, host, *names]
    if not names:
        raise InvalidSetting(
            f"--host {host!r} listens on every address: name those that clients use, with"
            " --allow-host"
        )
    return [*LOOPBACK, *names]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may stand for anything; but for one
        return host == "localhost"


def _log_to_stderr() -> None:
    """Warnings of the server on stderr, before it would choose its own way; those of the library
    are told already.
    """
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: not record.name.startswith("cmt_sdk"))
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )


def _wait_for_client() -> None:
    """Let Ctrl-C end the process at once: the thread that reads the input would hold it up until
    the next line.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if on_terminal(sys.stdin):
        say("waiting for an MCP client on standard input; Ctrl-C ends", err=True)


def _serve(app: Any, host: str, port: int) -> None:
    """Answer HTTP requests until Ctrl-C."""
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidSetting(
            f"cannot listen on {host!r}, port {port}: {error}; choose another --host or --port"
        ) from error
    with listening:
        address = f"[{host}]" if ":" in host else host
        say(
            f"serving MCP at http://{address}:{listening.getsockname()[1]}/mcp; Ctrl-C ends",
            err=True,
        )
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=LAST_WORDS
        )
        with contextlib.suppress(KeyboardInterrupt):  # which is how this ends
            uvicorn.Server(config).run(sockets=[listening])
    say("\nstopped; what was stored is safe", err=True)
