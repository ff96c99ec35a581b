"""`cmt backup` and `cmt check --repair`, with a fake language model."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

LISBON = "The museum moved to Lisbon in 2019."
GENOA = "The harbour of Genoa opens at nine."


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """What passes for a model on this machine."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def test_backup_to_a_folder_and_to_a_file(cmt, tmp_path):
    """The copy opens as a memory; one that is there is replaced only when asked to."""
    cmt("add", "--text", LISBON)
    assert cmt("backup", tmp_path / "copy").stdout.startswith(
        f"{tmp_path / 'copy' / 'memory.db'}, "
    )
    assert cmt("ask", "-m", tmp_path / "copy", "Where did the museum move?").stdout.startswith(
        LISBON
    )
    file = tmp_path / "copy.db"
    assert cmt.json("backup", file) == {"file": str(file), "bytes": file.stat().st_size}
    assert "--overwrite" in cmt("backup", file, code=1).stderr
    cmt("backup", file, "--overwrite")


@pytest.mark.parametrize("name", ["copy", "copy.db"])
def test_backup_makes_no_folders_to_lie_in(cmt, tmp_path, name):
    """A drive that is not mounted, or a mistyped path, is told by its name."""
    cmt("add", "--text", LISBON)
    assert (
        f"there is no folder {tmp_path / 'usb'}"
        in cmt("backup", tmp_path / "usb" / name, code=3).stderr
    )
    assert not (tmp_path / "usb").exists()


def test_check_repairs_a_damaged_database(cmt, tmp_path, model_folder):
    """A page is lost: check says so without dying of it, repair saves the documents and says what
    it did.
    """
    cmt("config", "set", "model", model_folder)
    cmt("add", "--text", LISBON)
    cmt("add", "--text", GENOA)
    file = cmt.home / "default" / "memory.db"
    with closing(sqlite3.connect(file)) as db:
        at = (
            db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'documents'").fetchone()[0]
            - 1
        ) * 4096
        index = (
            db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_scope'").fetchone()[0]
            - 1
        ) * 4096
    assert at != index
    data = bytearray(file.read_bytes())
    data[index : index + 4096] = bytes(4096)
    file.write_bytes(data)
    assert "WRONG\tdatabase" in cmt("check", code=1).stdout
    told = json.loads(cmt("check", "--repair", "--json", code=0).stdout)
    assert [f["check"] for f in told["repaired"]][:2] == ["backup", "database"]
    assert all(f["ok"] for f in told["found"])
    assert cmt("ask", "Where did the museum move?").stdout.startswith(LISBON)
    assert cmt("check", "--repair").stdout.count("repaired") == 0


def test_check_of_what_is_no_database(cmt):
    """A line that says so, and what nothing can be saved of is told as lost."""
    cmt("add", "--text", LISBON)
    (cmt.home / "default" / "memory.db").write_bytes(b"this is no database" * 1000)
    assert "WRONG\tdatabase" in cmt("check", code=1).stdout
    assert "LOST\tdatabase" in cmt("check", "--repair", code=1).stdout
