"""`cmt worker`: compresses what others leave pending, until it is told to end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cmt_sdk.errors import ModelMismatch, StorageError
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake
from tests import postgres

NOTES = [f"Note {n}: the lighthouse keeper paid {n} crowns." for n in range(40)]
# Two processes share a database; each passage that one compresses is a line of a file.
PROGRAM = """
import os, sys, time
from pathlib import Path
from cmt_cli.main import main
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake

class Slow(FakeCompressor):
    def compress(self, texts):
        time.sleep(0.02 * len(texts))
        with Path(sys.argv[2]).open("a") as file:
            file.writelines(f"{text}\\n" for text in texts)
        return super().compress(texts)

main(["worker", sys.argv[1], "--every", "0.05"], obj=lambda place, **o: open_fake(
    place, FakeEngine(Slow()), **o))
"""


class Ending(FakeCompressor):
    """Is told to end while it compresses; its first calls fail with `errors`."""

    errors: tuple[Exception, ...] = ()

    def compress(self, texts):
        """See FakeCompressor."""
        if self.errors:
            error, self.errors = self.errors[0], self.errors[1:]
            raise error
        signal.raise_signal(signal.SIGTERM)
        return super().compress(texts)


def opener(compressor):
    """Opens memories with this compressor."""
    return lambda place, **options: open_fake(place, FakeEngine(compressor), **options)


@pytest.fixture
def pending(cmt) -> None:
    """Forty notes that are not compressed."""
    for note in NOTES:
        cmt("add", "--no-wait", "--text", note)


def test_a_worker_stores_its_batch_when_it_is_told_to_end(cmt, pending):
    """The exit code is 0; the rest stays pending, for another one."""
    whole, cmt.opener = cmt.opener, opener(Ending())
    assert cmt("worker").stdout == "16 passages compressed\n"
    cmt.opener = whole
    assert json.loads(cmt("compress", "--json").stdout) == {"compressed": 24}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_worker_waits_for_a_server_that_is_away(cmt, pending, monkeypatch):
    """It warns, and goes on when the server is back."""
    monkeypatch.setattr("cmt_cli.worker.SHORTEST_WAIT_S", 0.01)
    ending = Ending()
    ending.errors = (StorageError("there is no connection to the server"),) * 2
    cmt.opener = opener(ending)
    done = cmt("worker", "--json", "--every", "0.01")
    assert json.loads(done.stdout) == {"compressed": 16}
    warnings = [json.loads(line)["warning"] for line in done.stderr.splitlines()]
    assert [w.partition(";")[2] for w in warnings] == [
        " the next look is in 0.02 s",
        " the next look is in 0.04 s",
    ]


def test_a_worker_with_another_model_ends(cmt, pending):
    """Waiting does not mend that: the error names the remedy."""
    ending = Ending()
    ending.errors = (ModelMismatch("another model compressed this memory: cmt reencode"),)
    cmt.opener = opener(ending)
    assert "cmt reencode" in cmt("worker", code=None).stderr
    assert cmt("worker", "nowhere", code=None).exit_code


@pytest.mark.skipif(os.name == "nt", reason="signals of another process")
def test_workers_share_a_database(cmt, tmp_path):
    """Of two workers one is killed: the other compresses all, and nothing twice that was stored."""
    made = postgres.shared()
    made.empty()
    address, log = os.fspath(made.address), tmp_path / "log"
    command = [sys.executable, "-c", PROGRAM, address, str(log)]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for note in NOTES:
        cmt("add", "-m", address, "--no-wait", "--text", note)
    with open_fake(made.address) as memory:
        assert memory.stats().pending == len(NOTES)
        workers = [subprocess.Popen(command, env=variables) for _ in range(2)]
        try:
            _until(lambda: log.exists() and log.read_text())
            workers[0].kill()
            workers[0].wait()
            with made.as_admin() as engine, engine.connect() as db:
                # as if the lease of the killed one had run out
                db.exec_driver_sql("UPDATE waiting SET taken_until = now() - interval '1 s'")
            _until(lambda: not memory.stats().pending)
            workers[1].send_signal(signal.SIGTERM)
            assert workers[1].wait(60) == 0
        finally:
            for process in workers:
                process.kill()
        assert memory.ask("What did the keeper of note 7 pay?").sources
    times = Counter(Path(log).read_text().splitlines())
    assert set(times) == set(NOTES)
    # only what the killed one had begun, and had not stored, was compressed again
    assert sum(times.values()) - len(NOTES) <= 2 * 16


def _until(holds, seconds=120.0):
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
