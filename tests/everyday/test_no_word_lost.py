"""What a user edits, doubles, keeps out or moves is never changed without a word."""

import json
import os
from pathlib import Path

import pytest

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2021."
FARO = "The museum moved to Faro in 2023."
FERRY = (
    "The ferry to Tarn leaves the old pier at eight and comes back at noon, on all days but Sunday."
)


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A folder with one note; commands run beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text(LISBON)
    return tmp_path / "notes"


def listed(cmt, *options):
    """All documents as JSON."""
    return [
        json.loads(line) for line in cmt("list", "--all", "--json", *options).stdout.splitlines()
    ]


# -- a text that is edited in the memory --------------------------------------------------------


def test_an_edit_of_a_file_document_names_the_file(cmt, notes):
    """`cmt update --text` says what the next `cmt add` does, and how the text stays."""
    cmt("add", notes)
    done = cmt("update", "notes/a.md", "--text", PORTO)
    assert "notes/a.md is the source of this document and keeps its own text" in done.stderr
    assert "write it to notes/a.md" in done.stderr
    assert "is version 2" in done.stdout


@pytest.mark.parametrize("command", [["add"], ["watch", "--once"]], ids=["add", "watch"])
@pytest.mark.parametrize("change", ["none", "edited", "moved", "moved and edited"])
def test_an_edit_is_named_when_the_file_replaces_it(cmt, notes, command, change):
    """Whatever became of the file meanwhile: the text stays in the history, and the warning names
    it.
    """
    (notes / "a.md").write_text(f"{LISBON} {FERRY}")
    cmt("add", notes)
    cmt("update", "notes/a.md", "--text", f"{PORTO} {FERRY}")
    file = notes / "a.md"
    if "moved" in change:
        file = file.rename(notes / "b.md")
    if "edited" in change:
        file.write_text(f"{FARO} {FERRY}")
    said = cmt(*command, notes).stderr
    name = f"notes/{file.name}"
    assert (
        f"{name}: the text of the file replaces that of version 2, which did not come from it"
        in said
    )
    (document,) = listed(cmt)
    assert f"`cmt show {document['id'][:8]} --history`" in said
    assert document["text"] == file.read_text()
    assert PORTO in cmt("show", document["id"], "--history").stdout
    again = cmt(*command, notes).stderr
    assert "replaces" not in again


def test_an_edit_by_a_program_is_named_too(cmt, notes):
    """One through the SDK, as the page's and an assistant's are, while the file stays as it was."""
    cmt("add", notes)
    os.utime(notes / "a.md", (1, 1))
    with cmt.opener(cmt.home / "default") as memory:
        memory.update(listed(cmt)[0]["id"], PORTO)
    assert "replaces that of version 2" in cmt("add", notes).stderr


@pytest.mark.parametrize("source", ["car", "https://example.org/a", "mem0:3"])
def test_an_edit_of_what_is_no_file_needs_no_warning(cmt, notes, source):
    """Nothing brings another text back."""
    cmt("add", "--text", LISBON, "--source", source)
    assert cmt("update", source, "--text", PORTO).stderr == ""


def test_an_edit_of_the_file_itself_needs_no_warning(cmt, notes):
    """Also where the file goes back to what it said, and where the text is written to the file as
    advised.
    """
    cmt("add", notes)
    for text in (PORTO, LISBON):
        (notes / "a.md").write_text(text)
        assert cmt("add", notes).stderr == ""
    cmt("update", "a.md", "--text", FARO)
    (notes / "a.md").write_text(FARO)
    assert cmt("add", notes).stderr == ""
    assert listed(cmt)[0]["text"] == FARO


@pytest.mark.parametrize("given", [["notes/a.md"], ["--text", PORTO]], ids=["the file", "its text"])
def test_a_text_that_is_in_the_file_needs_no_warning(cmt, notes, given):
    """The file brings nothing else back."""
    cmt("add", notes)
    (notes / "a.md").write_text(PORTO)
    assert cmt("update", "a.md", *given).stderr == ""
    (notes / "a.md").write_text(FARO)
    assert cmt("add", notes).stderr == ""


