"""Many at once in one folder, in threads and in processes: invariants hold throughout, and nothing
is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cmt_sdk.testing.fakes import open_fake
from tests.reliability import crowd

ROOT = Path(__file__).parents[2]


def program(*arguments: object) -> subprocess.Popen:
    """Somebody who uses the memory in a process of its own."""
    command = [sys.executable, "-W", "error", str(Path(crowd.__file__)), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def said(process: subprocess.Popen) -> Any:
    """The last line that a process printed, after a proper end."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def in_processes(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """The whole cast, each in a process."""
    started = [program(role, number, seconds, folder) for role, number in crowd.CAST]
    return [said(process) for process in started]


def in_threads(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """The whole cast, each in a thread, over one opened memory."""
    with open_fake(folder, create=False) as memory, ThreadPoolExecutor(len(crowd.CAST)) as pool:
        until = time.monotonic() + seconds
        return [
            f.result()
            for f in [
                pool.submit(crowd.ROLES[role], memory, number, until) for role, number in crowd.CAST
            ]
        ]


def together(
    way: Callable[[Path, float], list[dict[str, Any]]],
    folder: Path,
    seconds: float,
    tally: Callable[..., None],
) -> None:
    """Let the cast work, then compare the folder with what each of them was told."""
    crowd.begin(folder)
    *writers, reader, compactor, indexer = way(folder, seconds)
    assert (
        min(
            reader["calls"],
            compactor["forgotten"],
            indexer["rounds"],
            *(w["count"] for w in writers),
        )
        > 0
    )
    with open_fake(folder, create=False) as memory:
        for number, told in enumerate(writers):
            history = memory.history(f"writer {number}")
            assert [v.version for v in history] == list(range(1, told["count"] + 2))
            assert history[-1].text == crowd.sentence(number, told["count"])
            assert sorted(d.id for d in memory.documents(scope=f"extra/{number}")) == sorted(
                told["extras"]
            )
        assert {name: memory.get(name).text for name in crowd.ANCHORS} == crowd.ANCHORS
        assert memory.count(scope="trash") == 0
        memory.compress()
        assert [f for f in memory.check() if not f.ok] == []
    assert [f.name for f in folder.iterdir() if b"reckage" in f.read_bytes()] == []
    calls = (
        sum(2 * w["count"] for w in writers)
        + reader["calls"]
        + compactor["forgotten"]
        + indexer["rounds"]
    )
    tally(f"all at once, {way.__name__.replace('_', ' ')}", calls=calls, losses=0)


@pytest.mark.parametrize("way", [in_processes, in_threads])
def test_all_at_once(way, tmp_path, tally):
    """Two writers, a reader, a compactor and an indexer for five seconds."""
    together(way, tmp_path / "notes", 5, tally)


@pytest.mark.slow
@pytest.mark.parametrize("way", [in_processes, in_threads])
def test_all_at_once_for_a_minute(way, tmp_path, tally):
    """As above, for long."""
    together(way, tmp_path / "notes", 60, tally)


def test_two_processes_share_a_backlog(tmp_path, tally):
    """Each passage is compressed by one of them, and none waits when either is done."""
    texts = [f"Fact word{n:04} of the museum." for n in range(150)]
    with open_fake(tmp_path / "notes") as memory:
        memory.add_many(texts, compress=False)
    both = [program("backlog", tmp_path / "notes") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [said(process) for process in both]
    done = [text for t in told for text in t["compressed"]]
    assert sorted(done) == texts
    assert [t["pending"] for t in told] == [0, 0]
    assert min(len(t["compressed"]) for t in told) > 0
    tally("two processes, one backlog", calls=len(done), losses=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_after_opening(tmp_path):
    """Parent and child both go on, and nothing that either wrote is lost."""
    assert said(program("fork", tmp_path / "notes")) == {"child": 0}
    with open_fake(tmp_path / "notes", create=False) as memory:
        texts = {d.text for d in memory.documents()}
        both = {
            f"{kind} {n} of the {who}."
            for kind in ("Fact", "Other fact")
            for n in range(15)
            for who in ("parent", "child")
        }
        assert texts == both | {"Before the fork."} | {
            f"Late fact {n} of the child." for n in range(10)
        }
        memory.compress()
        assert [f for f in memory.check() if not f.ok] == []
