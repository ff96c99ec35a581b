"""What both halves of the HTTP API answer with: errors, sources, streams of events. Knows no
route.
"""

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
EVENT_STREAM = {"content": {"text/event-stream": {"schema": _EVENT}}}  # of a route that can stream
RETRY_AFTER = 5  # seconds: an answer or two
KEEPALIVE_SECONDS = 5.0  # seconds without an event before a comment is sent
KEEPALIVE = ": the answer is under way\n\n"
# The first family that fits decides.
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
    TEXT: "there is nothing in it but white space, or NUL characters: give text",
    SCOPE: "give names with a slash between them, such as user/ann",
}


def failure_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Failures for a route's page in OpenAPI, those that every route has among them."""
    words = {
        400: "The request is not as it should be",
        401: "No token, or not the right one",
        403: "A page of another origin asks",
        404: "There is no such thing",
        409: "Something that is there stands in the way",
        413: "The body is over the limit",
        421: "The server is not known by this host name",
        422: "A document that cannot be remembered",
        501: "An optional dependency is not installed",
        503: (
            "Too many requests wait, the disk or the model refuses, or the server is shutting down"
        ),
    }
    return {
        n: {"model": Failure, "description": words[n]}
        for n in sorted({400, 401, 403, 413, 421, 503, *statuses})
    }


def make_failure(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> Failure:
    """A failure as a value."""
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
    """A failure as an answer."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_AFTER)}}.get(
        status
    )
    return JSONResponse(make_failure(status, message, code, param).model_dump(), status, headers)


def _status(error: Exception) -> int:
    return next(status for family, status in STATUSES if isinstance(error, family))


def library_error(_: Request, error: Exception) -> Response:
    """The library's errors as answers."""
    return error_response(_status(error), str(error), type(error).__name__)


def validation_error(_: Request, error: Exception) -> Response:
    """A request of the wrong shape; its values, which may be anybody's documents, are not
    repeated.
    """
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for nothing else
    first = error.errors()[0]
    place = field_path(first, 1)
    message = PATTERNS.get(first.get("ctx", {}).get("pattern")) or error_message(first, 1)
    # what curl sends when it is told nothing else
    if not place and first["type"] == "model_attributes_type":
        message = "give a JSON object, and the header Content-Type: application/json"
    return error_response(
        400, f"{place or first['loc'][0]}: {message}", "InvalidRequest", place or None
    )


def http_error(request: Request, error: Exception) -> Response:
    """Failures of the framework: no such route, no such method, no body that can be read."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for nothing else
    is_unknown = error.status_code == 404 and "/v1/" in request.url.path
    answer = error_response(error.status_code, UNKNOWN_ADDRESS if is_unknown else error.detail)
    answer.headers.update(error.headers or {})
    # there, Starlette has those of one route, where several have the same address
    if "Allow" in answer.headers:
        routes = request.app.openapi()["paths"].get(
            getattr(request.scope.get("route"), "path_format", ""), {}
        )
        answer.headers["Allow"] = (
            ", ".join(sorted(name.upper() for name in routes)) or answer.headers["Allow"]
        )
    return answer


def internal_error() -> JSONResponse:
    """A bug of ours; what it says is for nobody, since it may hold anybody's words."""
    return error_response(500, "the server has failed; its log tells where", "InternalError")


def client_gone(_: Request, __: Exception) -> Response:
    """For a client that has hung up: it is not sent."""
    return Response(status_code=499)


def format_event(data: BaseModel, name: str | None = None) -> str:
    """A server-sent event."""
    return (
        f"event: {name}\n" if name else ""
    ) + f"data: {data.model_dump_json(exclude_unset=True)}\n\n"


class EventStream(Response):
    """A stream of events. What goes wrong before the first is an ordinary failure; after it,
    `trouble` makes an event of it.

    While the next event takes long, in the line or before the first word, a comment goes out, so
    that no proxy or client takes the connection for dead. When the client hangs up, whatever it
    waits for, the generator is closed.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str], trouble: str | None = None) -> None:
        super().__init__()
        self._events = events
        self._trouble = trouble

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        async with aclosing(self._events), aclosing(_with_keepalive(self._events)) as events:
            first = await cancel_on_disconnect(receive, anext(events))
            # proxies shall not gather what comes piece by piece
            unheld = {"X-Accel-Buffering": "no"}
            streaming = StreamingResponse(
                self._whole(first, events), media_type=self.media_type, headers=unheld
            )
            await streaming(scope, receive, send)

    async def _whole(self, first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
        yield first
        try:
            async for later in events:
                yield later
        except (errors.CMTError, Busy) as error:
            yield format_event(
                make_failure(_status(error), str(error), type(error).__name__), self._trouble
            )


async def _with_keepalive(events: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """The events, and a comment whenever the next one takes long."""
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
                step.exception()  # seen, even where the client has hung up by now


HANDLERS: dict[int | type[Exception], Any] = {
    errors.CMTError: library_error,
    Busy: library_error,
    RequestValidationError: validation_error,
    HTTPException: http_error,
    ClientDisconnect: client_gone,
}
