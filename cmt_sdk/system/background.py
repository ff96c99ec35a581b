"""One background thread that runs a job when it is woken, and a lock that lets other work go first.
Knows no job.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

log = logging.getLogger(__name__)

Job: TypeAlias = Callable[[Callable[[], bool]], object]

# seconds without a question after which background work continues: an answer pauses between pieces
QUIET = 0.1
PATIENCE = 10.0  # seconds that background work gives way at most
TICK = 0.01  # seconds between two looks


class PriorityLock:
    """A reentrant lock with two priorities: a thread that takes it `after_others` gives way to one
    that takes it directly.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counting = threading.Lock()
        self._asking = 0
        self._asked = -math.inf
        self._asker = threading.current_thread()  # the object: thread ids are reused
        self._later = threading.local()

    def __enter__(self) -> None:
        if not self._is_later:
            with self._counting:
                self._asking += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if not self._is_later:
            with self._counting:
                self._asking -= 1
                self._asked = time.monotonic()
                self._asker = threading.current_thread()

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock without making others give way; return False where another thread has it
        and `blocking` is False.
        """
        return self._lock.acquire(blocking)

    def release(self) -> None:
        """Release the lock that `acquire` took."""
        self._lock.release()

    @contextmanager
    def after_others(
        self, stop: Callable[[], bool] | None = None, quiet: float = QUIET
    ) -> Iterator[None]:
        """Take the lock once no other thread has asked for it for `quiet` seconds; at once where
        `stop` returns True.
        """
        self.give_way(PATIENCE, stop, quiet)
        self._later.on = True
        try:
            with self:
                yield
        finally:
            self._later.on = False

    def give_way(
        self, longest: float, stop: Callable[[], bool] | None = None, quiet: float = QUIET
    ) -> None:
        """Wait while other threads ask for the lock, or asked in the last `quiet` seconds, at most
        `longest` seconds.
        """
        end = time.monotonic() + longest
        while self._is_asked(quiet) and time.monotonic() < end and not (stop and stop()):
            time.sleep(TICK)

    @property
    def _is_later(self) -> bool:
        return getattr(self._later, "on", False)

    def _is_asked(self, quiet: float) -> bool:
        return self._asking > 0 or (
            self._asker is not threading.current_thread() and time.monotonic() - self._asked < quiet
        )


class Worker:
    """Runs `job(stopping)` in a daemon thread after each `wake`, or the job that is given to it; a
    job returns early once `stopping()` is true.
    """

    def __init__(self, job: Job, name: str) -> None:
        self._job = job
        self._jobs: dict[Job, None] = {}  # those to run, in order
        self._name = name
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._stop = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def wake(self, job: Job | None = None) -> None:
        """Request a run; one that is under way is followed by another."""
        with self._start:
            if self._stop.is_set():
                return
            self._jobs[job or self._job] = None
            self._idle.clear()
            self._wake.set()
            # there are no threads after a fork
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to run; return False where `timeout` seconds pass first.
        Raises the job's error.
        """
        finished = self._idle.wait(timeout)
        error, self._error = self._error, None
        if error is not None:
            raise error
        return finished

    def at_work(self) -> bool:
        """Return whether something is left to run."""
        return not self._idle.is_set()

    def leave(self) -> None:
        """In a forked child: end, since the thread exists only in the parent."""
        self._start = threading.Lock()
        self._thread = None
        self._stop.set()
        self._idle.set()

    def close(self) -> None:
        """Stop after the batch under way."""
        with self._start:
            self._stop.set()
            self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            with self._start:  # between the two lines below `close` would wake in vain
                if self._stop.is_set():
                    self._idle.set()
                    return
                self._wake.clear()
                jobs, self._jobs = self._jobs, {}
            for job in jobs:
                try:
                    job(self._stop.is_set)
                except BaseException as error:  # noqa: BLE001 - whatever it is, `wait` raises it, and the thread lives on
                    log.warning("%s stopped: %s", self._name, error)
                    self._error = error
            with self._start:
                if not self._wake.is_set():
                    self._idle.set()
