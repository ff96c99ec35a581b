"""How often the two central calls go to the store: each story goes there once for each thing it
needs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from types import SimpleNamespace

import pytest

from cmt_sdk.storage import document_rows
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import open_fake
from cmt_sdk.types import Document

LISBON = "The museum moved to Lisbon in 2019."
GENOA = "The harbour of Genoa opens at nine."


@pytest.fixture
def counted(monkeypatch):
    """Transactions by how they begin, "hash" for each text that is hashed, and a "load" for each
    memory that is read and unpacked.
    """
    counts = Counter()
    transaction, load = SQLiteStore._transaction, SQLiteStore.load

    def begun(self, begin, end, **options):
        counts[begin] += 1
        return transaction(self, begin, end, **options)

    def hashed(data=b""):
        counts["hash"] += data in (LISBON.encode(), GENOA.encode())
        return hashlib.sha256(data)

    def loaded(self, passage_ids, reader):
        counts.update(("load", i) for i in passage_ids)
        return load(self, passage_ids, reader)

    monkeypatch.setattr(SQLiteStore, "_transaction", begun)
    monkeypatch.setattr(SQLiteStore, "load", loaded)
    monkeypatch.setattr(document_rows, "hashlib", SimpleNamespace(sha256=hashed))
    return counts


def loads(counts):
    """How often each passage's memory was loaded."""
    return {key[1]: n for key, n in counts.items() if isinstance(key, tuple)}


def transactions(counts):
    """Transactions that read, transactions that write, and texts that are hashed."""
    return counts["BEGIN"], counts["BEGIN IMMEDIATE"], counts["hash"]


@pytest.fixture
def memory(tmp_path, counted):
    with open_fake(tmp_path, rerank=4) as opened:
        counted.clear()
        yield opened


def test_adding_a_text_takes_one_write_and_one_for_its_memory(memory, counted):
    """The text is hashed once, when the store is asked whether it has it."""
    memory.add(LISBON)
    assert transactions(counted) == (8, 2, 1)


def test_adding_a_known_text_takes_one_write(memory, counted):
    """With the same fields its time of update changes, with others those do, too."""
    memory.add(LISBON)
    counted.clear()
    memory.add(LISBON)
    assert transactions(counted) == (3, 1, 1)
    counted.clear()
    memory.add(LISBON, metadata={"a": 1})
    assert transactions(counted)[1:] == (1, 1)


def test_reading_an_unchanged_file_again_writes_nothing(memory, counted):
    """One read shows that the file is stored as it is."""
    memory.add_many([Document(GENOA, source="a.md")], replace=True)
    counted.clear()
    progress = memory.add_many([Document(GENOA, source="a.md")], replace=True)
    assert progress.unchanged == 1
    assert transactions(counted) == (1, 0, 1)


def test_the_next_version_of_a_file_takes_one_write_and_one_for_its_memory(memory, counted):
    """As a new text does."""
    memory.add_many([Document(GENOA, source="a.md")], replace=True)
    counted.clear()
    memory.add_many([Document(LISBON, source="a.md")], replace=True)
    assert transactions(counted)[1:] == (2, 1)


def test_an_answer_loads_each_memory_once(memory, counted):
    """The reader gets the memories that ranking has loaded."""
    memory.add_many([LISBON, GENOA])
    counted.clear()
    assert "Lisbon" in memory.model.ask("Where did the museum move?").text
    assert sorted(loads(counted).values()) == [1, 1]
