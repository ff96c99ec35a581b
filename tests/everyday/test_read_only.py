"""Kind 12: a memory on a medium, or in files, that nobody here may write. Subprocesses, because
such rights are the process's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cmt_sdk.errors import StorageDenied
from cmt_sdk.storage import connection, driver
from cmt_sdk.storage.schema import MIGRATIONS, READABLE
from cmt_sdk.testing.fakes import open_fake

LISBON = "The museum moved to Lisbon in 2019."
ANN = "Ann likes green tea."
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
RUN = """
import sys
from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake
main(sys.argv[1:], prog_name="cmt", obj=open_fake)
"""
RUN_ALL = """
import contextlib, io, json, shlex, sys
from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake
for line in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(shlex.split(line), prog_name="cmt", obj=open_fake)
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
USED = """
import json, logging, sys
from pathlib import Path
from cmt_sdk.errors import CMTError
from cmt_sdk.testing.fakes import open_fake
logging.basicConfig(level="WARNING")
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
settings = json.loads(sys.argv[3])
with open_fake(out / "other") as other:
    other.add("The other one.")
    other.export(out / "other.cmt")
with open_fake(folder, **settings) as memory:
    seen = {
        "read only": memory.read_only,
        "texts": [d.text for d in memory.list()],
        "words": [m.passage.text for m in memory.search("Lisbon", 1, mode="text")],
        "meaning": [m.passage.text for m in memory.search("green tea", 1, mode="vector")],
        "answer": memory.model.ask("Where did the museum move?").text,
        "again": memory.model.ask("What does Ann like?").text,
        "said": memory.chat().say("What does Ann like?").text,
        "exported": memory.export(out / "all.cmt"),
        "history": len(memory.history("museum")),
        "stats": memory.stats().documents,
    }
    memory.backup(out / "copy")
    wrong = [f.detail for f in memory.check() if not f.ok]
    refused = {}
    for name, change in {
        "add": lambda: memory.add("More."),
        "update": lambda: memory.update("museum", "It moved on."),
        "delete": lambda: memory.delete("museum"),
        "forget": lambda: memory.forget("museum"),
        "configure": lambda: memory.configure(compression=2),
        "reindex": memory.reindex,
        "reencode": memory.reencode,
        "import": lambda: memory.import_archive(out / "other.cmt"),
    }.items():
        try:
            change()
            refused[name] = "done"
        except CMTError as error:
            refused[name] = f"{type(error).__name__}: {error}"
with open_fake(out / "copy") as memory:
    seen["copied"] = memory.add("More.").text
print(json.dumps({"seen": seen, "refused": refused, "wrong": wrong}))
"""


def closed(folder, medium):
    """Close a folder to writers; returns the words before a command that is to find it so."""
    if medium == "mount":
        able = (
            ROOT
            and shutil.which("unshare")
            and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
        )
        if not able:
            pytest.skip("mounting needs root and namespaces")
        return ["unshare", "-m", "sh", "-c", MOUNTED, folder]
    if os.name != "posix" or (ROOT and not shutil.which("setpriv")):
        pytest.skip("permissions are those of POSIX, and root may write everything")
    for file in folder.iterdir():
        file.chmod(0o444)
    if medium == "files and folder":
        folder.chmod(0o555)
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"] if ROOT else []


@pytest.fixture
def folder(tmp_path):
    """A memory of two documents, one of them in its second version."""
    made = tmp_path / "notes"
    with open_fake(made) as memory:
        memory.add("The museum is in Porto.", id="museum")
        memory.update("museum", LISBON)
        memory.add(ANN, id="ann")
    yield made
    made.chmod(0o755)


def use(folder, tmp_path, before, **settings):
    """What can be done with the memory, in a process to which it is closed."""
    out = tmp_path / "out"
    out.mkdir()
    words = [*before, sys.executable, "-c", USED, folder, out, json.dumps(settings)]
    files = {f.name: f.read_bytes() for f in folder.iterdir()}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == files
    return json.loads(done.stdout), done.stderr


