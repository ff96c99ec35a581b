"""A memory that the default model made at commit 7c39732, before everyday documents and before the
renames, is opened, read and repaired.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import cmt_sdk

pytestmark = pytest.mark.model

STORE = Path(__file__).parent / "stores" / "7c39732" / "notes"
ASKED = {
    "Where did the museum move?": ("museum", "Lisbon"),
    "Where does the boat Esmeralda lie?": ("boat", "Faro"),
    "Who built the harbour of Genoa?": ("harbour", "Doria"),
    "Who repaired the Tervo lighthouse lamp?": ("lamp", "Ilse Brandt"),
}


@pytest.fixture
def folder(tmp_path):
    """A copy of the folder: opening it brings its layout up to date."""
    return Path(shutil.copytree(STORE, tmp_path / "notes"))


def test_a_memory_of_commit_7c39732_opens_and_answers(folder):
    """Answers come from the stored memories: nothing is compressed again."""
    with cmt_sdk.open(folder) as memory:
        assert memory.stats().pending == 0
        for question, (name, words) in ASKED.items():
            answer = memory.model.ask(question)
            assert words in answer.text
            assert answer.sources[0].document_id == name
        assert [d.text.partition(" lies in ")[2] for d in memory.history("boat")] == [
            "Porto and belongs to Ines.",
            "Faro and belongs to Ines.",
        ]
        assert all(found.ok for found in memory.check())


def test_a_memory_of_commit_7c39732_is_repaired(folder):
    """A damaged memory of a passage is dropped by `repair` and made again from the text."""
    with closing(sqlite3.connect(folder / "memory.db", isolation_level=None)) as db:
        db.execute("UPDATE memories SET data = x'00' WHERE passage_id = 1")
    cmt_sdk.repair(folder)
    with cmt_sdk.open(folder) as memory:
        memory.finish_repair()
        assert all(found.ok for found in memory.check())
        assert "Lisbon" in memory.model.ask("Where did the museum move?").text
