"""No stale text answers: a document follows its file wherever that goes, or is taken out, or is
named.
"""

import errno
import json
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from cmt_sdk.testing.fakes import open_fake

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2021."
FERRY = "The ferry to Tarn leaves at eight."
LATER = "The ferry to Tarn leaves at half past nine."
LONG = (
    "The ferry to Tarn leaves the old pier at eight and comes back at noon.\n\nTickets are sold on"
    " board by Ann Abel.\n"
)


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """An empty folder for notes; commands run beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def write(path, text):
    """A file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def held(cmt):
    """The texts of all documents by their sources, those beneath the current folder by their
    relative paths.
    """
    lines = map(json.loads, cmt("list", "--all", "--json").stdout.splitlines())
    return {
        os.path.relpath(d["source"]) if d["source"].startswith("/") else d["source"]: (
            d["text"].rstrip()
        )
        for d in lines
    }


def closed_to_the_system(monkeypatch, folder):
    """Nothing beneath a folder can be looked at or read, as without permissions; root would not be
    kept out.
    """
    real = {name: getattr(os, name) for name in ("stat", "lstat", "open")}

    def guarded(name):
        def call(path, *args, **options):
            if isinstance(path, str | os.PathLike) and Path(path).is_relative_to(folder):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real[name](path, *args, **options)

        return call

    for name in real:
        monkeypatch.setattr(os, name, guarded(name))


# -- moved and renamed ---------------------------------------------------------------------------


def test_a_file_that_was_moved_and_then_edited(cmt, notes):
    """`cmt add` follows it: one document, with its id and history."""
    write(notes / "ferry.md", FERRY)
    cmt("add", notes)
    first = cmt.json("list")["id"]
    (notes / "transport").mkdir()
    (notes / "ferry.md").rename(notes / "transport" / "ferry.md")
    assert cmt("add", notes).stdout == "0 added, 0 updated, 0 unchanged, 1 moved\n"
    write(notes / "transport" / "ferry.md", LATER)
    assert cmt("add", notes).stdout == "0 added, 1 updated, 0 unchanged\n"
    assert held(cmt) == {"notes/transport/ferry.md": LATER}
    assert (cmt.json("list")["id"], cmt.json("list")["version"]) == (first, 2)


@pytest.mark.parametrize("command", [["add"], ["watch", "--once"]], ids=["add", "watch"])
@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("ferry.md", "transport/ferry.md", LATER),
        ("ferry.md", "ferry.txt", LATER),
        ("ferry.md", "boat.md", LONG + "Dogs pay half.\n"),
        ("café.md", unicodedata.normalize("NFD", "café.md"), "Something else."),
        ("old/deep/ferry.md", "new/deep/ferry.md", LATER),
        ("日記/船.md", "旅行/船.md", "渡し船は九時半に出ます。切符は船の上で買います。"),
    ],
    ids=[
        "into a folder",
        "another suffix",
        "another name",
        "decomposed name",
        "folder renamed",
        "Japanese",
    ],
)
def test_moved_and_edited_at_once(cmt, notes, command, before, after, text):
    """The same name with a like text, or another name with nearly the same, or another spelling of
    the name.
    """
    old = (
        LONG
        if "boat" in after
        else "渡し船は八時に出ます。切符は船の上で買います。"
        if "船" in before
        else FERRY
    )
    write(notes / before, old)
    write(notes / "other.md", PORTO)
    cmt("watch", notes, "--once")
    (notes / before).unlink()
    write(notes / after, text)
    cmt(*command, notes)
    assert held(cmt) == {f"notes/{after}": text.rstrip(), "notes/other.md": PORTO}
    assert cmt.json("list", "--source", f"*{Path(after).name}")["version"] == 2