def test_fields_change_without_a_warning(cmt, notes):
    """Metadata of a document are not the file's."""
    cmt("add", notes)
    assert cmt("update", "a.md", "--meta", "year=2020").stderr == ""
    assert cmt("add", notes).stdout == "0 added, 0 updated, 1 unchanged\n"


def test_an_edit_where_the_file_is_gone_needs_no_warning(cmt, notes):
    """There is no text that comes back."""
    cmt("add", notes)
    (notes / "a.md").unlink()
    assert cmt("update", "notes/a.md", "--text", PORTO).stderr == ""


# -- one source of two documents ----------------------------------------------------------------


@pytest.fixture
def doubled(cmt, notes):
    """A note that went on here and in an archive, and both are kept."""
    cmt("add", notes)
    cmt("export", "first.cmt")
    cmt("import", "first.cmt", "-m", "other")
    cmt("update", "a.md", "--text", FARO, "-m", "other")
    cmt("export", "second.cmt", "-m", "other")
    (notes / "a.md").write_text(PORTO)
    cmt("add", notes)
    return cmt("import", "second.cmt", "--both")


def test_both_are_named_by_import(cmt, notes, doubled):
    """With their ids, which are the only way to each."""
    ids = [document["id"][:8] for document in listed(cmt)]
    assert len(ids) == 2
    assert f"notes/a.md: {', '.join(ids)}" in doubled.stderr


@pytest.mark.parametrize(
    "command",
    [["show"], ["rm"], ["forget", "--yes"], ["update", "--text", LISBON]],
    ids=["show", "rm", "forget", "update"],
)
@pytest.mark.parametrize("name", ["notes/a.md", "a.md"])
def test_commands_ask_which(cmt, notes, doubled, command, name):
    """By a path they name both, with what tells one from the other, and change nothing."""
    before = listed(cmt)
    said = cmt(command[0], name, *command[1:], code=2).stderr
    for document in before:
        assert document["id"][:8] in said
        assert document["text"] in said
    assert "give the id of one of them" in said
    assert listed(cmt) == before


def test_the_one_that_follows_the_file_is_named(cmt, notes, doubled):
    """The file is the source of two documents: one of them gets its new text, and the other is
    named.
    """
    (notes / "a.md").write_text(FERRY)
    said = cmt("add", notes).stderr
    follows = next(d["id"][:8] for d in listed(cmt) if d["text"] == FERRY)
    stays = next(d["id"][:8] for d in listed(cmt) if d["text"] != FERRY)
    assert f"is the source of 2 documents: {follows} follows the file, {stays} does not" in said
    assert "is the source of" not in cmt("add", notes).stderr


# -- kept out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["add"], ["watch", "--once"]], ids=["add", "watch"])
@pytest.mark.parametrize("target", ["b.md", "deep/a.md", "a.txt", "ß/ä.md"])
@pytest.mark.parametrize("taken", [["rm"], ["forget", "--yes"]], ids=["rm", "forget"])
def test_a_file_that_is_kept_out_stays_out_under_another_name(cmt, notes, command, target, taken):
    """It is named once, and the new name is kept out from then on, also when the file is edited."""
    cmt("add", notes)
    cmt(taken[0], "notes/a.md", *taken[1:], "--keep-out")
    (notes / target).parent.mkdir(exist_ok=True)
    (notes / "a.md").rename(notes / target)
    (notes / "other.md").write_text(FERRY)
    said = cmt(*command, notes).stderr
    assert (
        f"notes/{target} stays out: a file with its text was kept out; `cmt add notes/{target}`"
        " takes it in" in said
    )
    (notes / target).write_text(PORTO)
    assert "stays out" not in cmt(*command, notes).stderr
    assert [Path(d["source"]).name for d in listed(cmt)] == ["other.md"]


