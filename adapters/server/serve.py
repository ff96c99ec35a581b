"""An HTTP server over one memory: OpenAI-shaped /v1, /api for memories, and a page. Knows what it
is made of, and its safety.

    cmt serve -m notes
    serve(cmt_sdk.open("notes"), port=8765)
    uvicorn.run(app(cmt_sdk.open("notes")), host="127.0.0.1")

One process, one memory, one model. Requests wait in line for the model, and generation is one after
another.
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
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cmt_sdk
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.extras import unusable

try:
    import python_multipart  # noqa: F401 - what FastAPI reads uploaded files with
    import uvicorn
    from fastapi import Depends, FastAPI, Request, Response
    from fastapi.responses import FileResponse
    from fastapi.security import HTTPBearer
    from starlette.middleware import Middleware
except ImportError as error:
    raise unusable("the HTTP server", "serve", error) from error

from cmt_adapters.origins import Origins, check_null_origin
from cmt_adapters.server import openai_api, responses_api, rest_api
from cmt_adapters.server.http_responses import HANDLERS
from cmt_adapters.server.middleware import AccessRules, AuthMiddleware, OriginMiddleware
from cmt_adapters.server.model_queue import ModelQueue
from cmt_adapters.server.users import HEADERS, UserRules

HOST, PORT = "127.0.0.1", 8765
MAX_BODY = 32 * 2**20
MAX_QUEUE = 32
# Seconds that answers under way have to end in, once the server is told to stop, and connections
# after that: whoever runs services kills what is still there after two or ten.
GRACE_SECONDS, CLOSE_SECONDS = 0.7, 0.2
NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
API_DESCRIPTION = """A memory on this machine. At `/api` documents are remembered, found and
erased; `/v1` is for OpenAI's clients.

Every failure is `{"error": {"message", "type", "param", "code"}}`. With 503 comes `Retry-After`.
Requests wait in line for the one model, and answers are generated one after another."""


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
) -> FastAPI:
    """The ASGI application over a memory, which stays the caller's to close.

    `token` is demanded for /v1 and /api; it must be given where others than this machine's user can
    connect. Pages and apps of `origins`, such as "https://notes.example" or "app://obsidian.md",
    may ask too. `hosts` are names of the server beside "localhost" and its addresses. A body has at
    most `max_body` bytes; at most `max_queue` requests wait for the model. `remember`: whether what
    users tell /v1 is added, where a request does not say. `require_user`: whether /v1 refuses
    requests that do not say who asks; `user_headers`: headers that say it, before those of
    `asking.HEADERS`. Raises InvalidSetting.

    `serve` brings a log without anybody's words, and an end in order; under another server, see to
    both yourself.
    """
    check_null_origin(origins, token)
    rules = AccessRules(_checked_token(token), Origins(origins), hosts, max_body)
    work = ModelQueue(memory, max_queue, remember=remember)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(work.close)

    made = FastAPI(
        title="cmt-sdk",
        description=API_DESCRIPTION,
        version=cmt_sdk.__version__,
        docs_url=None,  # its page loads from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(OriginMiddleware, rules),
            *rules.origins.cors("Retry-After"),
            Middleware(AuthMiddleware, rules),
        ],
        exception_handlers=HANDLERS,
        telemetry=NO_TELEMETRY,
    )
    made.state.work = work
    made.state.asking = UserRules([*user_headers, *HEADERS], require_user, token is not None)
    for router in (openai_api.router, responses_api.router, rest_api.router):
        made.include_router(
            router, dependencies=[Depends(HTTPBearer(auto_error=False))] if token else []
        )
    _add_page(made)
    _describe(made)
    return made


def serve(
    memory: cmt_sdk.Memory,
    *,
    host: str = HOST,
    port: int = PORT,
    on_ready: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> bool:
    """Serve a memory until SIGINT or SIGTERM; `options` are those of `app`. The model is loaded
    first.

    Answers under way then have a second to end in; requests that still come get 503. `on_ready` is
    called with the address. Returns True when it has ended; a step of the model may still be under
    way in its thread. Raises InvalidSetting: a host beyond this machine without a token, a port
    that is taken; ModelError, ModelNotFound.
    """
    with contextlib.closing(_listening(host, port, options.get("token"))) as listener:
        name = host or socket.gethostname()
        made = app(memory, **{"hosts": [name.lower(), socket.gethostname().lower()], **options})
        memory.fingerprint  # noqa: B018 - it loads the model
        shown = f"[{name}]" if ":" in name else name
        on_ready(f"http://{shown}:{listener.getsockname()[1]}")
        with _logging(), _stopping():
            Server(made).run(sockets=[listener])
        return True


class Server(uvicorn.Server):
    """Uvicorn's, but answers under way may end before it stops, else they break off; requests that
    come meanwhile get 503.
    """

    def __init__(self, made: FastAPI) -> None:
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
        quiet["timeout_graceful_shutdown"] = CLOSE_SECONDS
        super().__init__(uvicorn.Config(made, lifespan="on", **quiet))
        # its lines hold whole addresses, questions too
        logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)
        self._work: ModelQueue = made.state.work

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse, wait, break off, and go."""
        self._work.refuse()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                while self._work.running and not self.force_exit:
                    await asyncio.sleep(0.05)
        self._work.abort()
        await super().shutdown(sockets)


class RedactingFormatter(logging.Formatter):
    """Failures by their kinds and places: what they say may hold somebody's words."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """The traceback without the message."""
        kind, _, where = ei
        return f"{''.join(traceback.format_tb(where))}{kind.__name__}"


def _listening(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens. Raises InvalidSetting."""
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
                f"host {host!r}: others can connect there, and nobody would need a token; set"
                " CMT_TOKEN or give --token, for example the output of `openssl rand -hex 16`"
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
            "the token is empty, or holds what no header can: give letters and digits, without"
            " spaces"
        )
    return token


def _add_page(made: FastAPI) -> None:
    """The page and its files, each at its name, the page itself at / too."""
    folder = Path(str(importlib.resources.files("cmt_adapters.server") / "page"))
    for file in sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")):
        for path in (f"/{file.name}", *(["/"] if file.name == "index.html" else [])):
            made.add_route(path, _page_route(file), include_in_schema=False)


def _page_route(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def show(_: Request) -> Response:
        return FileResponse(file)

    return show


def _describe(made: FastAPI) -> None:
    """OpenAPI without the failures that FastAPI adds to every route: here those of the wrong shape
    are 400.
    """
    whole = made.openapi()
    for path in whole["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422", "")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        whole["components"]["schemas"].pop(name, None)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Within the block, a line a request, and the server's troubles, on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(message)s"))
    levels = {"uvicorn.error": logging.WARNING, __name__: logging.INFO}
    for name, level in levels.items():
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name in levels:
            logging.getLogger(name).removeHandler(handler)


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Within the block, SIGINT and SIGTERM end it, after the server has; uvicorn raises them again
    once it is done.
    """

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
