"""`cmt watch`: a memory follows a folder of files on disk, over real stores with a fake language
model.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cmt_sdk.testing.fakes import open_fake

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2021."
RUN = """
import sys
from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake
main(sys.argv[1:], prog_name="cmt", obj=open_fake)
"""


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A folder with two notes, one of them deeper; commands run beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / "a.md").write_text(LISBON)
    (tmp_path / "notes" / "deep" / "b.txt").write_text("Ann likes tea.")
    return tmp_path / "notes"


@pytest.fixture
def follow(cmt, notes, monkeypatch):
    """Runs `cmt watch notes` while functions change the folder, one a burst; each says which paths
    changed.
    """

    def run(*changes, options=(), code=0):
        def bursts(root, **_):
            yield set()
            for change in changes:
                yield {(1, str(path)) for path in change() or ()}
            raise KeyboardInterrupt

        monkeypatch.setattr("watchfiles.watch", bursts)
        return cmt("watch", notes, *options, code=code)

    return run


def texts(cmt, *options):
    """The texts of all documents by their sources' last parts."""
    lines = [
        json.loads(line) for line in cmt("list", "--all", "--json", *options).stdout.splitlines()
    ]
    return {Path(d["source"] or "").name: d["text"] for d in lines}


def test_the_folder_is_taken_in_once(cmt, notes):
    """New, changed and lost files, each on a line; nothing is left to compress; a second run has
    nothing to do.
    """
    first = cmt("watch", notes, "--once")
    assert first.stdout.splitlines() == ["added notes/a.md", "added notes/deep/b.txt"]
    assert first.stderr == "2 added, 0 updated, 0 renamed, 0 removed, 0 unchanged\n"
    (notes / "a.md").write_text(PORTO)
    (notes / "deep" / "b.txt").unlink()
    (notes / "c.md").write_text("Bob likes coffee.")
    assert cmt("watch", notes, "--once").stdout.splitlines() == [
        "updated notes/a.md",
        "added notes/c.md",
        "removed notes/deep/b.txt",
    ]
    assert texts(cmt) == {"a.md": PORTO, "c.md": "Bob likes coffee."}
    assert cmt.json("stats")["pending"] == 0
    again = cmt("watch", notes, "--once")
    assert (again.stdout, again.stderr) == (
        "",
        "0 added, 0 updated, 0 renamed, 0 removed, 2 unchanged\n",
    )