def test_a_file_that_is_no_longer_like_itself_is_another(cmt, notes):
    """What is gone is named by `add` and taken out by `watch`; what is new is new."""
    write(notes / "ferry.md", FERRY)
    write(notes / "b.md", PORTO)
    cmt("add", notes)
    (notes / "ferry.md").unlink()
    write(notes / "soup.md", "Cook the lentils for forty minutes.")
    done = cmt("add", notes)
    assert done.stdout == "1 added, 0 updated, 1 unchanged\n"
    assert (
        "1 file gone, and still remembered: notes/ferry.md; `cmt watch --once notes` removes that"
        in done.stderr
    )
    assert cmt("watch", notes, "--once").stdout == "removed notes/ferry.md\n"
    assert held(cmt) == {
        "notes/soup.md": "Cook the lentils for forty minutes.",
        "notes/b.md": PORTO,
    }


def test_a_renamed_folder_is_followed_by_its_contents(cmt, notes):
    """Also in what was edited on the way, and what was deleted there is named."""
    for number in range(4):
        write(notes / f"{number}.md", f"Note {number} about the harbour.")
    cmt("add", notes)
    notes.rename("Notizen")
    write(Path("Notizen/3.md"), "Quite another text.")
    Path("Notizen/2.md").unlink()
    done = cmt("add", "Notizen")
    assert done.stdout == "0 added, 0 updated, 0 unchanged, 3 moved (1 of them edited)\n"
    assert (
        "1 file of folders that are elsewhere now not found here, and still remembered: notes/2.md"
        in done.stderr
    )
    assert set(held(cmt)) == {"Notizen/0.md", "Notizen/1.md", "Notizen/3.md", "notes/2.md"}
    assert held(cmt)["Notizen/3.md"] == "Quite another text."


def test_a_part_that_moves_to_another_note_is_no_move(cmt, notes):
    """The old file is there still: it is updated, and the new one added."""
    write(notes / "a.md", f"{LISBON}\n\n{FERRY}")
    cmt("add", notes)
    write(notes / "a.md", LISBON)
    write(notes / "b.md", FERRY)
    assert cmt("add", notes).stdout == "1 added, 1 updated, 0 unchanged\n"
    assert held(cmt) == {"notes/a.md": LISBON, "notes/b.md": FERRY}


def test_a_single_file_follows_as_well(cmt, notes):
    """`cmt add FILE` under the new name."""
    write(notes / "ferry.md", FERRY)
    cmt("add", notes / "ferry.md")
    (notes / "ferry.md").rename(notes / "boat.md")
    assert cmt("add", notes / "boat.md").stdout == "0 added, 0 updated, 0 unchanged, 1 moved\n"
    assert held(cmt) == {"notes/boat.md": FERRY}


def test_a_file_that_is_not_there_is_named_with_what_is_remembered(cmt, notes):
    """The error has the command that takes it out, which works."""
    write(notes / "ferry.md", FERRY)
    cmt("add", notes)
    (notes / "ferry.md").unlink()
    assert (
        "what was remembered of it stays: `cmt rm notes/ferry.md`"
        in cmt("add", "notes/ferry.md", code=3).stderr
    )
    assert "stays" not in cmt("add", "notes/nothing.md", code=3).stderr
    cmt("rm", "notes/ferry.md")
    assert held(cmt) == {}


def test_files_with_one_text_are_documents_each(cmt, notes):
    """An edit of one loses nothing of the other, nor does the end of one."""
    write(notes / "a.md", FERRY)
    write(notes / "b.md", FERRY)
    cmt("add", notes)
    write(notes / "a.md", LATER)
    cmt("add", notes / "a.md")
    assert held(cmt) == {"notes/a.md": LATER, "notes/b.md": FERRY}
    (notes / "a.md").unlink()
    cmt("watch", notes, "--once")
    assert held(cmt) == {"notes/b.md": FERRY}


