"""An HTTP server over one memory: /v1 for OpenAI clients, /api for documents, a page, and probes.

    cmt serve -m notes
    serve(cmt_sdk.open("notes"), port=8765)
    uvicorn.run(app(cmt_sdk.open("notes")), host="127.0.0.1")

One process serves one memory with one model. Requests wait in a queue for the model, which answers
one after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import ipaddress
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import cmt_sdk
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.system.extras import unusable

try:
    import prometheus_client  # noqa: F401 - for the monitor
    import python_multipart  # noqa: F401 - FastAPI needs it to read uploaded files
    import uvicorn
    from fastapi import Depends, FastAPI, Request, Response
    from fastapi.responses import FileResponse
    from fastapi.security import HTTPBearer
    from starlette.middleware import Middleware
except ImportError as error:
    raise unusable("the HTTP server", "serve", error) from error

from cmt_adapters.origins import Origins, check_null_origin
from cmt_adapters.server import openai_api, probes, responses_api, rest_api
from cmt_adapters.server.http_responses import HANDLERS
from cmt_adapters.server.logs import LogFormat, logging_to_stderr
from cmt_adapters.server.middleware import AccessRules, AuthMiddleware, OriginMiddleware
from cmt_adapters.server.model_queue import ModelQueue
from cmt_adapters.server.monitor import Monitor
from cmt_adapters.server.observing import ObservingMiddleware
from cmt_adapters.server.probes import Readiness
from cmt_adapters.server.tracing import Tracing, tracing_from_environment
from cmt_adapters.server.users import HEADERS, UserRules

HOST = "127.0.0.1"
PORT = 8765
MAX_BODY = 32 * 2**20
MAX_QUEUE = 32
# For running requests to end after SIGTERM. Container runtimes kill a process after ten seconds.
DRAIN_SECONDS = 8.0
INTERRUPT_SECONDS = 0.7  # likewise after Ctrl-C, where somebody waits
CLOSE_SECONDS = 0.2  # then for connections to close
NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
API_DESCRIPTION = """A memory on this machine. `/api` stores, finds and erases documents;
`/v1` is for OpenAI clients; `/healthz` and `/readyz` are for load balancers.