def test_what_add_would_pass_over_is_passed_over(cmt, notes):
    """Hidden files, other kinds, and, with a warning, what cannot be read; all is as `cmt add` has
    it.
    """
    for name in (".hidden.md", "picture.png", ".git/config.md", "Makefile"):
        (notes / name).parent.mkdir(exist_ok=True)
        (notes / name).write_text("not this")
    (notes / "bad.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    done = cmt("watch", notes, "--once", "-m", "watched")
    assert "bad.txt" in done.stderr
    cmt("add", notes, "-m", "added")
    assert (
        texts(cmt, "-m", "watched")
        == texts(cmt, "-m", "added")
        == {
            "a.md": LISBON,
            "b.txt": "Ann likes tea.",
        }
    )


def test_documents_from_elsewhere_stay(cmt, notes):
    """Texts without a file, files of other folders, other scopes, and a folder whose name only
    begins alike.
    """
    other = notes.parent / "notes2"
    other.mkdir()
    (other / "x.md").write_text("elsewhere")
    cmt("add", other, "--no-wait")
    cmt("add", "--text", "a text", "--no-wait")
    cmt("add", "--text", "a chat", "--source", "chat", "--no-wait")
    cmt("add", notes / "deep" / "b.txt", "--scope", "user/ann", "--no-wait")
    shutil.rmtree(other)
    (notes / "deep" / "b.txt").unlink()
    cmt("watch", notes, "--once")
    assert sorted(texts(cmt)) == ["", "a.md", "b.txt", "chat", "x.md"]


def test_a_scope_is_kept_apart(cmt, notes):
    """Files go to the scope that is given, and only its documents are taken out."""
    cmt("watch", notes, "--once", "--scope", "user/ann")
    cmt("watch", notes, "--once")
    (notes / "a.md").unlink()
    assert cmt("watch", notes, "--once", "--scope", "user/ann").stdout == "removed notes/a.md\n"
    assert "a.md" in texts(cmt)
    assert len(cmt("list", "--scope", "user").stdout.splitlines()) == 1


def test_a_renamed_file_keeps_its_document(cmt, notes):
    """The id stays and nothing is compressed again."""
    cmt("watch", notes, "--once")
    before = cmt.json("list", "--source", "*/a.md")
    (notes / "a.md").rename(notes / "deep" / "z.md")
    assert cmt("watch", notes, "--once").stdout == "renamed notes/a.md to notes/deep/z.md\n"
    after = cmt.json("list", "--source", "*/z.md")
    assert (after["id"], after["version"], after["text"]) == (before["id"], 1, LISBON)


def test_a_file_over_another_one(cmt, notes):
    """`mv a b` where b is there: b has the text of a, and a is gone."""
    cmt("watch", notes, "--once")
    (notes / "a.md").replace(notes / "deep" / "b.txt")
    assert cmt("watch", notes, "--once").stdout.splitlines() == [
        "updated notes/deep/b.txt",
        "removed notes/a.md",
    ]
    assert texts(cmt) == {"b.txt": LISBON}


def test_swapped_files_lose_nothing(cmt, notes):
    """The text of one is that of the other before."""
    cmt("watch", notes, "--once")
    (notes / "a.md").write_text("Ann likes tea.")
    (notes / "deep" / "b.txt").write_text(LISBON)
    cmt("watch", notes, "--once")
    assert texts(cmt) == {"a.md": "Ann likes tea.", "b.txt": LISBON}


def test_a_copy_outlives_the_file_that_it_was_made_of(cmt, notes, follow):
    """Each file with one text has a document of its own."""
    (notes / "copy.md").write_text(LISBON)

    def lose():
        (notes / "a.md").unlink()
        return [notes / "a.md"]

    assert follow(lose).stdout.splitlines()[-1] == "removed notes/a.md"
    assert texts(cmt) == {"copy.md": LISBON, "b.txt": "Ann likes tea."}


def test_changes_are_followed_until_ctrl_c(cmt, notes, follow):
    """Adding, changing, moving and removing; a folder that comes as a whole; the end is an ordinary
    one.
    """

    def come():
        (notes / "new").mkdir()
        (notes / "new" / "c.md").write_text("Bob likes coffee.")
        return [notes / "new"]

    def change():
        (notes / "a.md").write_text(PORTO)
        (notes / "deep" / "b.txt").unlink()
        return [notes / "a.md", notes / "deep" / "b.txt"]

    def move():
        (notes / "new").rename(notes / "old")
        return [notes / "new", notes / "old"]

    done = follow(come, change, list, move)
    assert done.stdout.splitlines()[2:] == [
        "added notes/new/c.md",
        "updated notes/a.md",
        "removed notes/deep/b.txt",
        "renamed notes/new/c.md to notes/old/c.md",
    ]
    assert done.stderr.endswith(
        f"watching {notes}; Ctrl-C ends\n\nstopped; what was stored is safe\n"
    )
    assert texts(cmt) == {"a.md": PORTO, "c.md": "Bob likes coffee."}


def test_an_unreadable_file_is_tried_again_when_it_changes(cmt, notes, follow):
    """A warning the first time; what was remembered of it stays until it can be read."""

    def spoil():
        (notes / "a.md").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
        return [notes / "a.md"]

    def mend():
        (notes / "a.md").write_text(PORTO)
        return [notes / "a.md"]

    assert "warning: skipped" in follow(spoil).stderr
    assert texts(cmt)["a.md"] == LISBON
    assert follow(spoil, mend).stdout == "updated notes/a.md\n"


def test_what_does_not_concern_the_memory_is_not_looked_at(cmt, notes, follow):
    """Hidden files, other kinds, pipes, and the memory's own files when it lies in the folder."""

    def come():
        (notes / ".x.md").write_text("hidden")
        (notes / "x.png").write_text("a picture")
        os.mkfifo(notes / "pipe.md")
        (notes / "m" / "log.txt").write_text("the memory's own")
        return [notes / name for name in (".x.md", "x.png", "pipe.md", "m/log.txt", "m/memory.db")]

    done = follow(come, options=["-m", notes / "m"])
    assert done.stdout.splitlines() == ["added notes/a.md", "added notes/deep/b.txt"]


def test_json_has_an_object_a_change(cmt, notes):
    """For programs; with --forget the receipt is in it."""
    lines = cmt("watch", notes, "--once", "--json")
    assert [json.loads(line) for line in lines.stdout.splitlines()] == [
        {"change": "added", "source": str(notes / "a.md")},
        {"change": "added", "source": str(notes / "deep" / "b.txt")},
    ]
    assert lines.stderr == ""
    (notes / "a.md").unlink()
    removed = json.loads(cmt("watch", notes, "--once", "--json", "--forget").stdout)
    assert (removed["change"], removed["receipt"]["traces_found"]) == ("removed", 0)


def test_forgetting_leaves_no_trace(cmt, notes):
    """What goes from the folder goes from the files of the memory; a trace that is left makes the
    command fail.
    """
    (notes / "secret.md").write_text("The word is zanzibarquartz.")
    (notes / "other.md").write_text("The word is mongolfierplum.")
    cmt("watch", notes, "--once")
    (notes / "secret.md").unlink()
    assert (
        cmt("watch", notes, "--once", "--forget").stdout
        == "removed notes/secret.md, no trace left\n"
    )
    files = [f for f in cmt.home.rglob("*") if f.is_file()]
    assert not any(b"zanzibarquartz" in f.read_bytes() for f in files)
    (cmt.home / "default" / "copy.txt").write_text("mongolfierplum")
    (notes / "other.md").unlink()
    assert "left in copy.txt" in cmt("watch", notes, "--once", "--forget", code=1).stderr


def test_an_emptied_folder_does_not_empty_the_memory(cmt, notes):
    """It may be a drive that is not mounted: an error without a terminal, and --yes where it is
    meant.
    """
    cmt("watch", notes, "--once")
    shutil.rmtree(notes)
    notes.mkdir()
    assert "2 documents came from" in cmt("watch", notes, "--once", code=2).stderr
    assert (
        json.loads(cmt("watch", notes, "--once", "--json", code=2).stderr)["error"]["type"]
        == "InvalidInput"
    )
    assert len(texts(cmt)) == 2
    assert len(cmt("watch", notes, "--once", "--yes").stdout.splitlines()) == 2
    assert texts(cmt) == {}


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 2)])
def test_on_a_terminal_it_is_asked(cmt, notes, monkeypatch, answer, code, left):
    """Only a yes takes them out."""
    cmt("watch", notes, "--once")
    shutil.rmtree(notes)
    notes.mkdir()
    monkeypatch.setattr("cmt_cli.watch_session.on_terminal", lambda _: True)
    assert (
        "Remove them from the memory?"
        in cmt("watch", notes, "--once", stdin=answer, code=code).stderr
    )
    assert len(texts(cmt)) == left