def test_a_memory_in_which_two_files_share_a_document_heals(cmt, notes):
    """Earlier releases kept one document of two files with one text: the next run makes the
    other.
    """
    write(notes / "a.md", FERRY)
    write(notes / "b.md", FERRY)
    with open_fake(cmt.home / "default") as memory:
        memory.add(FERRY, source=str(notes / "a.md"))
    assert cmt("add", notes).stdout == "1 added, 0 updated, 1 unchanged\n"
    assert held(cmt) == {"notes/a.md": FERRY, "notes/b.md": FERRY}


def test_a_file_of_another_kind_that_was_named_once_stays_up_to_date(cmt, notes):
    """Its folder is enough from then on."""
    write(notes / "conf.yaml", "port: 8080")
    cmt("add", notes / "conf.yaml")
    write(notes / "conf.yaml", "port: 9090")
    assert cmt("add", notes).stdout == "0 added, 1 updated, 0 unchanged\n"
    write(notes / "conf.yaml", "port: 7070")
    assert cmt("watch", notes, "--once").stdout == "updated notes/conf.yaml\n"


def test_a_folder_in_the_place_of_a_file(cmt, notes):
    """The file is gone, though its name is there."""
    write(notes / "plan.md", LISBON)
    write(notes / "b.md", PORTO)
    cmt("watch", notes, "--once")
    (notes / "plan.md").unlink()
    (notes / "plan.md").mkdir()
    assert cmt("watch", notes, "--once").stdout == "removed notes/plan.md\n"


def test_a_file_that_is_given_twice_is_read_once(cmt, notes):
    """By itself and in its folder."""
    write(notes / "ferry.md", FERRY)
    assert cmt("add", "notes/ferry.md", notes).stdout == "1 added, 0 updated, 0 unchanged\n"


def test_what_is_said_about_files_is_kept_when_they_move(cmt, notes):
    """Metadata of the command stays with the document."""
    write(notes / "page.html", f"<title>Ferries</title><p>{FERRY}</p>")
    cmt("add", notes, "--meta", "year=2026")
    (notes / "page.html").rename(notes / "boat.html")
    cmt("add", notes)
    assert cmt.json("list")["metadata"]["year"] == 2026


def test_scopes_follow_apart(cmt, notes):
    """A move concerns the scope that is given."""
    write(notes / "ferry.md", FERRY)
    cmt("add", notes)
    cmt("add", notes, "--scope", "user/ann")
    (notes / "ferry.md").rename(notes / "boat.md")
    assert (
        cmt("add", notes, "--scope", "user/ann").stdout
        == "0 added, 0 updated, 0 unchanged, 1 moved\n"
    )
    assert cmt.json("list", "--scope", "user/ann")["source"].endswith("boat.md")
    assert "ferry.md" in cmt("list").stdout


def test_the_json_of_a_move(cmt, notes):
    """Counted for programs."""
    write(notes / "ferry.md", FERRY)
    cmt("add", notes)
    (notes / "ferry.md").rename(notes / "boat.md")
    done = cmt.json("add", notes)
    assert (done["added"], done["moved"], done["removed"]) == (0, 1, 0)


# -- emptied, unreadable, in a cloud -------------------------------------------------------------


def docx(text):
    """A letter as Word writes it, as far as it matters."""
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" if text else "<w:p/>"
    return (
        f'<?xml version="1.0"?><w:document xmlns:w="{space}"><w:body>{body}</w:body></w:document>'
    )


def letter(path, text):
    """A docx file."""
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    types = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{types}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{kind}"/></Types>',
        )
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{types}/relationships"><Relationship Id="a" Type="{office}" '
            'Target="word/document.xml"/></Relationships>',
        )
        file.writestr("word/document.xml", docx(text))


