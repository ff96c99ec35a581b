"""Copies of what holds a memory, and forks of the process that has one open."""

import copy
import json
import os
import pickle
import threading
import time

import pytest

from cmt_sdk.errors import InvalidInput
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        yield opened


def in_child(work, timeout=20.0):
    """What `work` returns in a forked child, or the name and the message of its error."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001 - the parent judges it
            said = [type(error).__name__, str(error)]
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    until = time.monotonic() + timeout
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    with os.fdopen(reading) as pipe:
        return json.loads(pipe.read())


class Waiting(FakeCompressor):
    """A compressor that is at work until it is let go."""

    def __init__(self):
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def compress(self, texts):
        """Wait, then compress."""
        self.begun.set()
        assert self.go_on.wait(30)
        return super().compress(texts)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_same_memory(memory, copied):
    """Also within what is copied, as the settings of an agent are; no second model is loaded."""
    assert copied(memory) is memory
    assert copied(memory.model) is memory.model
    assert copied({"memory": [memory]})["memory"][0] is memory


def test_a_chat_is_copied_with_its_turns_over_the_same_memory(memory):
    """What is said to the copy is not said to the chat."""
    memory.add("The museum moved to Lisbon.")
    chat = memory.chat()
    twin = copy.deepcopy(chat)
    twin.say("Where is the museum?")
    assert (len(chat.turns), len(twin.turns)) == (0, 2)


@pytest.mark.parametrize(
    "of", [lambda m: m, lambda m: m.model, lambda m: {"held": m}, lambda m: m.chat()]
)
def test_what_cannot_be_pickled_says_what_to_do(memory, of):
    """The error is one of ours, and names the call that opens the folder elsewhere."""
    with pytest.raises(InvalidInput, match=r"cannot be pickled.*cmt_sdk\.open\(path\)"):
        pickle.dumps(of(memory))


@forks
def test_an_idle_memory_goes_on_in_the_child(memory):
    """Both may add; each sees what the other one did."""
    memory.add("The museum moved to Lisbon.")
    assert in_child(lambda: memory.add("Ann likes tea.").text) == "Ann likes tea."
    assert {d.text for d in memory.documents()} == {"The museum moved to Lisbon.", "Ann likes tea."}


@forks
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.search("tea"),
        lambda m: m.add("Another."),
        lambda m: m.model.ask("Who likes tea?"),
        lambda m: m.count(),
        lambda m: m.compress(),
        lambda m: m.nearest([0.0] * 64),
    ],
)
def test_a_fork_while_the_memory_is_at_work(tmp_path, call):
    """The child is asked to open its own, and does not hang; the parent goes on as if nothing had
    been.
    """
    compressor = Waiting()
    with open_fake(tmp_path / "notes", FakeEngine(compressor)) as memory:
        memory.add("Ann likes tea.", wait=False)
        assert compressor.begun.wait(20)
        name, said = in_child(lambda: call(memory))
        assert name == "StorageError"
        assert "cmt_sdk.open(path)" in said
        compressor.go_on.set()
        assert memory.wait(20)
        assert [m.document.text for m in memory.search("tea")] == ["Ann likes tea."]


@forks
def test_the_child_of_a_memory_at_work_closes_it_and_opens_its_own(tmp_path):
    """Closing and waiting return at once."""
    compressor = Waiting()
    with open_fake(tmp_path / "notes", FakeEngine(compressor)) as memory:
        memory.add("Ann likes tea.", wait=False)
        assert compressor.begun.wait(20)

        def child():
            memory.wait()
            memory.close()
            with open_fake(tmp_path / "notes") as own:
                return own.add("Said by the child.").text

        assert in_child(child) == "Said by the child."
        compressor.go_on.set()
        assert memory.wait(20)
        assert memory.count() == 2


@forks
def test_a_fork_while_another_thread_is_in_a_transaction(memory, monkeypatch):
    """The transaction of the parent is not touched."""
    monkeypatch.setattr("cmt_sdk.storage.connection.FORK_WAIT", 0.1)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with memory._store._write() as db:
            db.exec_driver_sql("INSERT INTO settings VALUES ('held', '1')")
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(20)
    name, said = in_child(memory.count)
    assert (name, "at work" in said) == ("StorageError", True)
    leave.set()
    thread.join()
    with memory._store._read() as db:
        assert db.exec_driver_sql("SELECT value FROM settings WHERE name = 'held'").scalar() == "1"
    assert all(finding.ok for finding in memory.check())


@forks
def test_a_model_that_is_loaded_computes_in_the_parent_alone(tmp_path):
    """Its threads are not in the child, which would wait for them: lists and searches by words go
    on there.
    """
    with open_fake(tmp_path / "notes", FakeEngine(fork_safe=False)) as memory:
        memory.add("Ann likes tea.")
        assert in_child(memory.count) == 1
        assert in_child(lambda: len(memory.search("tea", mode="text"))) == 1
        for call in (
            lambda: memory.search("tea"),
            lambda: memory.model.ask("Who likes tea?").text,
            lambda: memory.compress(),
        ):
            name, said = in_child(call)
            assert (name, "cmt_sdk.open(path)" in said) == ("ModelError", True)
        assert memory.model.ask("Who likes tea?").text == "Ann likes tea."