def test_a_folder_that_is_emptied_while_it_is_watched(cmt, notes, follow):
    """A warning, and everything stays; when the files are back nothing has happened."""

    def lose():
        shutil.move(notes / "a.md", notes.parent)
        shutil.move(notes / "deep", notes.parent)
        return [notes / "a.md", notes / "deep"]

    def come_back():
        shutil.move(notes.parent / "a.md", notes)
        shutil.move(notes.parent / "deep", notes)
        return [notes / "a.md", notes / "deep"]

    done = follow(lose, come_back)
    assert "nothing was removed; if they are gone for good, give --yes" in done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert len(texts(cmt)) == 2
    assert follow(lose, options=["--yes"]).stdout.splitlines()[-2:] == [
        "removed notes/a.md",
        "removed notes/deep/b.txt",
    ]


def test_a_drive_that_goes_and_comes_while_it_is_watched(cmt, notes, follow):
    """A warning, given once, and nothing has happened when it is back; what changes meanwhile is
    taken in.
    """
    (notes / "usb").mkdir()
    for name in "xy":
        (notes / "usb" / f"{name}.md").write_text(f"This is {name}.")

    def unmount():
        shutil.move(notes / "usb", notes.parent / "drive")
        (notes / "usb").mkdir()
        return [notes / "usb" / "x.md", notes / "usb" / "y.md"]

    def write():
        (notes / "a.md").write_text(PORTO)
        return [notes / "a.md"]

    def mount():
        (notes / "usb").rmdir()
        shutil.move(notes.parent / "drive", notes / "usb")
        return [notes / "usb"]

    done = follow(unmount, write, mount, options=["--forget"])
    assert done.stderr.count("2 documents came from") == 1
    assert done.stdout.splitlines()[4:] == ["updated notes/a.md"]
    assert len(texts(cmt)) == 4


