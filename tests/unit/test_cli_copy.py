"""`cmt copy`: names, what is printed, exit codes."""

from __future__ import annotations

import pytest

from cmt_sdk.testing.fakes import FakeEngine, open_fake

LISBON = "The museum moved to Lisbon in 2019."


@pytest.fixture
def notes(cmt):
    """A memory by the name `notes`."""
    cmt("add", "--text", LISBON, "--source", "trip.md", "-m", "notes")
    return cmt.home / "notes"


def test_a_memory_is_copied_by_its_name(cmt, notes):
    """The name of a memory stands for a folder in the data folder; a second run says so."""
    done = cmt("copy", "notes", "moved")
    assert done.stdout == (
        "1 added, 0 updated, 0 unchanged\n"
        "1 compressed passage copied\n"
        "1 document and 1 compressed passage compared by hash: no difference\n"
    )
    assert "nothing was to be copied\n" in cmt("copy", "notes", "moved").stdout
    assert cmt("list", "-m", "moved").stdout == cmt("list", "-m", "notes").stdout
    assert cmt("ask", "Where did the museum move?", "-m", "moved").stdout.startswith(LISBON)


def test_a_name_that_ends_in_cmt_is_an_archive(cmt, notes, tmp_path, monkeypatch):
    """In the current folder."""
    monkeypatch.chdir(tmp_path)
    assert "1 added" in cmt("copy", "notes", "notes.cmt").stdout
    assert (tmp_path / "notes.cmt").is_file()
    assert "1 added" in cmt("copy", "notes.cmt", "moved").stdout
    assert "no difference" in cmt("copy", "notes.cmt", "moved", "--verify").stdout
    assert "1 added" in cmt("import", "notes.cmt", "-m", "imported").stdout


def test_json_has_the_counts_and_the_exit_code_a_difference(cmt, notes):
    """1 where the target lacks something."""
    assert cmt.json("copy", "notes", "moved")["complete"] is True
    cmt("add", "--text", "Only here.", "-m", "notes")
    done = cmt.json("copy", "notes", "moved", "--verify", code=1)
    assert (done["complete"], done["differences"]) == (False, 1)
    text = cmt("copy", "notes", "moved", "--verify", code=1).stdout
    assert "1 difference\n  document " in text


def test_errors_have_their_exit_codes_and_remedies(cmt, notes, tmp_path):
    """Missing, the same, another archive, another model, two choices."""
    assert "no memory in" in cmt("copy", "nothing", "moved", code=3).stderr
    assert "source and target are both" in cmt("copy", "notes", "notes", code=2).stderr
    cmt("copy", "notes", tmp_path / "a.cmt")
    cmt("add", "--text", "More.", "-m", "notes")
    refused = cmt("copy", "notes", tmp_path / "a.cmt", code=1)
    assert "choose another name, or give --overwrite" in refused.stderr
    assert "2 added" in cmt("copy", "notes", tmp_path / "a.cmt", "--overwrite").stdout
    with open_fake(cmt.home / "other", FakeEngine.of(base="0" * 16)) as memory:
        memory.add("Of another model.")
    assert "or give --reencode" in cmt("copy", "notes", "other", code=4).stderr
    assert "exclude each other" in cmt("copy", "notes", "b", "--ours", "--both", code=2).stderr


def test_what_was_forgotten_at_the_source_is_named(cmt, notes):
    """With the command that erases it at the target."""
    cmt("copy", "notes", "moved")
    cmt("forget", "trip.md", "--yes", "-m", "notes")
    done = cmt("copy", "notes", "moved")
    assert "1 document that" in done.stderr
    assert "has forgotten still in the target" in done.stderr
    assert "`cmt forget`" in done.stderr


def test_a_plain_copy_of_an_encrypted_memory_is_warned_of(cmt, tmp_path, monkeypatch):
    """An archive is never encrypted; a new folder is."""
    pytest.importorskip("sqlcipher3")
    monkeypatch.setenv("CMT_KEY", "c3" * 32)
    cmt("create", "--encrypted", "-m", "secret")
    cmt("add", "--text", LISBON, "-m", "secret")
    assert "is not encrypted, as" in cmt("copy", "secret", tmp_path / "a.cmt").stderr
    assert cmt("copy", "secret", "moved").stderr == ""
