"""`cmt worker`: compress passages as others add them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

import cmt_sdk
from cmt_cli.error_handling import warn
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option, resolve_folder
from cmt_cli.output import echo, pluralize, print_json
from cmt_sdk.errors import (
    CMTError,
    StorageDamaged,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageNewer,
)

SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # after an error
# A worker ends on these: waiting repairs none of them.
FINAL = (StorageDamaged, StorageDenied, StorageFull, StorageNewer)


@click.command()
@click.argument("memory", required=False, metavar="[MEMORY]")
@click.option(
    "--every",
    type=click.FloatRange(0.01, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks for pending passages.",
)
@memory_option
@json_option
def worker(memory: str | None, every: float, folder: Place, as_json: bool) -> None:
    """Compress pending passages as they come, until Ctrl-C or SIGTERM.

    MEMORY is a name, a folder or the address of a database; without it, that of -m. Any number of
    workers on any machines share the passages of a database: no passage is taken twice, and those
    of a worker that was killed are taken by another one. At the end a worker stores the batch that
    it has begun.

    Programs that add with `wait=False`, and `cmt add --no-wait`, leave the work to workers.

    \b
    Example:
      cmt worker postgresql+psycopg://app@db.example/memory
    """  # noqa: D301 - click reads the escape
    place = folder if memory is None else resolve_folder(memory)
    with open_memory(place) as opened, _until_signalled() as ended:
        _work(opened, every, ended, as_json=as_json)


@contextmanager
def _until_signalled() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set; a second Ctrl-C interrupts."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the form of a handler
        ended.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(memory: cmt_sdk.Memory, every: float, ended: threading.Event, *, as_json: bool) -> None:
    """Compress until the event is set; after an error wait, twice as long each time."""
    wait = every
    while not ended.is_set():
        try:
            memory.compress(_BatchReport(as_json=as_json), stop=ended.is_set)
            wait = every
        except FINAL:
            raise
        except Exception as error:
            if isinstance(error, CMTError) and not isinstance(error, StorageError):
                raise
            wait = min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, 2 * wait))
            warn(f"{error}; the next look is in {wait:g} s", as_json=as_json)
        ended.wait(wait)


class _BatchReport:
    """Prints a line for each batch."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._done = 0

    def __call__(self, progress: cmt_sdk.Progress) -> None:
        count, self._done = progress.compressed - self._done, progress.compressed
        if self._as_json:
            print_json({"compressed": count})
        else:
            echo(f"{pluralize(count, 'passage')} compressed")
