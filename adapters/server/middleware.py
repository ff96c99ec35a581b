"""What every request passes before it is answered: host, origin, token, size; and the headers of
every answer. Knows no route.

A page of another site must not reach a server on this machine. Its requests tell their origin,
which must be the server's own or one that was named; and where a foreign name has been bound to
this machine's address, the host header tells that name.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cmt_adapters.origins import Origins, hostname
from cmt_adapters.server.http_responses import error_response, internal_error

log = logging.getLogger("cmt_adapters.server.serve")

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
PROTECTED_PATHS = ("/api/", "/v1/")


@dataclass(frozen=True)
class AccessRules:
    """Who may ask, and how much at once.

    `token`: demanded for /api and /v1; None: nobody's. `origins`: pages and apps that may ask,
    beside the server's own page. `hosts`: names of the server, beside "localhost" and every
    address. `max_body`: bytes.
    """

    token: str | None
    origins: Origins
    hosts: Collection[str]
    max_body: int


class OriginMiddleware:
    """The ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules
        self._hosts = {"localhost", *rules.hosts, *rules.origins.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, is_guarded=_is_protected(scope))
            await send(message)

        try:
            await (self._refused(scope) or self._app)(scope, receive, send_guarded)
        finally:
            # the route's pattern, never the address that was asked for: a question or a name may
            # stand in it
            where = getattr(scope.get("route"), "path_format", "-")
            log.info(
                "%s %s %d %.0f ms",
                scope["method"],
                where,
                status,
                1000 * (time.perf_counter() - began),
            )

    def _refused(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            # a proxy in front may go by the other one, and take the rest for a request of its own
            answer = error_response(
                400, "Content-Length and Transfer-Encoding in one request: send one of them"
            )
            answer.headers["Connection"] = "close"
            return answer
        name = hostname(headers.get("host", ""))
        if name not in self._hosts and not _is_address(name):
            message = (
                f"host {name!r:.80}: the server is not known by this name; start it with --origin"
                " http://NAME:PORT"
            )
            return error_response(421, message)
        if self._rules.origins.refuses(scope):
            origin = headers.get("origin")
            return error_response(
                403,
                f"origin {origin!r:.80}: pages of other origins may not ask; start the server with"
                " --origin URL",
            )
        return None


class AuthMiddleware:
    """The ASGI middleware around what needs a token and takes a body. What fails within is an
    answer like every other.
    """

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if _is_protected(scope) and not self._knows(headers.get("authorization", "")):
            message = "no token, or not the right one: send the header Authorization: Bearer TOKEN"
            await error_response(401, message, "invalid_api_key")(scope, receive, send)
            return
        read, started = 0, False

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._rules.max_body:
                raise HTTPException(
                    413,
                    f"the body has more than {self._rules.max_body:,} bytes, which is the limit",
                )
            return message

        async def send_some(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive_some, send_some)
        except Exception:
            if not started:
                await internal_error()(scope, receive, send)
            raise  # the server under this application logs it

    def _knows(self, authorization: str) -> bool:
        if self._rules.token is None:
            return True
        kind, _, given = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self._rules.token.encode()
        )


def _is_protected(scope: Scope) -> bool:
    """Whether the routes will see a path that wants a token: another app may have mounted this one
    beneath a path of its own.
    """
    path: str = scope["path"]
    rest = path.removeprefix(scope.get("root_path", ""))
    # as Starlette finds routes
    return (rest if rest[:1] in ("", "/") else path).startswith(PROTECTED_PATHS)


def _add_headers(message: Message, *, is_guarded: bool) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers[name] = value
    headers["Cache-Control"] = "no-store" if is_guarded else "no-cache"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
