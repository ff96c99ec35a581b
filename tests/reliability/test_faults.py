"""The operating system refuses: the Nth write, sync, rename, opening or allocation; a full disk; a
wrong clock.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.types import Document, Filter, Span

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KINDS = {
    "write": (errno.ENOSPC, errno.EIO, errno.EACCES),
    "fsync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.ENOSPC, errno.EIO, errno.EACCES),
    "open": (errno.EACCES, errno.ENOSPC, errno.EIO),
    "allocation": (errno.ENOMEM,),
}
WORK = ("documents", "forget", "reindex", "export", "backup", "import")

FULL = """
import json, sys
from pathlib import Path
from cmt_sdk.errors import StorageFull
from cmt_sdk.testing.fakes import open_fake

folder = Path(sys.argv[1])
ids, said = [], ""
with open_fake(folder) as memory:
    while not said:
        try:
            ids.append(memory.add(f"Fact {len(ids)}: " + "the museum has many rooms. " * 100).id)
        except StorageFull as error:
            said = str(error)
    found = [m.document.id for m in memory.search("museum", 1000, mode="text")]
    refused = []
    archive, copy = folder / "out.cmt", folder / "copy.db"
    for call in (lambda: memory.export(archive), lambda: memory.backup(copy), lambda: memory.forget(ids[0])):
        try:
            call()
        except StorageFull as error:
            refused.append(str(error))
    left = sorted(f.name for f in folder.iterdir() if not f.name.startswith("memory."))
(folder.parent / "ballast").unlink()
with open_fake(folder, create=False) as memory:
    gone = set(ids) - {d.id for d in memory.documents()}
    memory.add("It goes on.")
    memory.compress()
    well = [str(f) for f in memory.check() if not f.ok]
print(json.dumps([len(ids), said, set(ids) - set(found) == set(), len(refused), left, sorted(gone - {ids[0]}), well]))
"""

READ_ONLY = """
import sys
from pathlib import Path
from cmt_sdk.errors import StorageDenied
from cmt_sdk.testing.fakes import open_fake
with open_fake(Path(sys.argv[1])) as memory:
    assert list(memory.list()) == []
    try:
        memory.add("More.")
    except StorageDenied as error:
        print(error)
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory) -> Path:
    """faults.c as a library to be loaded before the C library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True
    )
    return library


def strike(
    shim: Path, folder: Path, work: str, call: str, error: int, sticky: bool, stride: int
) -> dict:
    """Let every stride-th call fail; what came of it."""
    command = [
        sys.executable,
        "-W",
        "error",
        HERE / "faulty.py",
        work,
        call,
        error,
        int(sticky),
        stride,
        folder,
    ]
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fault(
    shim: Path,
    folder: Path,
    work: str,
    call: str,
    stride: int,
    kinds: list[tuple[int, bool]],
    tally: Callable,
) -> None:
    """Each kind is an error, and whether all calls from the Nth on fail with it."""
    for error, sticky in kinds:
        place = folder / f"{error} {sticky}"
        place.mkdir()
        told = strike(shim, place, work, call, error, sticky, stride)
        tally(f"{call} fails in {work}", faults=told["faults"], losses=len(told["wrong"]))
        assert told["wrong"] == []
        if call == "allocation" and not told["knows_sqlite"]:
            pytest.skip(
                "SQLite is built into Python here: its allocations cannot be told from others"
            )


SAMPLE = [
    ("documents", "write", 23, True),
    ("documents", "write", 41, False),
    ("documents", "fsync", 3, False),
    ("documents", "open", 2, True),
    ("documents", "allocation", 997, False),
    ("backup", "rename", 1, False),
]


@pytest.mark.parametrize(("work", "call", "stride", "sticky"), SAMPLE)
def test_a_call_fails(shim, tmp_path, tally, work, call, stride, sticky):
    """A sample of the calls: our error, the state before or after, nothing else harmed, and it goes
    on.
    """
    fault(shim, tmp_path, work, call, stride, [(KINDS[call][0], sticky)], tally)


@pytest.mark.slow
@pytest.mark.parametrize("call", KINDS)
@pytest.mark.parametrize("work", WORK)
def test_every_call_fails_once(shim, tmp_path, tally, work, call):
    """Each call of each short piece of work, with each error; of the thousands of allocations some
    hundreds.
    """
    stride = {"forget": 101}.get(work, 29) if call == "allocation" else 1
    fault(
        shim,
        tmp_path,
        work,
        call,
        stride,
        [(KINDS[call][0], True), *((e, False) for e in KINDS[call])],
        tally,
    )


def elsewhere(script: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a shell script in a mount namespace of its own, where root may mount; else the test is
    skipped.
    """
    inside = ["unshare", "--mount", "sh", "-ec", script, "sh", *arguments]
    if (
        os.name != "posix"
        or not shutil.which("unshare")
        or subprocess.run([*inside[:4], "true"], check=False).returncode
    ):
        pytest.skip("mounting is not allowed here")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(inside, env=environment, capture_output=True, text=True, check=False)