EXPECTED = {
    "read only": True,
    "texts": [LISBON, ANN],
    "words": [LISBON],
    "meaning": [ANN],
    "answer": LISBON,
    "again": ANN,
    "said": ANN,
    "exported": 2,
    "history": 2,
    "stats": 2,
    "copied": "More.",
}
media = pytest.mark.parametrize("medium", ["mount", "files and folder", "files"])


@media
def test_it_is_read_and_copied_but_not_changed(folder, tmp_path, medium):
    """Listed, searched, asked, exported, backed up; what would change it is refused with the way
    on. No file changes.
    """
    told, warned = use(folder, tmp_path, closed(folder, medium))
    assert told["seen"] == EXPECTED
    for name, error in told["refused"].items():
        assert error.startswith("StorageDenied: "), name
        assert "read-only" in error, name
        assert f"`cmt backup FOLDER -m {folder}`" in error, name
    assert warned == ""
    assert len(told["wrong"]) == (0 if medium == "mount" else 1)  # rights can be given


@media
def test_with_an_index_file(folder, tmp_path, medium):
    """A graph that is there is used; where it is behind, none is written."""
    with open_fake(folder, exact_limit=1) as memory:
        memory.reindex()
    told, warned = use(folder, tmp_path, closed(folder, medium), exact_limit=1)
    assert told["seen"] == EXPECTED
    assert warned == ""


def test_without_the_index_file_that_it_wants(folder, tmp_path):
    """Search is exact then, without a word."""
    told, warned = use(folder, tmp_path, closed(folder, "files and folder"), exact_limit=1)
    assert told["seen"] == EXPECTED
    assert warned == ""


