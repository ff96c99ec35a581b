"""The outermost middleware: gives every request an id, and counts, logs and traces it."""

from __future__ import annotations

import re
import time
import uuid
from contextlib import nullcontext

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cmt_adapters.server.logs import log_request
from cmt_adapters.server.monitor import Monitor
from cmt_adapters.server.tracing import Tracing

# A method can be any word of the client.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
REQUEST_ID = "X-Request-ID"
# what proxies make: a UUID, or hexadecimal digits. Anything else could be words.
ACCEPTED_ID = re.compile(r"[0-9A-Fa-f-]{8,64}")


class ObservingMiddleware:
    """Counts, logs and traces requests by the pattern of their route, without their contents.

    Args:
        app: The application.
        monitor: Counts the requests.
        tracing: Makes a span of each request; None makes none.
    """

    def __init__(self, app: ASGIApp, monitor: Monitor, tracing: Tracing | None = None) -> None:
        self._app = app
        self._monitor = monitor
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request_id = given if ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
        method = scope["method"] if scope["method"] in METHODS else "other"
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        start = time.perf_counter()
        self._monitor.running += 1
        traced = self._tracing.request(headers) if self._tracing else nullcontext()
        try:
            with traced as span:
                try:
                    await self._app(scope, receive, send_with_id)
                finally:
                    # the pattern, never the address: that may hold a question or a name
                    route = getattr(scope.get("route"), "path_format", "-")
                    if span is not None:
                        span.ended(method, route, status)
        finally:
            seconds = time.perf_counter() - start
            self._monitor.running -= 1
            self._monitor.request_ended(method, route, status, seconds)
            log_request(method, route, status, 1000 * seconds, request_id)
