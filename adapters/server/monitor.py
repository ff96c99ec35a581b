"""What the server counts, for Prometheus: requests, answers, tokens, stages, the memory's size.

Labels are routes, methods, statuses and stages: no scope, no user and no text. Each application has
a registry of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

import cmt_sdk
from cmt_sdk.errors import CMTError

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STATS_SECONDS = 15.0  # how old the memory's numbers may be: to count them reads whole tables
STATS_WAIT_SECONDS = 1.0  # of a scrape for new numbers; then it reports the last ones
SIZES = {
    "documents": "Current documents.",
    "passages": "Passages of current documents.",
    "pending": "Passages that wait to be compressed.",
    "cold": "Passages whose compressed form was dropped for the memory budget.",
    "text_bytes": "UTF-8 bytes of all texts.",
    "memory_bytes": "Bytes of all compressed passages.",
    "file_bytes": "Bytes of all files, or of the tables of a database.",
}


class Monitor:
    """Counts what a server does. Its methods may be called from any thread.

    Args:
        memory: The memory whose size is reported.

    Attributes:
        running: How many requests are under way, streams included.
    """

    def __init__(self, memory: cmt_sdk.Memory) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "cmt", "registry": self.registry}
        self.running = 0
        self._requests = Counter(
            "requests", "Requests that have ended.", ["method", "route", "status"], **own
        )
        self._request_seconds = Histogram(
            "request_seconds", "From a request to its last byte.", ["route"], buckets=SECONDS, **own
        )
        self._answers = Counter(
            "answers", "Answers and replies of the model but abstentions.", **own
        )
        self._abstentions = Counter(
            "abstentions", "Questions that the memory does not answer.", **own
        )
        self._tokens = Counter(
            "tokens", "Tokens of answers, by kind: generated, prompt, memory.", ["kind"], **own
        )
        self._stages = Histogram(
            "stage_seconds", "Seconds of an answer, by stage.", ["stage"], buckets=SECONDS, **own
        )
        self._waiting = Gauge("requests_waiting", "Requests that wait for the model.", **own)
        Gauge("requests_running", "Requests under way.", **own).set_function(lambda: self.running)
        ProcessCollector(registry=self.registry)
        self._sizes = _Sizes(memory)
        self.registry.register(self._sizes)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Report a queue: `waiting` returns how many requests wait."""
        self._waiting.set_function(waiting)

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: Its method, one of a few.
            route: The pattern of its route, never its address; "-" if it has none.
            status: The status of the response; 0 if there was none.
            seconds: Until its last byte.
        """
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def answered(self, answer: cmt_sdk.Answer) -> None:
        """Count an answer, unless no model wrote it: the reply to a statement is fixed."""
        if not answer.milliseconds:
            return
        (self._abstentions if answer.abstained else self._answers).inc()
        self._tokens.labels("generated").inc(answer.answer_tokens)
        self._tokens.labels("prompt").inc(answer.prompt_tokens)
        self._tokens.labels("memory").inc(answer.memory_tokens)
        for stage, milliseconds in answer.milliseconds.items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def close(self) -> None:
        """Release the thread that reads the memory's size."""
        self._sizes.close()


class _Sizes(Collector):
    """The memory's size; nothing while its database cannot be reached."""

    def __init__(self, memory: cmt_sdk.Memory) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "cmt-sizes")
        self._reading: Future[None] | None = None
        self._stats: cmt_sdk.Stats | None = None
        self._read_at = -STATS_SECONDS

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        stats = self._latest()
        for name, meaning in SIZES.items() if stats else ():
            yield GaugeMetricFamily(f"cmt_{name}", meaning, value=getattr(stats, name))

    def close(self) -> None:
        """Release the thread; a reading under way is abandoned."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _latest(self) -> cmt_sdk.Stats | None:
        with self._lock:
            is_old = time.monotonic() - self._read_at >= STATS_SECONDS
            if is_old and (self._reading is None or self._reading.done()):
                self._reading = self._thread.submit(self._read)
            reading = self._reading
        if reading is not None:
            with suppress(Late):
                reading.result(STATS_WAIT_SECONDS)
        return self._stats

    def _read(self) -> None:
        try:
            self._stats = self._memory.stats()
        except CMTError:
            self._stats = None
        self._read_at = time.monotonic()