@pytest.mark.parametrize(
    "blank", ["", " \n\t\n", "\ufeff"], ids=["nothing", "white space", "a mark"]
)
@pytest.mark.parametrize("command", [["add"], ["watch", "--once"]], ids=["add", "watch"])
def test_an_emptied_file_says_nothing_any_more(cmt, notes, command, blank):
    """Its text is taken out, by `add` and by `watch`; it comes back with new words."""
    write(notes / "alarm.md", "The alarm code of the shed is 4711.")
    write(notes / "b.md", PORTO)
    cmt("add", notes)
    write(notes / "alarm.md", blank)
    cmt(*command, notes)
    assert held(cmt) == {"notes/b.md": PORTO}
    write(notes / "alarm.md", "The alarm code is 0815.")
    cmt(*command, notes)
    assert held(cmt)["notes/alarm.md"] == "The alarm code is 0815."


def test_an_emptied_file_is_forgotten_with_forget(cmt, notes):
    """No byte of it or of its earlier versions is left."""
    write(notes / "b.md", PORTO)
    write(notes / "alarm.md", "The word is zanzibarquartz.")
    cmt("watch", notes, "--once")
    write(notes / "alarm.md", "The word is mongolfierplum.")
    cmt("watch", notes, "--once")
    write(notes / "alarm.md", "")
    assert (
        cmt("watch", notes, "--once", "--forget").stdout
        == "removed notes/alarm.md, no trace left\n"
    )
    files = [f.read_bytes() for f in cmt.home.rglob("*") if f.is_file()]
    assert not any(
        word in data for data in files for word in (b"zanzibarquartz", b"mongolfierplum")
    )


def test_an_emptied_file_that_is_named(cmt, notes):
    """`cmt add FILE` takes the text out; of a file that nobody knew it is an error."""
    write(notes / "alarm.md", FERRY)
    cmt("add", notes / "alarm.md")
    write(notes / "alarm.md", "")
    assert cmt("add", notes / "alarm.md").stdout == "0 added, 0 updated, 0 unchanged, 1 removed\n"
    assert "nothing to remember" in cmt("add", notes / "alarm.md", code=2).stderr


def test_a_letter_and_a_page_that_say_nothing_any_more(cmt, notes):
    """Files of Word and html are never of no bytes: what counts is their text."""
    letter(notes / "letter.docx", LISBON)
    write(notes / "page.html", f"<p>{PORTO}</p>")
    write(notes / "b.md", FERRY)
    cmt("add", notes)
    letter(notes / "letter.docx", "")
    write(notes / "page.html", "<html><body></body></html>")
    assert cmt("add", notes).stdout == "0 added, 0 updated, 1 unchanged, 2 removed\n"
    assert held(cmt) == {"notes/b.md": FERRY}


def test_many_files_that_are_empty_at_once_keep_their_texts(cmt, notes):
    """A full disk or a broken copy did that: it is named; --yes says it is meant."""
    for number in range(12):
        write(notes / f"{number}.md", f"Note {number}.")
    cmt("add", notes)
    for number in range(12):
        write(notes / f"{number}.md", "")
    assert "12 files in" in cmt("add", notes).stderr
    cmt("watch", notes, "--once")
    assert len(held(cmt)) == 12
    cmt("watch", notes, "--once", "--yes")
    assert held(cmt) == {}


@pytest.mark.parametrize("command", [["add"], ["watch", "--once"]], ids=["add", "watch"])
@pytest.mark.parametrize("data", [b"\x89PNG\0\0", bytes(30)], ids=["a picture", "zeros"])
def test_a_file_that_cannot_be_read_is_named(cmt, notes, command, data):
    """What is remembered stays, with its date; when it can be read again nothing is compressed."""
    write(notes / "a.md", LISBON)
    write(notes / "b.md", PORTO)
    cmt("add", notes)
    (notes / "a.md").write_bytes(data)
    assert "notes/a.md: what is remembered of it is of 20" in cmt(*command, notes).stderr
    assert held(cmt)["notes/a.md"] == LISBON
    write(notes / "a.md", LISBON)
    assert cmt.json("add", notes) == {
        "added": 0, "unchanged": 2, "updated": 0, "passages": 0, "compressed": 0,
        "moved": 0, "moved_and_edited": 0, "removed": 0, "kept_out": 0, "empty": 0, "refused": 0,
        "taken": 0,
        "unproven": 0,
    }  # fmt: skip


