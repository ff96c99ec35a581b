"""Spans of OpenTelemetry: one for each request, with the stages of its answer as children.

Spans have the pattern of the route, the method, the status and the stages' names: no contents, and
no message of an exception, which may hold some.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cmt_sdk
from cmt_sdk.system.extras import unusable

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

log = logging.getLogger("cmt_adapters.server.serve")

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SERVICE = "cmt-serve"  # unless OTEL_SERVICE_NAME has another
TRACE_HEADERS = ("traceparent", "tracestate")


@dataclass(frozen=True)
class RequestSpan:
    """The span of a request that is under way."""

    span: Span

    def ended(self, method: str, route: str, status: int) -> None:
        """Name the span by what is known only at the end.

        Args:
            method: The method.
            route: The pattern of the route.
            status: The status of the response; 0 if there was none.
        """
        from opentelemetry.trace import StatusCode

        self.span.update_name(f"{method} {route}")
        self.span.set_attribute("http.request.method", method)
        self.span.set_attribute("http.route", route)
        self.span.set_attribute("http.response.status_code", status)
        if status >= 500 or status == 0:
            self.span.set_status(StatusCode.ERROR)


class Tracing:
    """Makes spans with a provider of OpenTelemetry."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("cmt", cmt_sdk.__version__)

    @contextmanager
    def request(self, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        """Trace a request while the block runs, in the trace that its headers name."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        given = {name: headers[name] for name in TRACE_HEADERS if name in headers}
        with self._tracer.start_as_current_span(
            "request",
            TraceContextTextMapPropagator().extract(given),
            SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield RequestSpan(span)

    def answered(self, answer: cmt_sdk.Answer) -> None:
        """Add the stages of an answer that has just ended to the span of its request.

        Their lengths are measured; where each begins follows from their order.
        """
        start = time.time_ns() - int(1e6 * sum(answer.milliseconds.values()))
        for stage, milliseconds in answer.milliseconds.items():
            end = start + int(1e6 * milliseconds)
            self._tracer.start_span(stage, start_time=start).end(end)
            start = end

    def close(self) -> None:
        """Export what is left."""
        if (shutdown := getattr(self._provider, "shutdown", None)) is not None:
            shutdown()


def tracing_from_environment() -> Tracing | None:
    """Return the tracing that OTEL_EXPORTER_OTLP_ENDPOINT asks for; None where it is not set.

    Raises:
        MissingExtra: The variable is set, and the exporter is not installed.
    """
    if not os.environ.get(ENDPOINT):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise unusable(f"tracing, which {ENDPOINT} asks for,", "otel", error) from error
    name = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
