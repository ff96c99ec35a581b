"""`cmt` with the address of a database where a folder can be."""

import os

import pytest
from sqlalchemy import make_url

from tests import postgres

LISBON = "The museum moved to Lisbon in 2019."


@pytest.fixture
def address(monkeypatch) -> str:
    """The address of an empty database, in CMT_MEMORY too."""
    made = postgres.shared()
    made.empty()
    monkeypatch.setenv("CMT_MEMORY", os.fspath(made.address))
    return os.fspath(made.address)


def test_the_commands_work_over_a_database(cmt, address, tmp_path):
    """Named by -m or CMT_MEMORY: from the first file to the receipt."""
    (tmp_path / "notes").mkdir()
    file = tmp_path / "notes" / "trip.md"
    file.write_text(LISBON)
    cmt("create", code=None)
    assert cmt("add", file.parent).stdout == "1 added, 0 updated, 0 unchanged\n"
    assert cmt("add", file.parent, "-m", address).stdout == "0 added, 0 updated, 1 unchanged\n"
    assert cmt("ask", "Where did the museum move?").stdout.startswith(LISBON)
    assert LISBON in cmt("search", "museum").stdout
    assert cmt.json("list")["source"] == file.as_posix()
    assert cmt("compress").exit_code == cmt("reindex").exit_code == 0
    assert "1 document in" in cmt("export", tmp_path / "all.cmt").stdout
    receipt = cmt.json("forget", file, "--yes")
    assert (receipt["versions"], receipt["traces_found"], receipt["complete"]) == (1, 0, True)
    assert "1 added" in cmt("import", tmp_path / "all.cmt").stdout
    assert cmt("rm", file, "--yes", code=None).exit_code == 0


def test_what_is_for_folders_names_its_alternative(cmt, address, tmp_path):
    """An error of one line, not a traceback."""
    cmt("create", code=None)
    refused = cmt("backup", tmp_path / "copy", code=2)
    assert "pg_dump --schema=cmt" in refused.stderr
    refused = cmt("check", "--repair", code=2)
    assert "repaired by its server" in refused.stderr
    absent = make_url(address).set(database="nothing").render_as_string(hide_password=False)
    refused = cmt("list", "-m", absent, code=5)
    assert "there is no connection to postgresql+psycopg://cmt_" in refused.stderr
    assert "check the address" in refused.stderr


def test_no_command_shows_the_password(cmt, address):
    """Not in what it prints, with --json neither."""
    cmt("create", code=None)
    cmt("add", "--text", LISBON)
    for command in ("stats", "config", "check", "create", "list"):
        for form in ((), ("--json",)):
            done = cmt(command, *form, code=None)
            assert postgres.PASSWORD not in done.output
    assert cmt.json("stats")["path"].startswith("postgresql+psycopg://cmt_")
