"""How often the two central calls go to the store: each story goes there once for each thing it
needs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from types import SimpleNamespace

import pytest

from cmt_sdk.storage import documents
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
    monkeypatch.setattr(documents, "hashlib", SimpleNamespace(sha256=hashed))
    return counts


def loads(counts):
    """How often each passage's memory was loaded."""
    return {key[1]: n for key, n in counts.items() if isinstance(key, tuple)}


def test_show(tmp_path, counted):
    with open_fake(tmp_path, rerank=4) as memory:
        counted.clear()
        memory.add(LISBON)
        print("add", counted)
        counted.clear()
        memory.add(LISBON)
        print("again", counted)
        counted.clear()
        memory.add(LISBON, metadata={"a": 1})
        print("again, with fields", counted)
        counted.clear()
        memory.add_many([Document(GENOA, source="a.md")], replace=True)
        print("add_many", counted)
        counted.clear()
        memory.model.ask("Where did the museum move?")
        print("ask", counted)
