"""Processes that are made to die: a job that a fork runs on a folder, noting what it was told,
until it is killed.

Run as a program: an order a line (JSON) on stdin, an outcome a line on stdout. Forks start in no
time: all is imported.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OTHER = "another-encoder"
MOVE_BUDGET = 3_000  # bytes: about a third of the passages of a filled folder


class Notes:
    """Lines in a file, which a kill cannot take back."""

    def __init__(self, file: str) -> None:
        self._handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, **what: Any) -> None:
        """One line."""
        os.write(self._handle, json.dumps(what).encode() + b"\n")


def open_with(folder: Path, encoder: str = "", codec: str = "", **settings: Any) -> Any:
    """A memory with the fake engine; `encoder` makes it another model, `codec` one with a codec.
    With a key around it is an encrypted one.
    """
    from cmt_sdk.testing.fakes import FakeEngine, open_fake

    made = {name: value for name, value in (("encoder", encoder), ("codec", codec)) if value}
    engine = FakeEngine.of(**made) if made else None
    return open_fake(folder, engine, encrypted="CMT_KEY" in os.environ, **settings)


def churn(order: dict[str, Any], note: Notes) -> None:
    """Add, update, delete and forget at random, saying what begins and what is done."""
    chance = random.Random(order["seed"])
    budget = 2_000 if order["seed"] % 2 else 0  # bytes: a dozen passages
    with open_with(Path(order["folder"]), exact_limit=20, memory_budget=budget) as memory:
        known = list(memory.ids())
        note(done="open")
        while True:
            kind = (
                chance.choices(["add", "update", "delete", "forget", "ask"], [50, 30, 15, 4, 20])[0]
                if known
                else "add"
            )
            name = chance.choice(known) if known else ""
            text = (
                f"Fact {uuid.uuid4().hex} about the museum. It has {chance.randrange(10**9)} rooms."
            )
            if kind == "ask":  # cold passages are compressed behind the answer
                memory.ask(memory.get(name).text.split()[1], k=2)
                continue
            if kind == "add":
                note(begin=kind, text=text)
                name = memory.add(text, wait=chance.random() < 0.7).id
                known.append(name)
            elif kind == "update":
                if chance.random() < 0.5:  # the passages before the new one stay
                    text = f"{memory.get(name).text}\n\n## Note\n\n{text}"
                note(begin=kind, id=name, text=text)
                memory.update(name, text, wait=chance.random() < 0.7)
            else:
                note(begin=kind, id=name)
                known.remove(name)
                complete = (
                    memory.delete(name).id == name
                    if kind == "delete"
                    else memory.forget(name).complete
                )
                note(done=kind, id=name, complete=complete)
                continue
            note(done=kind, id=name, text=text)


def reindex(order: dict[str, Any], note: Notes) -> None:
    """Write the index anew."""
    with open_with(Path(order["folder"])) as memory:
        memory.reindex()
        note(done="reindex")


def forget(order: dict[str, Any], note: Notes) -> None:
    """Delete a scope and rewrite the files without it."""
    with open_with(Path(order["folder"])) as memory:
        memory.forget(scope="gone")
        note(done="forget")


def migrate(order: dict[str, Any], note: Notes) -> None:
    """Open what an earlier release wrote."""
    with open_with(Path(order["folder"])):
        note(done="migrate")


def export(order: dict[str, Any], note: Notes) -> None:
    """Write an archive in place of the one that is there."""
    with open_with(Path(order["folder"])) as memory:
        memory.export(Path(order["folder"]) / "out.cmt", overwrite=True)
        note(done="export")


def import_(order: dict[str, Any], note: Notes) -> None:
    """Take in an archive."""
    with open_with(Path(order["folder"])) as memory:
        memory.import_archive(order["archive"])
        note(done="import")


def reencode(order: dict[str, Any], note: Notes) -> None:
    """Make all memories anew, for another model."""
    with open_with(Path(order["folder"]), OTHER) as memory:
        memory.reencode()
        note(done="reencode")


def recode(order: dict[str, Any], note: Notes) -> None:
    """Make all memories anew in the codes of a codec; those in four bits are read meanwhile."""
    with open_with(Path(order["folder"]), codec=OTHER) as memory:
        memory.reencode()
        note(done="recode")


def move(order: dict[str, Any], note: Notes) -> None:
    """Ask for one passage after another under a budget that holds a third of them, so that each is
    compressed behind its answer, and another goes cold.
    """
    with open_with(Path(order["folder"]), memory_budget=MOVE_BUDGET) as memory:
        for number in range(40):
            memory.ask(f"word{number:04}", k=1)
            memory.wait()
        note(done="move")


def backup(order: dict[str, Any], note: Notes) -> None:
    """Copy the database over the copy that is there."""
    with open_with(Path(order["folder"])) as memory:
        memory.backup(Path(order["folder"]) / "copy.db", overwrite=True)
        note(done="backup")


def copy(order: dict[str, Any], note: Notes) -> None:
    """Copy a memory to a folder, an archive or a database."""
    from cmt_sdk import copy_memory
    from cmt_sdk.config.address import DatabaseAddress
    from cmt_sdk.testing.fakes import open_fake

    def opener(place: Any, **options: Any) -> Any:
        return open_fake(DatabaseAddress.of(place) or Path(place), **options)

    done = copy_memory(order["source"], order["target"], open_with=opener)
    note(done="copy", complete=done.complete)


def repair(order: dict[str, Any], note: Notes) -> None:
    """Mend a damaged folder."""
    import cmt_sdk

    cmt_sdk.repair(order["folder"])
    note(done="repair")


class Silent:
    """Hears of what happens to documents, and says nothing: stdout is for outcomes."""

    def changed(self, change: str, source: str, **more: Any) -> None:
        """See cmt_cli.sync_report.SyncReport."""

    def refuse(self, error: Exception, *, named: bool) -> None:
        """See cmt_cli.sync_report.SyncReport."""

    def warned(self, message: str) -> None:
        """See cmt_cli.sync_report.SyncReport."""


def follow(order: dict[str, Any], note: Notes) -> None:
    """Bring the memory in step with a folder of files, erasing what is gone."""
    from cmt_cli.sync import Sync

    with open_with(Path(order["folder"])) as memory:
        Sync(memory, "", Silent(), lambda *_: True, remove=True, erase=True).run([order["files"]])
        memory.compress()
        note(done="follow")


def pull(order: dict[str, Any], note: Notes) -> None:
    """Convert a .gguf file to a model."""
    from cmt_sdk import pull_model

    pull_model(order["file"])
    note(done="pull")


JOBS = {
    f.__name__.rstrip("_"): f
    for f in (
        churn,
        reindex,
        forget,
        migrate,
        export,
        import_,
        reencode,
        recode,
        move,
        backup,
        copy,
        repair,
        follow,
        pull,
    )
}


def run(order: dict[str, Any]) -> None:
    """One job, in a fork of its own session; ends the process."""
    os.setsid()
    status = 1
    try:
        JOBS[order["job"]](order, Notes(order["notes"]))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent shows it
        traceback.print_exc()
    finally:
        os._exit(status)


def serve() -> None:
    """Fork for every order; kill the fork, and what it has started, once its time is over."""
    import cmt_sdk.storage.graph
    import cmt_sdk.storage.repair
    import cmt_sdk.testing.fakes  # noqa: F401 - imported once, for all forks
    from cmt_sdk import encoding

    encoding.QUIET = 0.0  # what is compressed behind an answer does not wait

    for line in sys.stdin:
        order = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            run(order)
        handle = os.pidfd_open(pid)
        select.select([handle], [], [], order.get("delay"))
        os.close(handle)
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # it has ended, or is not a group yet
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        outcome = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began}
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


class Zygote:
    """The program above, as its tests see it."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, "-W", "error", str(Path(__file__))]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def __call__(
        self, job: str, folder: Path, notes: Path, delay: float | None = None, **more: Any
    ) -> dict[str, Any]:
        """Let a fork do a job, for `delay` seconds at the most; its exit code (-9: killed) and its
        time.
        """
        order = {"job": job, "folder": str(folder), "notes": str(notes), "delay": delay, **more}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        outcome: dict[str, Any] = json.loads(self._process.stdout.readline())
        return outcome

    def close(self) -> None:
        """End the program."""
        self._process.communicate(timeout=60)


if __name__ == "__main__":
    serve()