def test_a_folder_with_nothing_but_a_file_that_cannot_be_read(cmt, notes):
    """It is no folder without anything to remember."""
    write(notes / "a.md", LISBON)
    cmt("add", notes)
    (notes / "a.md").write_bytes(b"\0\0")
    assert "stays" in cmt("add", notes).stderr


@pytest.mark.parametrize("command", [["add"], ["watch", "--once"]], ids=["add", "watch"])
@pytest.mark.parametrize("name", [".{}.icloud", "{}.nextcloud", "{}.owncloud", "{}.cloud"])
def test_a_file_that_was_evicted_to_a_cloud_stays(cmt, notes, command, name):
    """It is named; coming back it is unchanged."""
    write(notes / "a.md", LISBON)
    write(notes / "b.md", PORTO)
    cmt("watch", notes, "--once")
    first = cmt.json("list", "--source", "*a.md")["id"]
    (notes / "a.md").rename(notes / name.format("a.md"))
    done = cmt(*command, notes, *(["--forget"] if command[0] == "watch" else []))
    assert (
        "1 file in a cloud, not on this disk: notes/a.md; what is remembered stays" in done.stderr
    )
    assert held(cmt)["notes/a.md"] == LISBON
    (notes / name.format("a.md")).rename(notes / "a.md")
    cmt("watch", notes, "--once")
    assert (cmt.json("list", "--source", "*a.md")["id"], len(held(cmt))) == (first, 2)


def marked_as_dataless(monkeypatch, name):
    """Files of this name have the flag of macOS for contents that are in a cloud."""
    for call in ("stat", "lstat"):
        real = getattr(os, call)

        def marked(path, *args, real=real, **options):
            found = real(path, *args, **options)
            if not isinstance(path, str | os.PathLike) or Path(path).name != name:
                return found
            fields = {
                field: getattr(found, field) for field in dir(found) if field.startswith("st_")
            }
            return SimpleNamespace(**fields, st_flags=0x40000000)

        monkeypatch.setattr(os, call, marked)


def test_a_placeholder_that_its_system_marks_is_not_read(cmt, notes, monkeypatch):
    """OneDrive and iCloud keep the name and mark the file: reading it would fetch it."""
    write(notes / "a.md", LISBON)
    write(notes / "b.md", PORTO)
    cmt("watch", notes, "--once")
    write(notes / "a.md", "")
    marked_as_dataless(monkeypatch, "a.md")
    assert "1 file in a cloud" in cmt("watch", notes, "--once").stderr
    assert held(cmt)["notes/a.md"] == LISBON


# -- folders that cannot be seen -----------------------------------------------------------------


def gone_and_back(cmt, notes, lose, mend, kept):
    """`watch --forget` while something is away takes nothing out, and afterwards nothing has
    happened.
    """
    cmt("watch", notes, "--once")
    before = {d["id"] for d in map(json.loads, cmt("list", "--all", "--json").stdout.splitlines())}
    lose()
    done = cmt("watch", notes, "--once", "--forget")
    assert kept in done.stderr
    assert "removed" not in done.stdout
    mend()
    again = cmt("watch", notes, "--once", "--forget")
    assert again.stdout == ""
    assert {
        d["id"] for d in map(json.loads, cmt("list", "--all", "--json").stdout.splitlines())
    } == before


