"""Commands take what people have: a path, the end of one, a source, an address, or an id."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from cmt_sdk.testing.fakes import open_fake

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2021."


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A folder with two notes that are remembered; commands run beside it, which is somebody's
    home.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / "trip.md").write_text(LISBON)
    (tmp_path / "notes" / "deep" / "Apple cake.md").write_text(PORTO)
    return tmp_path / "notes"


@pytest.fixture
def filled(cmt, notes):
    """The command line over a memory of the notes."""
    cmt("add", notes)
    return cmt


def there(cmt):
    """The names of the files that are remembered."""
    return sorted(
        Path(json.loads(line)["source"]).name
        for line in cmt("list", "--all", "--json").stdout.splitlines()
    )


@pytest.mark.parametrize(
    "given",
    [
        "notes/trip.md",
        "./notes/../notes/trip.md",
        "{}/trip.md",
        "~/notes/trip.md",
        "trip.md",
        "trip",
        "TRIP.md",
        "notes\\trip.md",
        "file://{}/trip.md",
    ],
)
def test_a_path_names_a_document(filled, notes, given):
    """As on the disk, from here or from the root, through ~, its end alone, without its suffix, as
    an address.
    """
    shown = filled.json("show", given.format(notes))["versions"][0]
    assert (shown["text"], shown["source"]) == (LISBON, str(notes / "trip.md"))


@pytest.mark.parametrize(
    "command",
    [["show"], ["update", "--meta", "seen=1"], ["rm"], ["forget", "--yes"]],
    ids=lambda c: c[0],
)
@pytest.mark.parametrize("given", ["notes/deep/Apple cake.md", "deep/Apple cake.md", "apple cake"])
def test_every_command_takes_it(filled, command, given):
    """Whatever takes an id."""
    filled(command[0], given, *command[1:])
    assert there(filled) == (
        ["trip.md"] if command[0] in ("rm", "forget") else ["Apple cake.md", "trip.md"]
    )


def test_the_file_may_be_gone(filled, notes):
    """Its path stands for what is remembered of it."""
    (notes / "trip.md").unlink()
    assert LISBON in filled("show", "notes/trip.md").stdout
    assert LISBON in filled("show", notes / "trip.md", "--history").stdout


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("https://example.org/a/menu?day=1", "https://example.org/a/menu?day=1"),
        ("https://example.org/a/", "https://example.org/a"),
        ("chatgpt:67a1-22", "chatgpt:67a1-22"),
        ("car", "car"),
        ("C:/Users/Ann/notes/car.md", r"C:\Users\Ann\notes\car.md"),
        ("C:/Users/Ann/notes/car.md", r"notes\car.md"),
        (r"C:\Users\Ann\notes\car.md", "notes/car.md"),
        ("a*b.md", "a*b.md"),
    ],
)
def test_a_source_names_a_document(cmt, source, given):
    """An address, a service's id, a word, a path of another system."""
    with open_fake(cmt.home / "default") as memory:
        memory.add(PORTO, source="axb.md")
        memory.add(LISBON, source=source)
    assert cmt.json("show", given)["versions"][0]["text"] == LISBON


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_composed_and_decomposed_names_are_one(cmt, notes, stored, typed):
    """As macOS, zip files and Syncthing leave them, within one path too."""
    folder = notes / unicodedata.normalize("NFC", "Grüße")
    folder.mkdir()
    (folder / unicodedata.normalize(stored, "café.md")).write_text("Two eggs and a roll.")
    cmt("add", folder)
    given = unicodedata.normalize(typed, "Grüße/café.md")
    assert "Two eggs" in cmt("show", f"notes/{given}").stdout
    assert "Two eggs" in cmt("show", unicodedata.normalize(typed, "café.md")).stdout
    assert len(cmt("list", "--source", f"notes/{given}").stdout.splitlines()) == 1
    assert (
        len(
            cmt(
                "search",
                "--mode",
                "text",
                "eggs",
                "--source",
                unicodedata.normalize(typed, "*café.md"),
            ).stdout.splitlines()
        )
        == 2
    )
    cmt("forget", "--source", unicodedata.normalize(typed, "*café.md"), "--yes")
    assert there(cmt) == []


def test_what_fits_several_lists_them(filled, notes):
    """With the ids, one of which goes on."""
    (notes / "deep" / "trip.md").write_text("Another trip.")
    filled("add", notes)
    said = filled("rm", "trip.md", code=2).stderr
    assert "'trip.md' fits 2 documents" in said
    assert "notes/trip.md" in said
    assert "notes/deep/trip.md" in said
    first = filled.json("list", "--source", "notes/trip.md")["id"]
    assert first[:8] in said
    filled("rm", "deep/trip.md")
    assert LISBON in filled("show", "trip.md").stdout


def test_one_source_in_two_scopes_tells_them_apart(filled, notes):
    """The candidates have their scopes."""
    filled("add", notes, "--scope", "user/ann")
    assert "(user/ann)" in filled("show", "notes/trip.md", code=2).stderr


def test_an_id_comes_before_the_end_of_a_path(cmt):
    """What worked before means the same."""
    with open_fake(cmt.home / "default") as memory:
        memory.add(LISBON, id="cafe0000")
        memory.add(PORTO, source="/x/cafe")
    assert LISBON in cmt("show", "cafe").stdout


def test_nothing_is_found_where_nothing_fits(filled):
    """The error says how sources look and how to look for a part of one."""
    said = filled("show", "tripp.md", code=3).stderr
    assert "begins with 'tripp.md'" in said
    assert "`cmt list --source '*PART*'`" in said