@media
def test_what_was_not_compressed_is_read(tmp_path, medium):
    """Memories that wait or were dropped are made for the question, and kept nowhere."""
    made = tmp_path / "notes"
    with open_fake(made, memory_budget=1) as memory:
        memory.add("The museum is in Porto.", id="museum")
        memory.add_many([LISBON], compress=False)
        memory.update("museum", LISBON + " It is large.")
    out = subprocess.run(
        [
            *map(
                str,
                [
                    *closed(made, medium),
                    sys.executable,
                    "-c",
                    RUN,
                    "ask",
                    "Where did the museum move?",
                    "-m",
                    made,
                ],
            )
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out.returncode, out.stderr) == (0, "")
    assert out.stdout.startswith(LISBON)
    made.chmod(0o755)


@pytest.mark.parametrize("beside", ["-wal and -shm", "-wal alone", "an empty -wal"])
@pytest.mark.parametrize("medium", ["mount", "files and folder"])
def test_with_a_log_that_was_not_merged(folder, tmp_path, medium, beside):
    """A stick that was pulled out: the last changes are in the log, and are seen."""
    there = tmp_path / "stick"
    there.mkdir()
    with open_fake(folder) as memory:
        memory.add("The last thing.", id="last")
        for name in ("memory.db", "memory.db-wal", "memory.db-shm")[
            : 2 if "alone" in beside else 3
        ]:
            shutil.copy(folder / name, there / name)
    if "empty" in beside:
        shutil.copy(folder / "memory.db", there / "memory.db")
        (there / "memory.db-wal").write_bytes(b"")
        (there / "memory.db-shm").unlink()
    words = [*closed(there, medium), sys.executable, "-c", RUN, "list", "-m", there]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    there.chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The last thing." in done.stdout


COMMANDS = [
    ("list", 0, LISBON),
    ("show museum", 0, "version 2"),
    ("search --mode text Lisbon", 0, LISBON),
    ("search Lisbon", 0, LISBON),
    ("stats", 0, "documents\t2"),
    ("config", 0, "compression\t3"),
    ("check", 1, "intact"),
    ("export {out}/all.cmt", 0, "2 documents in"),
    ("backup {out}/copy", 0, "memory.db"),
    ("add --text More.", 5, "is read-only"),
    ("add {out}", 5, "is read-only"),
    ("update museum --text More.", 5, "is read-only"),
    ("rm museum", 5, "is read-only"),
    ("forget museum --yes", 5, "is read-only"),
    ("config set compression 2", 5, "is read-only"),
    ("reindex", 5, "is read-only"),
]


@pytest.mark.parametrize("medium", ["mount", "files and folder"])
def test_commands(folder, tmp_path, medium):
    """Each does what it can, or says in a line why not."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.md").write_text("A note.", "utf-8")
    before = closed(folder, medium)
    lines = [line.format(out=out) + f" -m {folder}" for line, _, _ in COMMANDS]
    words = [*before, sys.executable, "-c", RUN_ALL, json.dumps(lines)]
    environment = {**os.environ, "CMT_MODELS": str(tmp_path / "models"), "CMT_HOME": str(tmp_path)}
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, check=True, env=environment
    )
    for (line, code, said), answered in zip(
        COMMANDS, map(json.loads, done.stdout.splitlines()), strict=True
    ):
        assert answered[0] == code, (line, answered)
        assert said in answered[1] + answered[2], (line, answered)


def test_an_encrypted_memory(tmp_path, monkeypatch):
    """It opens with its key, and its copy is encrypted with the same one."""
    pytest.importorskip("sqlcipher3")
    monkeypatch.setenv("CMT_KEY", "a" * 64)
    made = tmp_path / "notes"
    with open_fake(made, encrypted=True) as memory:
        memory.add("The museum is in Porto.", id="museum")
        memory.update("museum", LISBON)
        memory.add(ANN, id="ann")
    told, _ = use(made, tmp_path, closed(made, "files and folder"))
    assert told["seen"] == EXPECTED
    made.chmod(0o755)


def test_an_earlier_schema_says_how_to_go_on(folder, tmp_path):
    """It cannot be brought up to date where it lies."""
    with driver.connect(folder / "memory.db", None) as db:
        db.execute(f"PRAGMA user_version = {READABLE - 1}")
    db.close()
    words = [*closed(folder, "files and folder"), sys.executable, "-c", RUN, "list", "-m", folder]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "was written by an earlier release" in done.stderr
    assert "copy the folder to a disk that you may write to" in done.stderr


@pytest.mark.parametrize("schema", range(READABLE, len(MIGRATIONS)))
def test_an_earlier_schema_that_can_be_read_is_read(folder, tmp_path, schema):
    """What it lacks makes a memory faster, or keeps objects, of which it has none."""
    with driver.connect(folder / "memory.db", None) as db:
        for number in range(schema, len(MIGRATIONS)):
            for step in reversed(MIGRATIONS[number]):
                create, kind, name = step.split()[:3]
                assert create == "CREATE"
                db.execute(f"DROP {kind} {name}")
        db.execute(f"PRAGMA user_version = {schema}")
    db.close()
    told, _ = use(folder, tmp_path, closed(folder, "files and folder"))
    assert told["seen"] == EXPECTED


def test_an_empty_folder_that_is_closed_makes_no_memory(tmp_path):
    """As before: it cannot be used."""
    there = tmp_path / "there"
    there.mkdir()
    words = [
        *closed(there, "files and folder"),
        sys.executable,
        "-c",
        RUN,
        "add",
        "--text",
        "x",
        "-m",
        there,
    ]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    there.chmod(0o755)
    assert done.returncode == 5
    assert "give a folder that you may write to" in done.stderr


def test_running_out_of_handles_is_not_taken_for_a_closed_medium(folder, monkeypatch):
    """SQLite says the same of both; a memory that may be written is never read as if nobody wrote
    it.
    """

    def fails(*_, **__):
        raise StorageDenied("memory.db cannot be opened for writing (unable to open database file)")

    monkeypatch.setattr(connection.Database, "_bring_up_to_date", fails)
    with pytest.raises(StorageDenied, match="unable to open"):
        open_fake(folder)


def test_a_writable_memory_says_so(folder):
    """And its help names the attribute."""
    with open_fake(folder) as memory:
        assert not memory.read_only
        assert "read_only" in str(type(memory).__doc__)
    assert Path(folder, "memory.db").exists()