@pytest.mark.parametrize(
    "names",
    [["n1.md", "n2.md", "n3.md"], ["one/x.md", "two/y.md"]],
    ids=["files", "folders of one file"],
)
def test_a_mount_point_without_its_drive(cmt, notes, names):
    """The folder is there and empty."""
    write(notes / "l.md", PORTO)
    for name in names:
        write(notes / "usb" / name, f"This is {name}.")

    def unmount():
        shutil.move(notes / "usb", notes.parent / "drive")
        (notes / "usb").mkdir()
        write(notes / "usb" / ".DS_Store", "litter")

    def mount():
        shutil.rmtree(notes / "usb")
        shutil.move(notes.parent / "drive", notes / "usb")

    gone_and_back(cmt, notes, unmount, mount, f"{len(names)} documents came from {notes}/usb")


def test_a_mount_point_with_one_file_that_nobody_deleted(cmt, notes):
    """The empty folder is older than the document: the file was not deleted in it."""
    write(notes / "l.md", PORTO)
    write(notes / "usb" / "n.md", LISBON)

    def unmount():
        shutil.move(notes / "usb", notes.parent / "drive")
        (notes / "usb").mkdir()
        os.utime(notes / "usb", (0, 0))

    def mount():
        (notes / "usb").rmdir()
        shutil.move(notes.parent / "drive", notes / "usb")

    gone_and_back(cmt, notes, unmount, mount, f"1 document came from {notes}/usb")


def test_a_folder_that_is_renamed_away(cmt, notes):
    """As an automounter does, and whoever moves a folder out."""
    write(notes / "l.md", PORTO)
    write(notes / "share" / "n.md", LISBON)
    away = notes.parent / "away"
    gone_and_back(
        cmt,
        notes,
        lambda: shutil.move(notes / "share", away),
        lambda: shutil.move(away, notes / "share"),
        f"1 document came from {notes}/share, and its file is gone",
    )


def test_a_closed_folder(cmt, notes):
    """What the system does not show is not gone."""
    write(notes / "l.md", PORTO)
    write(notes / "private" / "n.md", LISBON)
    with pytest.MonkeyPatch.context() as patch:
        gone_and_back(
            cmt,
            notes,
            lambda: closed_to_the_system(patch, notes / "private"),
            patch.undo,
            "1 file where they cannot be looked at: notes/private/n.md",
        )


def test_a_link_to_a_file_on_a_drive_that_is_away(cmt, notes):
    """The link is there, its target's folder is not."""
    write(notes / "l.md", PORTO)
    write(notes.parent / "drive" / "n.md", LISBON)
    (notes / "link.md").symlink_to(notes.parent / "drive" / "n.md")
    cmt("add", notes / "link.md")  # named: a folder's links are not followed
    away = notes.parent / "away"
    gone_and_back(
        cmt,
        notes,
        lambda: shutil.move(notes.parent / "drive", away),
        lambda: shutil.move(away, notes.parent / "drive"),
        "1 file where they cannot be looked at: notes/link.md",
    )


def test_many_files_at_once_out_of_one_folder(cmt, notes):
    """Half a folder is more than somebody deletes by the way: it is named; --yes takes them out."""
    for number in range(30):
        write(notes / "big" / f"{number}.md", f"Note {number}.")
    write(notes / "l.md", PORTO)
    cmt("watch", notes, "--once")
    for number in range(20):
        (notes / "big" / f"{number}.md").unlink()
    assert "20 documents came from" in cmt("watch", notes, "--once").stderr
    assert len(held(cmt)) == 31
    cmt("watch", notes, "--once", "--yes")
    assert len(held(cmt)) == 11


def test_a_few_files_of_a_folder_go(cmt, notes):
    """A deletion as everybody does it asks nothing."""
    for name in "abcd":
        write(notes / "some" / f"{name}.md", f"Note {name}.")
    cmt("watch", notes, "--once")
    for name in "abc":
        (notes / "some" / f"{name}.md").unlink()
    assert len(cmt("watch", notes, "--once").stdout.splitlines()) == 3
    assert held(cmt) == {"notes/some/d.md": "Note d."}


