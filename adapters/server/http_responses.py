"""Responses that all routes share: errors and streams of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from cmt_adapters.server.model_queue import Busy, cancel_on_disconnect
from cmt_adapters.server.schemas import SCOPE, TEXT, Failure, Fault
from cmt_adapters.validation_messages import error_message, field_path
from cmt_sdk import errors

_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
EVENT_STREAM = {"content": {"text/event-stream": {"schema": _EVENT}}}  # for routes that can stream
RETRY_AFTER = 5  # seconds, the time of one or two answers
KEEPALIVE_SECONDS = 5.0  # without an event, until a comment is sent
KEEPALIVE = ": the answer is under way\n\n"
# Error families with their status; the first match counts.
STATUSES: Sequence[tuple[type[Exception], int]] = (
    (errors.InvalidDocument, 422),
    (errors.InvalidInput, 400),
    (errors.ModelNotFound, 503),
    (errors.NotFound, 404),
    (errors.AlreadyExists, 409),
    (errors.ModelMismatch, 409),
    (errors.MissingExtra, 501),
    (errors.CMTError, 503),
    (Busy, 503),
)
UNKNOWN_ADDRESS = (
    "there is no such address: /v1 has models, chat/completions, responses (which are not kept) and"
    " embeddings; in place of completions, send messages to chat/completions"
)
PATTERNS = {
    TEXT: "it holds only white space, or NUL characters: give text",
    SCOPE: "give names with a slash between them, such as user/ann",
}


def failure_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route for OpenAPI, including those of every route."""
    words = {
        400: "The request is not valid",
        401: "The token is missing or wrong",
        403: "The request comes from a page of another origin",
        404: "Not found",
        409: "Conflict with an existing document, model or setting",
        413: "The body is over the limit",
        421: "The server is not known by this host name",
        422: "The document cannot be stored",
        501: "An optional dependency is not installed",
        503: (
            "Too many requests wait, the disk or the model fails, or the server is shutting down"
        ),
    }
    return {
        n: {"model": Failure, "description": words[n]}
        for n in sorted({400, 401, 403, 413, 421, 503, *statuses})
    }


def make_failure(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> Failure:
    """Return an error as a value."""
    kind = (
        "server_error"
        if status >= 500
        else "authentication_error"
        if status == 401
        else "invalid_request_error"
    )
    return Failure(error=Fault(message=message, type=kind, param=param, code=code))


def error_response(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> JSONResponse:
    """Return an error as a response."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_AFTER)}}.get(
        status
    )
    return JSONResponse(make_failure(status, message, code, param).model_dump(), status, headers)


def _status(error: Exception) -> int:
    return next(status for family, status in STATUSES if isinstance(error, family))


def library_error(_: Request, error: Exception) -> Response:
    """Return an error of the library as a response."""
    return error_response(_status(error), str(error), type(error).__name__)


def validation_error(_: Request, error: Exception) -> Response:
    """Return a response for a request that does not match the schema.

    The message does not repeat values, which may be private documents.
    """
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for nothing else
    first = error.errors()[0]
    place = field_path(first, 1)
    message = PATTERNS.get(first.get("ctx", {}).get("pattern")) or error_message(first, 1)
    # curl sends another content type by default
    if not place and first["type"] == "model_attributes_type":
        message = "give a JSON object, and the header Content-Type: application/json"
    return error_response(
        400, f"{place or first['loc'][0]}: {message}", "InvalidRequest", place or None
    )


def http_error(request: Request, error: Exception) -> Response:
    """Return a response for an error of the framework, such as an unknown route or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for nothing else
    is_unknown = error.status_code == 404 and "/v1/" in request.url.path
    answer = error_response(error.status_code, UNKNOWN_ADDRESS if is_unknown else error.detail)
    answer.headers.update(error.headers or {})
    # Starlette's header has the methods of one route, but several routes share an address
    if "Allow" in answer.headers:
        routes = request.app.openapi()["paths"].get(
            getattr(request.scope.get("route"), "path_format", ""), {}
        )
        answer.headers["Allow"] = (
            ", ".join(sorted(name.upper() for name in routes)) or answer.headers["Allow"]
        )
    return answer


def internal_error() -> JSONResponse:
    """Return a response for a bug. It hides the message, which may contain user text."""
    return error_response(500, "internal error; see the server's log", "InternalError")


def client_gone(_: Request, __: Exception) -> Response:
    """Return a response for a disconnected client; it is never sent."""
    return Response(status_code=499)


def format_event(data: BaseModel, name: str | None = None) -> str:
    """Return a server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data.model_dump_json(exclude_unset=True)}\n\n"


class EventStream(Response):
    """A stream of server-sent events.

    An error before the first event becomes an ordinary error response; a later one becomes an
    event. If the next event takes long, a comment is sent, so that proxies and clients keep the
    connection. If the client disconnects, the generator is closed.

    Args:
        events: The events.
        error_name: The name of an event that reports an error.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str], error_name: str | None = None) -> None:
        super().__init__()
        self._events = events
        self._error_name = error_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. See the ASGI specification."""
        async with aclosing(self._events), aclosing(_with_keepalive(self._events)) as events:
            first = await cancel_on_disconnect(receive, anext(events))
            headers = {"X-Accel-Buffering": "no"}  # proxies must not collect the events
            streaming = StreamingResponse(
                self._all(first, events), media_type=self.media_type, headers=headers
            )
            await streaming(scope, receive, send)

    async def _all(self, first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
        yield first
        try:
            async for later in events:
                yield later
        except (errors.CMTError, Busy) as error:
            yield format_event(
                make_failure(_status(error), str(error), type(error).__name__), self._error_name
            )


async def _with_keepalive(events: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """Yield the events, and a comment whenever the next event takes long."""
    while True:
        step = asyncio.ensure_future(anext(events))
        try:
            while not (await asyncio.wait({step}, timeout=KEEPALIVE_SECONDS))[0]:
                yield KEEPALIVE
            yield step.result()
        except StopAsyncIteration:
            return
        finally:
            step.cancel()
            await asyncio.wait({step})
            if not step.cancelled():
                step.exception()  # marks it as retrieved, even if the client has disconnected


HANDLERS: dict[int | type[Exception], Any] = {
    errors.CMTError: library_error,
    Busy: library_error,
    RequestValidationError: validation_error,
    HTTPException: http_error,
    ClientDisconnect: client_gone,
}