def test_moved_emptied_and_evicted_while_it_is_watched(cmt, notes, follow):
    """A move with an edit is followed, an empty file's text goes, one in a cloud stays."""
    (notes / "c.md").write_text("Bob likes coffee.")
    first = []

    def move():
        first.append(cmt.json("list", "--source", "*/a.md")["id"])
        (notes / "a.md").rename(notes / "deep" / "a.md")
        (notes / "deep" / "a.md").write_text(f"{LISBON} It is open again.")
        return [notes / "a.md", notes / "deep" / "a.md"]

    def empty():
        (notes / "deep" / "b.txt").write_text("")
        return [notes / "deep" / "b.txt"]

    def evict():
        (notes / "c.md").rename(notes / ".c.md.icloud")
        return [notes / "c.md", notes / ".c.md.icloud"]

    done = follow(move, empty, evict)
    assert done.stdout.splitlines()[3:] == [
        "renamed notes/a.md to notes/deep/a.md, and edited",
        "removed notes/deep/b.txt",
    ]
    assert "1 file in a cloud, not on this disk: notes/c.md" in done.stderr
    assert texts(cmt) == {"a.md": f"{LISBON} It is open again.", "c.md": "Bob likes coffee."}
    assert cmt.json("list", "--source", "*/a.md")["id"] == first[0]


def test_a_folder_that_is_not_there(cmt, notes, follow):
    """An error, at the beginning and while it is watched; no memory is made for it, and nothing is
    taken out.
    """
    cmt("watch", notes.parent / "nowhere", "--once", code=3)
    assert "a.md is a file: give its folder" in cmt("watch", notes / "a.md", code=3).stderr
    assert not cmt.home.exists()
    assert "there is no folder" in follow(lambda: shutil.rmtree(notes), code=3).stderr
    assert len(texts(cmt)) == 2


def test_what_cannot_be_looked_at_is_not_taken_for_gone(cmt, notes):
    """Here a link that leads to itself stands in the way; a closed folder is the same."""
    (notes / "loop").symlink_to("loop")
    with open_fake(cmt.home / "default") as memory:
        memory.add("behind the loop", source=str(notes / "loop" / "x.md"))
    cmt("watch", notes, "--once")
    assert "x.md" in texts(cmt)


def test_the_extra_is_needed_for_watching_alone(cmt, notes, monkeypatch):
    """Its install line is told before anything is done; --once works without."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert "pip install 'cmt-sdk[watch]'" in cmt("watch", notes, code=1).stderr
    assert not cmt.home.exists()
    cmt("watch", notes, "--once")


def test_folders_that_the_system_will_not_watch(cmt, notes, monkeypatch):
    """Linux has a limit: the way without it is told."""

    def refuse(*_, **__):
        raise OSError("OS file watch limit reached")
        yield

    monkeypatch.setattr("watchfiles.watch", refuse)
    assert "run `cmt watch --once` now and then" in cmt("watch", notes, code=5).stderr


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a POSIX signal")
def test_a_real_folder_is_watched(notes, tmp_path):
    """The whole command in a process: files written in pieces and moved within are one change each;
    Ctrl-C ends it with 0.
    """
    environment = {**os.environ, "CMT_HOME": str(tmp_path / "data_dir"), "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-W", "error", "-c", RUN, "watch", str(notes)]
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    guard = threading.Timer(60, process.kill)
    guard.start()
    try:
        assert [process.stdout.readline() for _ in range(2)] == [
            "added notes/a.md\n",
            "added notes/deep/b.txt\n",
        ]
        while not process.stderr.readline().startswith("watching"):
            assert process.poll() is None
        with (notes / "c.md").open("w") as file:
            for word in ("Bob ", "likes ", "coffee."):
                file.write(word)
                file.flush()
                threading.Event().wait(0.1)
        assert process.stdout.readline() == "added notes/c.md\n"
        (notes / "c.md").rename(notes / "deep" / "d.md")
        assert process.stdout.readline() == "renamed notes/c.md to notes/deep/d.md\n"
        (notes / "deep" / "d.md").unlink()
        assert process.stdout.readline() == "removed notes/deep/d.md\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        guard.cancel()
    assert (process.returncode, out, err) == (0, "", "\nstopped; what was stored is safe\n")