def test_on_a_terminal_each_folder_is_asked_for(cmt, notes, monkeypatch):
    """One answer may be yes and another no."""
    for name in ("one/a.md", "one/b.md", "two/c.md", "two/d.md", "l.md"):
        write(notes / name, f"This is {name}.")
    cmt("watch", notes, "--once")
    shutil.rmtree(notes / "one")
    shutil.rmtree(notes / "two")
    monkeypatch.setattr("cmt_cli.watch_session.on_terminal", lambda _: True)
    done = cmt("watch", notes, "--once", stdin="y\nn\n")
    assert done.stdout.splitlines() == ["removed notes/one/a.md", "removed notes/one/b.md"]
    assert sorted(held(cmt)) == ["notes/l.md", "notes/two/c.md", "notes/two/d.md"]


# -- another machine -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "there",
    [
        "/home/somebody/notes/{}",
        "C:/Users/Ann/Documents/notes/{}",
        r"C:\Users\Ann\notes\{}",
        "//server/share/notes/{}",
    ],
)
def test_a_memory_that_was_made_elsewhere(cmt, notes, there):
    """Adding the same folder here takes its documents over, edited ones too, instead of doubling
    them.
    """
    names = ["a.md", "deep/b.md", "deep/c.md"]
    with open_fake(cmt.home / "default") as memory:
        for name in names:
            memory.add(
                f"This is the note {name} about the harbour.",
                source=there.format(name.replace("/", there[there.index("notes") + 5])),
            )
    for name in names:
        write(notes / name, f"This is the note {name} about the harbour.")
    write(
        notes / "deep" / "c.md", "This is the note deep/c.md about the harbour, and about the mill."
    )
    assert (
        cmt("add", notes).stdout == "0 added, 0 updated, 0 unchanged, 3 moved (1 of them edited)\n"
    )
    assert sorted(held(cmt)) == ["notes/a.md", "notes/deep/b.md", "notes/deep/c.md"]
    assert "mill" in held(cmt)["notes/deep/c.md"]


def test_a_strangers_note_of_the_same_name_stays(cmt, notes):
    """An archive of somebody else: their README is not mine."""
    with open_fake(cmt.home / "default") as memory:
        memory.add(
            "How to feed the parrot, and when it sleeps.", source="/home/somebody/bird/README.md"
        )
    write(notes / "README.md", "The boat is moored at pier seven; the key hangs behind the door.")
    assert cmt("add", notes).stdout == "1 added, 0 updated, 0 unchanged\n"
    assert len(held(cmt)) == 2


def test_watching_takes_nothing_of_another_machine_out(cmt, notes):
    """Such a document is not gone: its file was never here."""
    with open_fake(cmt.home / "default") as memory:
        memory.add(LISBON, source="/home/somebody/notes/a.md")
        memory.add(PORTO, source="C:/notes/b.md")
    write(notes / "c.md", FERRY)
    cmt("watch", notes, "--once", "--forget", "--yes")
    assert len(held(cmt)) == 3


def test_a_name_in_other_letters_is_the_same_file_where_the_disk_says_so(cmt, notes, monkeypatch):
    """On a disk that does not tell capitals apart, a file that is renamed to another case is no
    second one.
    """
    write(notes / "Ferry.md", FERRY)
    # two names of one file, as such a disk shows it
    (notes / "ferry.md").hardlink_to(notes / "Ferry.md")
    with open_fake(cmt.home / "default") as memory:
        memory.add(FERRY, source=str(notes / "ferry.md"))
    monkeypatch.setattr(
        "cmt_cli.sync.cmt_sdk.list_files", lambda *_, **__: [notes / "Ferry.md"], raising=False
    )
    monkeypatch.setattr("cmt_cli.moved_files.KnownFiles.is_alone", lambda *_: False)
    cmt("add", notes)
    assert held(cmt) == {"notes/Ferry.md": FERRY}


# -- links ---------------------------------------------------------------------------------------


