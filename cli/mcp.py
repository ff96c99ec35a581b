"""`cmt mcp`: a memory as an MCP server, over stdio or HTTP.

Opens the port; the server itself is `cmt_adapters.mcp`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from cmt_cli.memory_folder import open_memory, open_or_create
from cmt_cli.options import Place, generator_options, memory_option
from cmt_cli.output import echo, on_terminal
from cmt_cli.server_options import host_option, origin_option, port_option, token_option
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
SHUTDOWN_SECONDS = 3  # for running requests when the server is stopped


@click.command()
@click.option(
    "--http", is_flag=True, help="Serve streamable HTTP instead of stdio, at http://HOST:PORT/mcp."
)
@host_option
@port_option(8766)
@token_option
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    help="Another host name by which clients reach the server (repeatable).",
)
@origin_option
@click.option("--read-only", is_flag=True, help="Omit the tools that change the memory.")
@generator_options
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
    folder: Place,
    generator: Mapping[str, Any],
) -> None:
    """Serve a memory to assistants that use MCP.

    The assistant starts the server: configure the command `cmt` with the argument `mcp`. The
    assistant can then search, ask, list, remember, update, undo and forget; documents are
    resources.

    With --http you start the server yourself; other machines can reach it with --host and a token.
    Pass the token in CMT_TOKEN: all users of a machine can see the arguments of its processes.

    \b
    Example:
      cmt mcp -m work --read-only
      cmt mcp --http --port 8766
    """  # noqa: D301 - click reads the escape
    from cmt_adapters.mcp import http_app, mcp_server
    from cmt_adapters.origins import check_null_origin

    if not http:
        _refuse_http_options(context)
        token = None
    check_null_origin(origins, token)
    hosts = _hosts(host, names, token) if http else ()
    _log_to_stderr()
    opener = open_memory if read_only else open_or_create
    with opener(folder, **generator) as memory:
        server = mcp_server(memory, read_only=read_only, token=token)
        if http:
            _serve(http_app(server, hosts, origins), host, port)
        else:
            _wait_for_client()
            server.run()


def _refuse_http_options(context: click.Context) -> None:
    for name, option in FOR_HTTP.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} applies only with --http: add it, or leave this out")


def _hosts(host: str, names: Sequence[str], token: str | None) -> list[str]:
    """Return the host names that clients may use.

    Raises:
        InvalidSetting: Other machines could connect without a token, or the address is a wildcard
            without --allow-host.
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
    except ValueError:  # a name may resolve to any address, except localhost
        return host == "localhost"


def _log_to_stderr() -> None:
    """Log the server's warnings to stderr before the server configures logging itself.

    Warnings of the library are shown by the CLI already.
    """
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: not record.name.startswith("cmt_sdk"))
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler]
    )


def _wait_for_client() -> None:
    """Let Ctrl-C end the process at once.

    The thread that reads standard input would delay the end until the next line.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if on_terminal(sys.stdin):
        echo("waiting for an MCP client on standard input; Ctrl-C ends", err=True)


def _serve(app: Any, host: str, port: int) -> None:
    """Serve HTTP requests until Ctrl-C."""
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
        echo(
            f"serving MCP at http://{address}:{listening.getsockname()[1]}/mcp; Ctrl-C ends",
            err=True,
        )
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=SHUTDOWN_SECONDS
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
    echo("\nstopped; what was stored is safe", err=True)
