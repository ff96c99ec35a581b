"""/healthz, /readyz and /metrics: what load balancers, orchestrators and Prometheus ask."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from cmt_adapters.server.http_responses import error_response, failure_responses
from cmt_adapters.server.model_queue import SHUTTING_DOWN, ModelQueue
from cmt_adapters.server.monitor import CONTENT_TYPE, Monitor
from cmt_adapters.server.schemas import Health
from cmt_sdk.errors import DocumentNotFound

log = logging.getLogger("cmt_adapters.server.serve")

router = APIRouter(tags=["operations"])

READY_SECONDS = 2.0  # for a check; load balancers wait for a few
NO_DOCUMENT = "-"  # an id that the store looks for
STORE = "the memory's files or database cannot be reached"
MODEL = "the model is not loaded"


class Readiness:
    """Whether this server can answer: the store is reached and the model is loaded.

    The first check loads the model. One check runs at a time, in a thread of its own: the threads
    of the requests may all wait for a database that is away.
    """

    def __init__(self, queue: ModelQueue) -> None:
        self._queue = queue
        self._thread = ThreadPoolExecutor(1, "cmt-ready")
        self._check: asyncio.Future[str | None] | None = None
        self._step = STORE
        self._is_loaded = False

    async def problem(self) -> str | None:
        """Return why this server cannot answer, in words without contents; None if it can."""
        if self._queue.closing:
            return SHUTTING_DOWN
        if self._check is None or self._check.done():
            self._check = asyncio.get_running_loop().run_in_executor(self._thread, self._find)
        done, _ = await asyncio.wait({self._check}, timeout=READY_SECONDS)
        return self._check.result() if done else f"{self._step}: it takes over {READY_SECONDS:g} s"

    def close(self) -> None:
        """Release the thread; a check under way is abandoned."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _find(self) -> str | None:
        memory = self._queue.memory
        try:
            self._step = STORE
            with suppress(DocumentNotFound):
                memory.get(NO_DOCUMENT)
            self._step = MODEL
            if not self._is_loaded:
                memory.fingerprint  # noqa: B018 - it loads the model
                self._is_loaded = True
        except Exception as error:  # noqa: BLE001 - a probe gets an answer, whatever fails
            # the kind alone: messages name addresses, and this needs no token
            return f"{self._step}: {type(error).__name__}"
        return None


@router.get("/healthz", responses=failure_responses())
async def health() -> Health:
    """Report that the process lives. It looks at nothing else."""
    return Health(ok=True)


@router.get("/readyz", response_model=Health, responses=failure_responses())
async def ready(request: Request) -> Health | JSONResponse:
    """Report whether this server can answer: 503 without the store or the model, and after SIGTERM.

    The first call loads the model if it is not loaded.
    """
    readiness: Readiness = request.app.state.readiness
    problem = await readiness.problem()
    if problem is None:
        return Health(ok=True)
    if problem != SHUTTING_DOWN:
        log.warning("not ready: %s", problem)
    return error_response(503, problem, "NotReady")


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format. Needs the token, as /api does."""
    monitor: Monitor = request.app.state.monitor
    return Response(await run_in_threadpool(monitor.exposition), media_type=CONTENT_TYPE)