def test_a_linked_file_of_an_old_memory_stays(cmt, notes):
    """Earlier releases followed links out of a folder: what they remembered stays until the link
    goes.
    """
    target = write(notes.parent / "elsewhere" / "t.md", LISBON)
    write(notes.parent / "elsewhere" / "more.md", "More.")
    write(notes / "b.md", PORTO)
    (notes / "link.md").symlink_to(target)
    cmt("add", notes / "link.md")
    write(target, FERRY)
    assert "link.md" not in cmt("watch", notes, "--once").stdout
    assert held(cmt)["notes/link.md"] == LISBON
    (notes / "link.md").unlink()
    assert cmt("watch", notes, "--once").stdout == "removed notes/link.md\n"


def test_a_link_to_a_folder_is_named(cmt, notes):
    """It is not followed, and that is said."""
    write(notes.parent / "elsewhere" / "t.md", LISBON)
    write(notes / "b.md", PORTO)
    (notes / "shared").symlink_to(notes.parent / "elsewhere")
    done = cmt("watch", notes, "--once")
    assert "shared" in done.stderr
    assert held(cmt) == {"notes/b.md": PORTO}


# -- imports and the check-up --------------------------------------------------------------------


def export(path, *memories):
    """What mem0 exports."""
    path.write_text(json.dumps([{"memory": text, "id": name} for name, text in memories]))
    return path


def test_imported_memories_with_one_text_are_two(cmt, notes):
    """A later export that changes one of them loses nothing."""
    cmt("import", export(notes / "m.json", ("1", "Ann likes tea."), ("2", "Ann likes tea.")))
    cmt("import", export(notes / "m.json", ("1", "Ann likes tea."), ("2", "Ann likes coffee.")))
    assert held(cmt) == {"mem0:1": "Ann likes tea.", "mem0:2": "Ann likes coffee."}


def test_what_a_later_export_lacks_is_named(cmt, notes):
    """Of a whole export; a single file may be a part of one."""
    talks = [
        {
            "uuid": f"c-{n}",
            "name": "Tea",
            "chat_messages": [{"sender": "human", "text": f"Talk {n}?"}],
        }
        for n in range(2)
    ]
    for name, some in (("one.zip", talks), ("two.zip", talks[1:])):
        with zipfile.ZipFile(notes / name, "w") as file:
            file.writestr("conversations.json", json.dumps(some))
    assert cmt("import", notes / "one.zip").stderr == ""
    assert (
        "1 document of earlier exports not in this one, and still remembered: claude:c-0"
        in cmt("import", notes / "two.zip").stderr
    )
    write(notes / "conversations.json", json.dumps(talks[1:]))
    assert cmt("import", notes / "conversations.json").stderr == ""


def test_the_check_up_counts_files_that_are_away(cmt, notes):
    """Nothing is wrong by it, and the way on is there; nothing is said where all files are here."""
    for name in "ab":
        write(notes / f"{name}.md", f"Note {name}.")
    cmt("add", notes)
    cmt("add", "--text", "x", "--source", "C:/notes/c.md")
    (notes / "a.md").unlink()
    (notes / "b.md").rename(notes / ".b.md.icloud")
    found = {f["check"]: f for f in json.loads(cmt("check", "--json", code=1).stdout)}
    assert found["files"]["ok"]
    assert (
        found["files"]["detail"]
        == "of 3 files 1 gone, 1 of another system, 1 in a cloud; what is remembered of them still"
        " answers"
    )


def test_many_named_files_that_are_empty_at_once_keep_their_texts(cmt, notes):
    """Named one by one, as a shell's *.md does, they are asked about as those of a folder are."""
    files = [notes / f"{number}.md" for number in range(12)]
    for number, file in enumerate(files):
        write(file, f"Note {number}.")
    cmt("add", *files)
    for file in files:
        write(file, "")
    assert "12 files in" in cmt("add", *files).stderr
    assert len(held(cmt)) == 12
