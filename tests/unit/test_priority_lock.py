"""The lock around the model: who compresses gives way to who asks."""

import threading
import time

import pytest

from cmt_sdk.system import background
from cmt_sdk.system.background import PriorityLock


@pytest.fixture
def turns():
    return PriorityLock()


def asked_elsewhere(turns):
    """Somebody asks in another thread, and has ended."""

    def ask():
        with turns:
            pass

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()


def test_other_work_waits_until_nobody_asks(turns, monkeypatch):
    """Neither while somebody has the lock, nor in the pauses between two steps of theirs."""
    monkeypatch.setattr(background, "QUIET", 60.0)
    done = threading.Event()

    def work():
        with turns.after_others():
            done.set()

    asked_elsewhere(turns)
    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(5):
        with turns:
            assert not done.wait(0.02)
    monkeypatch.setattr(background, "QUIET", 0.0)
    assert done.wait(10)
    thread.join()


def test_the_thread_that_asked_does_not_wait_for_itself(turns, monkeypatch):
    """A program that asks and adds in turn loses no time."""
    monkeypatch.setattr(background.time, "sleep", lambda _: pytest.fail("it waits"))
    for _ in range(3):
        with turns:
            pass
        with turns.after_others(), turns, turns:
            pass


def test_work_that_gives_way_is_not_counted_as_asking(turns, monkeypatch):
    """Else it would wait for its own last batch."""
    monkeypatch.setattr(background, "QUIET", 60.0)

    def work():
        with turns.after_others(), turns:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    monkeypatch.setattr(background.time, "sleep", lambda _: pytest.fail("it waits"))
    turns.give_way(10)


def test_work_is_not_put_off_for_ever(turns, monkeypatch):
    """It goes on when its patience ends, or when it is to stop."""
    monkeypatch.setattr(background, "QUIET", 60.0)
    asked_elsewhere(turns)
    asked = []
    turns.give_way(60.0, lambda: bool(asked.append("stop")) or len(asked) == 3)
    assert len(asked) == 3
    began = time.monotonic()
    turns.give_way(0.02)
    assert time.monotonic() - began >= 0.02
    monkeypatch.setattr(background, "PATIENCE", 0.0)
    with turns.after_others():
        assert turns._is_asked(background.QUIET)  # it has the lock though its wait has not ended


def test_one_thread_takes_it_several_times(turns):
    """And others only once it has let go of all."""
    taken = threading.Event()

    def take():
        with turns:
            taken.set()

    thread = threading.Thread(target=take)
    with turns, turns:
        thread.start()
        assert not taken.wait(0.05)
        assert turns.acquire(blocking=False)
        turns.release()
    assert taken.wait(10)
    thread.join()