Every error is `{"error": {"message", "type", "param", "code"}}`. 503 comes with `Retry-After`.
Requests wait in a queue for the one model, which answers one after another."""


def app(
    memory: cmt_sdk.Memory,
    *,
    token: str | None = None,
    origins: Collection[str] = (),
    hosts: Collection[str] = (),
    max_body: int = MAX_BODY,
    max_queue: int = MAX_QUEUE,
    remember: bool = True,
    require_user: bool = False,
    user_headers: Collection[str] = (),
    tracing: Tracing | None = None,
) -> FastAPI:
    """Create the ASGI application over a memory. The caller closes the memory.

    `serve` adds a log without user text and an orderly shutdown; with another server, provide both
    yourself.

    Args:
        memory: An open memory.
        token: Required for /v1, /api and /metrics. Set it if others than this machine's user can
            connect.
        origins: Allowed pages and apps, such as "https://notes.example" or "app://obsidian.md".
        hosts: Names of the server, next to "localhost" and its addresses.
        max_body: Maximum size of a request body in bytes.
        max_queue: How many requests may wait for the model.
        remember: Whether /v1 stores the facts that users state, unless a request says otherwise.
        require_user: Whether /v1 refuses requests that name no user.
        user_headers: Headers that name the user, checked before those of `users.HEADERS`.
        tracing: Makes spans of OpenTelemetry; None makes none.

    Raises:
        InvalidSetting: The token or an origin is not valid.
    """
    check_null_origin(origins, token)
    rules = AccessRules(_checked_token(token), Origins(origins), hosts, max_body)
    monitor = Monitor(memory)

    def on_answer(answer: cmt_sdk.Answer) -> None:
        monitor.answered(answer)
        if tracing is not None:
            tracing.answered(answer)

    queue = ModelQueue(memory, max_queue, remember=remember, on_answer=on_answer)
    monitor.watch(lambda: queue.waiting)
    readiness = Readiness(queue)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        readiness.close()
        monitor.close()
        await asyncio.to_thread(queue.close)

    observing = Middleware(ObservingMiddleware, monitor, tracing)
    checking = Middleware(OriginMiddleware, rules, lambda: queue.closing)
    application = _application(rules, [observing, checking], lifespan)
    application.state.queue = queue
    application.state.monitor = monitor
    application.state.readiness = readiness
    application.state.user_rules = UserRules(
        [*user_headers, *HEADERS], require_user, token is not None
    )
    _add_routes(application, needs_token=token is not None)
    return application


def _application(
    rules: AccessRules,
    outer: Sequence[Middleware],
    lifespan: Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]],
) -> FastAPI:
    return FastAPI(
        title="cmt-sdk",
        description=API_DESCRIPTION,
        version=cmt_sdk.__version__,
        docs_url=None,  # that page loads scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            *outer,
            *rules.origins.cors("Retry-After"),
            Middleware(AuthMiddleware, rules),
        ],
        exception_handlers=HANDLERS,
        telemetry=NO_TELEMETRY,
    )


def serve(
    memory: cmt_sdk.Memory,
    *,
    host: str = HOST,
    port: int = PORT,
    on_ready: Callable[[str], None] = lambda _: None,
    drain_seconds: float = DRAIN_SECONDS,
    log_format: LogFormat = "text",
    **options: Any,
) -> bool:
    """Load the model, then serve a memory until SIGINT or SIGTERM.

    After SIGTERM /readyz and new requests get 503, and running requests have `drain_seconds` to
    end; after SIGINT they have a second at most. With OTEL_EXPORTER_OTLP_ENDPOINT in the
    environment, spans are sent there.

    Args:
        memory: An open memory.
        host: The address to listen on.
        port: The port; 0 picks a free one.
        on_ready: Called with the URL when the server listens.
        drain_seconds: How long running requests have to end after SIGTERM.
        log_format: "text", or "json" for one JSON object per line.
        **options: As for `app`.

    Returns:
        True after the server has ended; a step of the model may still run in its thread.

    Raises:
        InvalidSetting: The port is in use, or other machines could connect without a token.
        MissingExtra: Spans are asked for, and the exporter is not installed.
        ModelError: The model cannot be loaded.
        ModelNotFound: The model is not on this machine.
    """
    with (
        contextlib.closing(_listening(host, port, options.get("token"))) as listener,
        logging_to_stderr(log_format),
        _tracing() as tracing,
    ):
        name = host or socket.gethostname()
        hosts = [name.lower(), socket.gethostname().lower()]
        application = app(memory, **{"hosts": hosts, "tracing": tracing, **options})
        memory.fingerprint  # noqa: B018 - it loads the model
        shown = f"[{name}]" if ":" in name else name
        on_ready(f"http://{shown}:{listener.getsockname()[1]}")
        with _stopping():
            Server(application, drain_seconds).run(sockets=[listener])
        return True


class Server(uvicorn.Server):
    """A uvicorn server that lets running requests end before it stops.

    Requests that take too long are interrupted; new requests get 503.

    Args:
        application: What `app` returns.
        drain_seconds: How long running requests have to end, except after SIGINT.
    """

    def __init__(self, application: FastAPI, drain_seconds: float = INTERRUPT_SECONDS) -> None:
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
        quiet["timeout_graceful_shutdown"] = CLOSE_SECONDS
        super().__init__(uvicorn.Config(application, lifespan="on", **quiet))
        # its lines contain full URLs, and so questions
        logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)
        self._queue: ModelQueue = application.state.queue
        self._monitor: Monitor = application.state.monitor
        self._drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On a signal, refuse new requests at once, and say so in /readyz."""
        self._queue.refuse()
        if sig == signal.SIGINT:
            self._drain_seconds = min(self._drain_seconds, INTERRUPT_SECONDS)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new requests, wait for running ones, interrupt the rest, and stop."""
        self._queue.refuse()
        start = time.monotonic()
        while self._is_at_work() and time.monotonic() - start < self._drain_seconds:
            await asyncio.sleep(0.05)
        self._queue.abort()
        await super().shutdown(sockets)

    def _is_at_work(self) -> bool:
        return (self._queue.running or self._monitor.running > 0) and not self.force_exit


def _listening(host: str, port: int, token: str | None) -> socket.socket:
    """Return a listening socket. Raises InvalidSetting."""
    if not 0 <= port <= 65535:
        raise InvalidSetting(f"port {port}: choose one from 0 to 65535 with --port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if (
            token is None
            and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        ):
            raise InvalidSetting(
                f"host {host!r}: other machines can connect there without a token; set CMT_TOKEN or"
                " give --token, for example the output of `openssl rand -hex 16`"
            )
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise InvalidSetting(
            f"host {host!r}, port {port}: {error}; choose others with --host and --port"
        ) from error
    return listener


def _checked_token(token: str | None) -> str | None:
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise InvalidSetting(
            "the token is empty, or has characters that a header cannot transmit: give letters and"
            " digits, without spaces"
        )
    return token


def _add_routes(application: FastAPI, *, needs_token: bool) -> None:
    """Add the routes of /v1 and /api, and the page."""
    dependencies = [Depends(HTTPBearer(auto_error=False))] if needs_token else []
    for router in (openai_api.router, responses_api.router, rest_api.router):
        application.include_router(router, dependencies=dependencies)
    application.include_router(probes.router)
    _add_page(application)
    _remove_422(application)


def _add_page(application: FastAPI) -> None:
    """Add a route for each file of the page, and / for the page itself."""
    folder = Path(str(importlib.resources.files("cmt_adapters.server") / "page"))
    for file in sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")):
        for path in (f"/{file.name}", *(["/"] if file.name == "index.html" else [])):
            application.add_route(path, _page_route(file), include_in_schema=False)


def _page_route(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def show(_: Request) -> Response:
        return FileResponse(file)

    return show


def _remove_422(application: FastAPI) -> None:
    """Remove FastAPI's 422 responses from OpenAPI: here, invalid requests get 400."""
    document = application.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422", "")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


@contextlib.contextmanager
def _tracing() -> Iterator[Tracing | None]:
    """The tracing that the environment asks for; the last spans are sent after the block."""
    tracing = tracing_from_environment()
    try:
        yield tracing
    finally:
        if tracing is not None:
            # what has no collector waits longer than a service manager
            closing = threading.Thread(target=tracing.close, daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """End the block on SIGINT and SIGTERM; uvicorn raises them again after it has stopped."""

    def stop(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
