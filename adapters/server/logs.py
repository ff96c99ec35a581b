"""The server's log: a line for each request and for errors, as text or JSON, without contents.

A line has the pattern of the route, never the address: that may hold a question or a name.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args

from cmt_sdk.errors import InvalidSetting

LogFormat: TypeAlias = Literal["text", "json"]
SERVER = "cmt_adapters.server.serve"
log = logging.getLogger(SERVER)
# asked every few seconds: a line only where they fail
PROBES = ("/healthz", "/readyz", "/metrics")


def log_request(method: str, route: str, status: int, milliseconds: float, request_id: str) -> None:
    """Log a request that has ended."""
    fields = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "status": status,
        "milliseconds": round(milliseconds, 1),
    }
    log.log(
        logging.DEBUG if route in PROBES and status == 200 else logging.INFO,
        "%s %s %d %.0f ms",
        method,
        route,
        status,
        milliseconds,
        extra={"request_fields": fields},
    )


class RedactingFormatter(logging.Formatter):
    """Logs an exception by type and traceback, without its message: that may contain user text."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the traceback without the message."""
        kind, _, where = ei
        return f"{''.join(traceback.format_tb(where))}{kind.__name__}"


class JsonFormatter(RedactingFormatter):
    """One JSON object per line: of a request its fields, of other records the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        line |= getattr(record, "request_fields", None) or {"message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def formatter(log_format: LogFormat) -> logging.Formatter:
    """Return the formatter of a format. Raises InvalidSetting."""
    if log_format not in get_args(LogFormat):
        raise InvalidSetting(f"log_format={log_format!r}: choose one of {get_args(LogFormat)}")
    return JsonFormatter() if log_format == "json" else RedactingFormatter("%(message)s")


@contextmanager
def logging_to_stderr(log_format: LogFormat) -> Iterator[None]:
    """Log requests, and errors of the server and the library, to stderr while the block runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format))
    levels = {"uvicorn.error": logging.WARNING, SERVER: logging.INFO, "cmt_sdk": logging.WARNING}
    for name, level in levels.items():
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name in levels:
            logging.getLogger(name).removeHandler(handler)