def test_updating_by_a_path_alone_names_the_command(filled, notes):
    """A changed file is taken in by `cmt add`."""
    assert "`cmt add notes/trip.md`" in filled("update", "notes/trip.md", code=2).stderr
    assert "`cmt add FILE`" in filled("update", "3f2a", code=2).stderr
    assert filled.json("update", "notes/trip.md", "--text", PORTO)["version"] == 2


def test_taking_out_by_a_filter(filled):
    """`rm` takes those of `forget`, and asks as it does."""
    assert (
        "give a document or a filter, not both"
        in filled("rm", "trip.md", "--source", "*", code=2).stderr
    )
    assert "give a document (its id, path or source)" in filled("rm", code=2).stderr
    assert "--yes" in filled("rm", "--source", "*", "--json", code=2).stderr
    assert (
        "nothing was removed" in filled("rm", "--source", "*/trip.md", stdin="n\n", code=1).stderr
    )
    assert "no document fits" in filled("rm", "--source", "*/trap.md", "--yes", code=3).stderr
    filled("rm", "--source", "notes/trip.md", stdin="y\n")
    assert there(filled) == ["Apple cake.md"]
    assert len(filled.json("rm", "--scope", "", "--yes")["removed"]) == 1


def test_forgetting_says_that_the_file_is_still_there(filled, notes):
    """And what brings it back; a file that is gone is not named."""
    said = filled("forget", "notes/trip.md", "--yes").stdout
    assert (
        "1 file still in its folder: notes/trip.md; the next `cmt add` of the folder brings it"
        " back, --keep-out keeps it out" in said
    )
    assert filled("add", notes).stdout == "1 added, 0 updated, 1 unchanged\n"
    (notes / "trip.md").unlink()
    receipt = filled.json("forget", "--source", "*", "--yes")
    assert (receipt["still_there"], receipt["kept_out"]) == (
        [str(notes / "deep" / "Apple cake.md")],
        False,
    )
    assert "still in" not in filled("rm", "--source", "*", "--yes", code=3).stdout


@pytest.mark.parametrize("command", [["forget", "--yes"], ["rm"]], ids=["forget", "rm"])
def test_a_file_that_is_kept_out(filled, notes, command):
    """`add` and `watch` of its folder pass it over, until it is named itself; another scope is not
    concerned.
    """
    assert (
        "kept out from now on: notes/trip.md"
        in filled(command[0], "notes/trip.md", "--keep-out", *command[1:]).stdout
    )
    assert filled("add", notes).stdout == "0 added, 0 updated, 1 unchanged, 1 kept out\n"
    filled("watch", notes, "--once")
    assert there(filled) == ["Apple cake.md"]
    filled("add", notes, "--scope", "user/ann")
    assert there(filled) == ["Apple cake.md", "Apple cake.md", "trip.md"]
    filled("rm", "--scope", "user", "--yes")
    filled("add", "notes/trip.md")
    (notes / "trip.md").write_text(PORTO)
    assert filled("add", notes).stdout == "0 added, 1 updated, 1 unchanged\n"


def test_keeping_out_leaves_no_trace_of_the_name(filled, notes):
    """Only a keyed hash is stored; the receipt's scan finds nothing either."""
    (notes / "zanzibarquartz.md").write_text("Mongolfierplum.")
    filled("add", notes)
    receipt = filled.json("forget", "zanzibarquartz.md", "--keep-out", "--yes")
    assert receipt["traces_found"] == 0
    assert not any(
        b"zanzibarquartz" in f.read_bytes() for f in filled.home.rglob("*") if f.is_file()
    )


def test_what_is_kept_out_can_be_asked_for_in_python(tmp_path):
    """For programs that add folders themselves."""
    with open_fake(tmp_path / "m") as memory:
        memory.keep_out(["/n/a.md", "/n/café.md"], scope="u")
        assert memory.kept_out(
            ["/n/a.md", "/n/b.md", unicodedata.normalize("NFD", "/n/café.md")], scope="u"
        ) == [
            "/n/a.md",
            unicodedata.normalize("NFD", "/n/café.md"),
        ]
        assert memory.kept_out(["/n/a.md"]) == []
        memory.keep_out(["/n/a.md"], scope="u", out=False)
    with open_fake(tmp_path / "m") as memory:
        assert memory.kept_out(["/n/a.md", "/n/café.md"], scope="u") == ["/n/café.md"]


@pytest.mark.parametrize("command", [["add"], ["watch", "--once"]], ids=["add", "watch"])
@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["deep"], ["trip.md"]),
        (["deep/"], ["trip.md"]),
        (["*.md"], []),
        (["deep/*", "x*"], ["trip.md"]),
        (["*cake*"], ["trip.md"]),
        (["nothing"], ["Apple cake.md", "trip.md"]),
    ],
)
def test_what_is_excluded_stays_out(cmt, notes, command, patterns, left):
    """A folder, a kind, a name; given more than once."""
    (notes / "keep.txt").write_text("Kept.")
    cmt(*command, notes, *(word for pattern in patterns for word in ("--exclude", pattern)))
    assert there(cmt) == sorted(["keep.txt", *left])


def test_what_is_remembered_stays_up_to_date_when_it_is_excluded(filled, notes):
    """Leaving new files out makes no old text answer."""
    (notes / "trip.md").write_text(PORTO)
    filled("add", notes, "--exclude", "*.md")
    assert PORTO in filled("show", "trip.md").stdout


def test_a_long_path_is_no_name(filled):
    """What cannot be a path is looked for all the same."""
    assert "begins with" in filled("show", "x" * 5000, code=3).stderr
    assert "begins with" in filled("show", os.sep, code=3).stderr
    assert "begins with" in filled("show", "", code=3).stderr
