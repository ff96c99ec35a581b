"""Middleware: checks host, origin, token and size of every request; sets headers of every response;
refuses requests while the server stops.

A page of another site must not reach a server on this machine. Browsers send the origin of the
page, which must be the server's own or an allowed one. If an attacker binds a foreign name to this
machine's address (DNS rebinding), the host header holds that name, which is not an allowed one.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cmt_adapters.origins import Origins, hostname
from cmt_adapters.server.http_responses import error_response, internal_error
from cmt_adapters.server.model_queue import SHUTTING_DOWN

POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors"
    " 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
WORK_PATHS = ("/api/", "/v1/")
PROTECTED_PATHS = (*WORK_PATHS, "/metrics")


@dataclass(frozen=True)
class AccessRules:
    """The rules for requests.

    Attributes:
        token: Required for /api, /v1 and /metrics; None requires no token.
        origins: Allowed pages and apps, next to the server's own page.
        hosts: Names of the server, next to "localhost" and every IP address.
        max_body: Maximum size of a request body in bytes.
    """

    token: str | None
    origins: Origins
    hosts: Collection[str]
    max_body: int


class OriginMiddleware:
    """Outer ASGI middleware: checks host and origin, and sets headers.

    Args:
        app: The application.
        rules: The rules for requests.
        is_stopping: Whether the server ends: new requests to /api and /v1 get 503, so
            that a client or a proxy asks another server.
    """

    def __init__(
        self, app: ASGIApp, rules: AccessRules, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._app = app
        self._rules = rules
        self._is_stopping = is_stopping
        self._hosts = {"localhost", *rules.hosts, *rules.origins.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message, is_protected=_is_in(scope, PROTECTED_PATHS))
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            # request smuggling: a proxy in front may use the other header to find the body's end
            answer = error_response(
                400, "Content-Length and Transfer-Encoding in one request: send one of them"
            )
            answer.headers["Connection"] = "close"
            return answer
        name = hostname(headers.get("host", ""))
        if name not in self._hosts and not _is_address(name):
            return error_response(
                421,
                f"host {name!r:.80}: the server is not known by this name; start it with --origin"
                " http://NAME:PORT",
            )
        if self._rules.origins.refuses(scope):
            origin = headers.get("origin")
            return error_response(
                403,
                f"origin {origin!r:.80}: pages of other origins may not ask; start the server with"
                " --origin URL",
            )
        if self._is_stopping() and _is_in(scope, WORK_PATHS):
            return error_response(503, SHUTTING_DOWN, "Busy")
        return None


class AuthMiddleware:
    """Inner ASGI middleware: checks the token, limits the body, and turns bugs into responses."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if _is_in(scope, PROTECTED_PATHS) and not self._accepts(headers.get("authorization", "")):
            message = "no token, or not the right one: send the header Authorization: Bearer TOKEN"
            await error_response(401, message, "invalid_api_key")(scope, receive, send)
            return
        read = 0
        started = False

        async def receive_limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._rules.max_body:
                raise HTTPException(
                    413,
                    f"the body has more than {self._rules.max_body:,} bytes, which is the limit",
                )
            return message

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive_limited, send_noted)
        except Exception:
            if not started:
                await internal_error()(scope, receive, send)
            raise  # uvicorn logs it

    def _accepts(self, authorization: str) -> bool:
        if self._rules.token is None:
            return True
        kind, _, given = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self._rules.token.encode()
        )


def _is_in(scope: Scope, paths: tuple[str, ...]) -> bool:
    """Return whether the path begins with one of these, also if another app has mounted this."""
    path: str = scope["path"]
    rest = path.removeprefix(scope.get("root_path", ""))
    # the same rule by which Starlette finds routes
    return (rest if rest[:1] in ("", "/") else path).startswith(paths)


def _add_headers(message: Message, *, is_protected: bool) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers[name] = value
    headers["Cache-Control"] = "no-store" if is_protected else "no-cache"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
