"""The daemon: runs commands for clients of its own user, one after another, with a loaded model.

It keeps the model, and opens the memory again for each command. It leaves when it was idle for as
long as its last client wants, when `cmt daemon stop` or `cmt forget` ends it, and when a client of
another release or environment asks: that one starts another daemon.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import cmt_sdk
from cmt_cli.daemon_client import (
    BEAT,
    BEGINS,
    CANCEL,
    DECLINED,
    DONE,
    INPUT,
    KEEP_ENCRYPTED,
    RUN,
)
from cmt_cli.daemon_streams import Streams
from cmt_cli.start import OBJECTS
from cmt_sdk.system import daemon
from cmt_sdk.system.daemon import HELLO, OTHER, STATUS, STOP, WELCOME
from cmt_sdk.system.links import Link, LinkError, parsed

PATIENCE = 60.0  # seconds for a client that does not take what is printed, such as a held terminal
UNASKED = 30.0  # seconds without a first client
TICK = 1.0  # seconds between two signs of life
PAUSE = 1.0  # seconds without a client before cold passages are compressed
LOOK = 0.05  # seconds between two looks for a client meanwhile
LONGEST = 7 * 86_400.0  # seconds of waiting for a client

log = logging.getLogger(__name__)

Opener = Callable[..., cmt_sdk.Memory]


class Declined(BaseException):
    """The command has to run in the client's process."""


class Job:
    """A client's command."""

    def __init__(self, link: Link, request: dict[str, Any]) -> None:
        self.link = link
        self.arguments: list[str] = request["arguments"]
        self.folder: str = request["folder"]
        self.environment: dict[str, str] = request["environment"]
        self.streams: list[dict[str, Any]] = request["streams"]
        self.seconds = min(float(request["seconds"]), LONGEST)
        self.input: Queue[bytes] = Queue()
        self.cancelled = False
        self.done = threading.Event()