def test_a_small_disk_that_is_full(tmp_path):
    """Our error; all that was stored is there and found; no half archive or copy; with space again
    it goes on.
    """
    script = """mount -t tmpfs -o size=3m tmpfs "$1"; dd if=/dev/zero of="$1/ballast" bs=1k count=1500 2>/dev/null
        exec "$2" -W error -c "$3" "$1/notes" """
    done = elsewhere(script, str(tmp_path), sys.executable, FULL)
    if "mount" in done.stderr and "permission" in done.stderr.lower():
        pytest.skip("mounting is not allowed here")
    assert done.returncode == 0, done.stderr
    stored, said, all_found, refused, left, gone, well = json.loads(done.stdout)
    assert stored > 5
    assert "free" in said
    assert all_found
    assert refused >= 2
    assert left == []
    assert gone == []
    assert well == []


def test_a_folder_that_may_only_be_read(tmp_path):
    """It is read; a change is refused with a clear error, and nothing has changed."""
    SQLiteStore(tmp_path / "notes").close()
    before = {f.name: f.read_bytes() for f in (tmp_path / "notes").iterdir()}
    script = (
        'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; exec "$2" -W error -c "$3" "$1"'
    )
    done = elsewhere(script, str(tmp_path / "notes"), sys.executable, READ_ONLY)
    if "mount" in done.stderr and "permission" in done.stderr.lower():
        pytest.skip("mounting is not allowed here")
    assert done.returncode == 0, done.stderr
    assert "is read-only" in done.stdout
    assert {f.name: f.read_bytes() for f in (tmp_path / "notes").iterdir()} == before


def test_a_clock_that_goes_backwards(tmp_path):
    """Order of listing is that of the clock; versions, expiry and what is there do not depend on
    it.
    """
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    times = iter([noon + timedelta(minutes=m) for m in (0, 1, -90, -89, -300, 5, 6)])
    now = [noon]
    store = SQLiteStore(tmp_path, clock=lambda: now[0])
    for n in range(5):
        now[0] = next(times)
        store.add(
            Document(f"Fact {n}.", id=str(n), expires_at=noon + timedelta(hours=1)), [Span(0, 7, 2)]
        )
    now[0] = noon - timedelta(days=3)
    changed = store.replace("1", {"text": "Another one."}, [Span(0, 12, 2)])
    assert (changed.version, changed.created_at) == (2, noon + timedelta(minutes=1))
    assert [v.version for v in store.history("1")] == [1, 2]
    listed, cursor = [], None
    while True:
        page = store.page(Filter(), 2, cursor)
        listed += [d.id for d in page.documents]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert listed == ["4", "2", "3", "0", "1"]
    before = store.change_counters()
    now[0] = noon + timedelta(hours=2)
    assert store.count(Filter()) == 0
    assert store.change_counters() != before
    now[0] = noon
    assert store.count(Filter()) == 5
    assert all(f.ok for f in store.check())
    store.close()
