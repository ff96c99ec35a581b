"""One background thread that runs a job whenever it is nudged. Knows nothing of what the job does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Worker:
    """Runs `job(stopping)` in a daemon thread after each `nudge`; `job` returns early once `stopping()` is true."""

    def __init__(self, job: Callable[[Callable[[], bool]], object], name: str) -> None:
        self._job = job
        self._name = name
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._stop = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def nudge(self) -> None:
        """Ask for a run; a run under way is followed by another."""
        with self._start:
            if self._stop.is_set():
                return
            self._idle.clear()
            self._wake.set()
            if self._thread is None or not self._thread.is_alive():  # there are no threads after a fork
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to run; False when `timeout` seconds passed first. Raises what the job raised."""
        finished = self._idle.wait(timeout)
        error, self._error = self._error, None
        if error is not None:
            raise error
        return finished

    def at_work(self) -> bool:
        """Whether something is left to run."""
        return not self._idle.is_set()

    def leave(self) -> None:
        """End it in a child of the process that runs it: the thread is not there."""
        self._start, self._thread = threading.Lock(), None
        self._stop.set()
        self._idle.set()

    def close(self) -> None:
        """Stop after the batch under way."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            if self._stop.is_set():
                self._idle.set()
                return
            self._wake.clear()
            try:
                self._job(self._stop.is_set)
            except BaseException as error:  # noqa: BLE001 - whatever it is, `wait` raises it, and the thread lives on
                log.warning("%s stopped: %s", self._name, error)
                self._error = error
            with self._start:
                if not self._wake.is_set():
                    self._idle.set()