class Daemon:
    """Accepts clients in threads, and runs their commands in the main thread.

    Args:
        folder: The private folder of its socket.
        identity: What a client must be to be answered; see `daemon_client.identity`.
        opener: Opens memories; tests bring their own.
    """

    def __init__(self, folder: str, identity: str, opener: Opener | None = None) -> None:
        self._folder = folder
        self._identity = identity
        self._model = cmt_sdk.KeptModel()
        self._opener = opener or partial(cmt_sdk.open, kept_model=self._model)
        self._jobs: Queue[Job | None] = Queue()
        self._current: Job | None = None
        self._clients = 0
        self._stops: list[Link] = []  # stay open until this process has ended
        self._state = threading.Lock()
        self._retired = False
        self._collected = 0  # the change of the model after which all objects were looked at
        self._opened: tuple[Path, cmt_sdk.Memory] | None = None  # by the command that runs
        # what the last command read from its text: the folder, and ids of passages
        self._cold: tuple[Path, Sequence[int]] | None = None
        self._is_used = False  # whether it has run a command to its end
        self._begun = self._idle_since = time.monotonic()
        self._keep = UNASKED

    def run(self) -> None:
        """Serve until it is time to leave; return at once where another daemon listens."""
        from filelock import FileLock, Timeout

        self._lock = FileLock(
            os.path.join(self._folder, daemon.LOCK),  # noqa: PTH118
            timeout=0,
            thread_local=False,
        )
        try:
            self._lock.acquire()
        except Timeout:
            return
        self._streams = Streams()
        self._listener, self._token = daemon.listen(self._folder)
        signal.signal(signal.SIGINT, self._interrupted)
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            self._work()
        finally:
            self._retire()

    def _work(self) -> None:
        while True:
            with self._state:
                if self._retired and not self._clients and self._jobs.empty():
                    return
            rest = self._idle_since + self._keep - time.monotonic()
            if self._retired or rest < PAUSE:
                self._cold = None  # they stay cold
            try:
                longest = LOOK if self._retired else max(rest, 0)
                job = self._jobs.get(timeout=PAUSE if self._cold else longest)
            except Empty:
                if self._cold:
                    self._compress_cold(*self._cold)
                    self._cold = None
                else:
                    self._retire()
                continue
            if job is not None:
                self._answer(job)
                self._idle_since, self._keep = time.monotonic(), job.seconds

    def _compress_cold(self, folder: Path, passages: Sequence[int]) -> None:
        """Compress what a command read from its text, until a client comes."""
        try:
            with self._opener(folder, create=False) as memory:
                memory.compress_cold(passages)
                while self._jobs.empty() and not memory.wait(LOOK):
                    pass
        except Exception as error:  # noqa: BLE001 - the folder has gone, or its key: no client waits for it
            log.info("%s: cold passages stay so: %s", folder, type(error).__name__)

    def _retire(self) -> None:
        """Give way to another daemon; what was accepted is still answered."""
        with self._state:
            if self._retired:
                return
            self._retired = True
            daemon.unlist(self._folder)
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # ends `accept`
            self._listener.close()
            self._lock.release()
        self._jobs.put(None)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._retired:
                    return
                time.sleep(TICK)  # too many open files
                continue
            with self._state:
                self._clients += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Serve one client, until its command has ended."""
        try:
            link = daemon.accept(connection, self._token, PATIENCE)
            with suppress(LinkError, KeyError, TypeError, ValueError):
                self._greet(link)
            if link not in self._stops:
                link.close()
        except OSError:
            connection.close()
        finally:
            with self._state:
                self._clients -= 1

    def _greet(self, link: Link) -> None:
        kind, content = link.receive(daemon.CONNECT)
        if kind == STATUS:
            link.send_object(STATUS, self._facts())
        elif kind == STOP:
            self._stops.append(link)
            self._retire()
        elif kind == HELLO and parsed(content) != self._identity:
            self._retire()
            link.send(OTHER)
        elif kind == HELLO:
            link.send(WELCOME)
            job = Job(link, link.receive_object(RUN, daemon.PATIENCE))
            self._jobs.put(job)
            self._watch(job)

    def _watch(self, job: Job) -> None:
        """Show the client that this process lives, and hear it, until the job is done."""
        try:
            while not job.done.is_set():
                if not job.link.has_news(TICK):
                    job.link.send(BEAT)
                    continue
                kind, content = job.link.receive(PATIENCE)
                if kind == INPUT:
                    job.input.put(content)
                elif kind == CANCEL:
                    self._cancel(job)
        except LinkError:
            self._cancel(job)  # the client has gone
        job.done.wait()
        with suppress(LinkError):
            job.link.receive(TICK)  # the client closes first: it has read everything then

    def _cancel(self, job: Job) -> None:
        if job.cancelled:
            return
        job.cancelled = True
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    def _interrupted(self, *_: object) -> None:
        if self._current is not None and self._current.cancelled:
            raise KeyboardInterrupt

    def _answer(self, job: Job) -> None:
        """Run a client's command; leave where it fails in a way that no command should."""
        try:
            with suppress(LinkError):
                job.link.send(BEGINS)
                code = self._ended(job)
                self._is_used = True
                job.link.send_object(DONE, code)
        except Declined as error:
            with suppress(LinkError):
                job.link.send(DECLINED, str(error).encode())
            if not self._is_used:
                self._retire()
        except BaseException:  # noqa: BLE001 - the client runs it itself, and shows the error
            job.link.close()
            self._retire()
        job.done.set()
        if self._opened is not None:
            (folder, memory), self._opened = self._opened, None
            self._cold = (folder, memory.cold_read) if memory.cold_read else None
            del memory
        self._collect()

    def _collect(self) -> None:
        """Free what the command left. What a model is made of is many objects, and no client is
        heard while they are looked at: that is done once.
        """
        if self._collected != self._model.changes:
            self._collected = self._model.changes
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        else:
            gc.collect()

    def _ended(self, job: Job) -> int:
        """The exit code of the command, which sees the client's folder, variables and streams."""
        from cmt_cli.main import main

        before = dict(os.environ)
        try:
            os.chdir(job.folder)
        except OSError as error:
            raise Declined(f"{job.folder} is not reached from there ({error.strerror})") from error
        try:
            _set_environment(job.environment)
            with self._streams.of(job.link, job.streams, job.input):
                self._current = job
                try:
                    self._interrupted()  # it may have been cancelled before it was the current one
                    main.main(job.arguments, prog_name="cmt", obj=self._open)
                except SystemExit as end:
                    return end.code if isinstance(end.code, int) else int(end.code is not None)
                except KeyboardInterrupt:  # before the command, which turns it to an exit code
                    raise LinkError("the client wants no answer any more") from None
                finally:
                    self._current = None
            return 0
        finally:
            _set_environment(before)
            os.chdir(self._folder)

    def _open(self, folder: Path, **options: Any) -> cmt_sdk.Memory:
        """Open a memory; an encrypted one only where the client wants it."""
        if os.environ.get(KEEP_ENCRYPTED) != "1" and cmt_sdk.is_encrypted(folder):
            raise Declined(f"{folder} is encrypted; {KEEP_ENCRYPTED}=1 lets the daemon read it")
        memory = self._opener(folder, **options)
        self._opened = None if memory.path is None else (memory.path.absolute(), memory)
        return memory

    def _facts(self) -> dict[str, Any]:
        now = time.monotonic()
        rest = None if self._current else max(0, round(self._idle_since + self._keep - now))
        return {
            "process": os.getpid(),
            "version": cmt_sdk.__version__,
            "model": self._model.loaded,
            "bytes": _resident_bytes(),
            "seconds": round(now - self._begun),
            "leaves_in": rest,
        }


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    if hasattr(time, "tzset"):
        time.tzset()


def _resident_bytes() -> int | None:
    """Bytes of RAM of this process; None where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def main() -> None:
    """Run the daemon of a folder; standard input has the identity of its clients."""
    gc.set_threshold(OBJECTS)
    server = Daemon(sys.argv[1], sys.stdin.read())
    server.run()
    os._exit(0)  # who ends it waits for its connection to close, which comes after its RAM is free


if __name__ == "__main__":
    main()