def test_a_file_that_was_edited_before_it_is_kept_out(cmt, notes):
    """Its text is that of the file, not only what is remembered of it."""
    cmt("add", notes)
    (notes / "a.md").write_text(PORTO)
    cmt("rm", "notes/a.md", "--keep-out")
    (notes / "a.md").rename(notes / "b.md")
    assert "1 kept out" in cmt("add", notes).stdout
    assert listed(cmt) == []


def test_a_file_that_is_kept_out_comes_in_by_its_name(cmt, notes):
    """`cmt add FILE` under the new name takes it in, and its folder then keeps it up to date."""
    cmt("add", notes)
    cmt("rm", "notes/a.md", "--keep-out")
    (notes / "a.md").rename(notes / "b.md")
    cmt("add", notes)
    assert cmt("add", notes / "b.md").stdout == "1 added, 0 updated, 0 unchanged\n"
    (notes / "b.md").write_text(PORTO)
    assert cmt("add", notes).stdout == "0 added, 1 updated, 0 unchanged\n"


def test_a_copy_of_a_file_that_is_kept_out_is_followed(cmt, notes):
    """A remembered file with the same text may be renamed all the same."""
    (notes / "b.md").write_text(LISBON)
    cmt("add", notes)
    cmt("rm", "notes/a.md", "--keep-out")
    (notes / "b.md").rename(notes / "c.md")
    assert cmt("add", notes).stdout == "0 added, 0 updated, 0 unchanged, 1 moved, 1 kept out\n"
    assert [Path(d["source"]).name for d in listed(cmt)] == ["c.md"]


def test_another_scope_keeps_nothing_out(cmt, notes):
    """What one person keeps out, another may take in."""
    cmt("add", notes, "--scope", "ann")
    cmt("rm", "notes/a.md", "--keep-out")
    (notes / "a.md").rename(notes / "b.md")
    assert cmt("add", notes, "--scope", "bob").stdout == "1 added, 0 updated, 0 unchanged\n"


# -- moved and edited ---------------------------------------------------------------------------


@pytest.mark.parametrize(("moved", "edited"), [(1, 1), (3, 1), (3, 3), (2, 0)])
def test_every_file_is_counted_once(cmt, notes, moved, edited):
    """A file that was moved and edited is one that was moved."""
    for number in range(4):
        (notes / f"{number}.md").write_text(f"Note {number}. {FERRY}")
    cmt("add", notes)
    (notes / "new").mkdir()
    for number in range(moved):
        file = (notes / f"{number}.md").rename(notes / "new" / f"{number}.md")
        if number < edited:
            file.write_text(f"Note {number}. {FERRY} Dogs pay half.")
    figures = cmt.json("add", notes)
    names = ("added", "updated", "unchanged", "moved")
    assert [figures[name] for name in names] == [0, 0, 5 - moved, moved]
    assert figures["moved_and_edited"] == edited


def test_a_file_that_was_moved_and_edited_is_said_so(cmt, notes):
    """By `add` in its summary, and by `watch` in one line and one object."""
    (notes / "f.md").write_text(FERRY)
    cmt("add", notes)
    (notes / "f.md").rename(notes / "g.md").write_text(f"{FERRY} Dogs pay half.")
    assert (
        cmt("add", notes).stdout == "0 added, 0 updated, 1 unchanged, 1 moved (1 of them edited)\n"
    )
    (notes / "g.md").rename(notes / "h.md").write_text(f"{FERRY} Dogs pay all.")
    assert cmt("watch", notes, "--once").stdout == "renamed notes/g.md to notes/h.md, and edited\n"
    (notes / "h.md").rename(notes / "i.md").write_text(f"{FERRY} Dogs stay here.")
    (line,) = cmt("watch", notes, "--once", "--json").stdout.splitlines()
    assert (json.loads(line)["change"], json.loads(line)["edited"]) == ("renamed", True)
