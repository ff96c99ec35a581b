"""Nothing piles up: opening and closing, and asking, leave file descriptors, threads and memory
where they were.
"""

import gc
import threading
import tracemalloc
from pathlib import Path

import pytest

from cmt_sdk.testing.fakes import open_fake

HANDLES = Path("/proc/self/fd")
pytestmark = pytest.mark.skipif(not HANDLES.is_dir(), reason="open files are counted in /proc")
FACTS = [f"The museum of town {n} moved to street {n * 7} in 2019." for n in range(20)]
ROOM = 400_000  # bytes that caches of Python, SQLAlchemy and numpy may still take after warming up


def handles():
    """How many files this process has open."""
    return sum(1 for _ in HANDLES.iterdir())


def open_and_close(folder, rounds):
    """Open a memory, use it a little, close it."""
    for _ in range(rounds):
        with open_fake(folder) as memory:
            memory.search("museum", k=1)


def ask(memory, rounds):
    """Ask another question each time, by every reader that has one."""
    for n in range(rounds):
        memory.model.ask(
            f"Which street did the museum of town {n} move to?",
            reader=("memory", "text", "auto")[n % 3],
        )


def grown(work):
    """What a piece of work leaves behind: open files, threads, and bytes."""
    gc.collect()
    before = handles(), threading.active_count()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return handles() - before[0], threading.active_count() - before[1], kept


@pytest.fixture
def folder(tmp_path):
    """A memory with twenty documents."""
    with open_fake(tmp_path / "notes") as memory:
        memory.add_many(FACTS)
    return tmp_path / "notes"


@pytest.mark.parametrize("rounds", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_opening_and_closing_leaves_nothing(folder, rounds):
    """Not a descriptor, not a thread, and of memory no more for many rounds than for few."""
    open_and_close(folder, 5)
    files, threads, kept = grown(lambda: open_and_close(folder, rounds))
    assert (files, threads) == (0, 0)
    assert kept < ROOM


@pytest.mark.parametrize("rounds", [100, pytest.param(5_000, marks=pytest.mark.slow)])
def test_asking_leaves_nothing(folder, rounds):
    """Questions that were never asked before, so that a cache of questions would grow."""
    with open_fake(folder) as memory:
        ask(memory, 20)
        files, threads, kept = grown(lambda: ask(memory, rounds))
        assert (files, threads) == (0, 0)
        assert kept < ROOM


def test_a_memory_that_is_dropped_unclosed_can_be_collected(folder):
    """Nothing in the package holds it: no registry, no thread, no cycle that the collector cannot
    see.
    """
    before = handles()
    for _ in range(10):
        open_fake(folder).count()
    gc.collect()
    assert handles() - before <= 6  # one memory's at most


def test_failed_openings_leave_nothing(folder, tmp_path):
    """Neither those of a foreign file nor those of no memory."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "memory.db").write_bytes(b"no database" * 100)

    def fail():
        for path in (tmp_path / "bad", tmp_path / "nowhere"):
            for _ in range(20):
                with pytest.raises(Exception, match=r"damaged|no memory"):
                    open_fake(path, create=False)

    fail()
    files, threads, kept = grown(fail)
    assert (files, threads) == (0, 0)
    assert kept < ROOM
