"""Erasing within a large database: what is forgotten is overwritten where it stands, and the rest
stays as it was.
"""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cmt_sdk.storage import erasure, unused_bytes
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import Filter
from tests.contract.stores import Clock, encoded, found, put, spans

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "juniper",
    "kelp",
    "larch",
    "meadow",
]


@pytest.fixture
def store(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteStore]:
    """A store that takes every database for a large one."""
    monkeypatch.setattr(erasure, "SMALL", 0)
    monkeypatch.setattr(erasure, "LARGELY", 1)
    opened = SQLiteStore(tmp_path / "notes", clock=clock)
    yield opened
    opened.close()


def prose(chance: random.Random, name: str) -> str:
    """A text of one sentence that holds a name, some hundreds of bytes long."""
    return f"{name} {' '.join(chance.choices(WORDS, k=chance.randrange(30, 250)))}."


def crowd(store: SQLiteStore, count: int) -> dict[str, str]:
    """Documents that grew and shrank, so that SQLite moved rows between pages; their last texts by
    id.
    """
    chance = random.Random(7)
    for n in range(count):
        put(store, prose(chance, f"quidnunc{n:04d}"), id=f"d{n}", source=f"files/f{n}.md")
    compress(store)
    texts = {}
    for n in chance.sample(range(count), count):
        texts[f"d{n}"] = prose(chance, f"quidnunc{n:04d}")
        store.replace(f"d{n}", {"text": texts[f"d{n}"]}, spans(texts[f"d{n}"]))
    compress(store)
    return texts


def compress(store: SQLiteStore) -> None:
    """Give each pending passage a memory of its own."""
    ids = [p.id for p in store.pending(1_000)]
    store.save({i: encoded(i % 200) for i in ids}, FINGERPRINT)


def everything(folder: Path) -> bytes:
    """All bytes of a folder."""
    return b"".join(f.read_bytes() for f in sorted(folder.iterdir()))


def database(store: SQLiteStore) -> Path:
    """The file of a store."""
    return next(iter(store._folder.glob("memory.db")))


def test_copies_of_rows_that_moved_between_pages_are_cleared(tmp_path):
    """SQLite overwrites what it deletes, but not the copies that it left in the gaps of pages."""
    file = tmp_path / "rows.db"
    chance = random.Random(0)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "secure_delete = ON"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body)")
        db.execute("CREATE INDEX by_body ON rows (body)")
        order = chance.sample(range(3000), 3000)
        for n in order:
            body = f"quidnunc{n:04d}" + "x" * chance.randrange(200, 1200)
            db.execute("INSERT INTO rows VALUES (?, ?)", (n, body))
        for n in order[:1000]:
            body = f"quidnunc{n:04d}" + "y" * chance.randrange(200, 2500)
            db.execute("UPDATE rows SET body = ? WHERE id = ?", (body, n))
        db.executemany("DELETE FROM rows WHERE id = ?", [(n,) for n in order[:2000]])
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        left = file.read_bytes()
        assert [n for n in order[:2000] if b"quidnunc%04d" % n in left] != []
        assert unused_bytes.clear_elsewhere(file, 5)
        left = file.read_bytes()
        assert [n for n in order[:2000] if b"quidnunc%04d" % n in left] == []
        assert all(b"quidnunc%04d" % n in left for n in order[2000:])
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_forgotten_documents_are_in_no_byte_of_a_large_database(store, tmp_path):
    """They are overwritten where they stand; the file is not rewritten."""
    texts = crowd(store, 150)
    gone = random.Random(1).sample(sorted(texts), 60)
    before = database(store).stat().st_ino, database(store).stat().st_size
    removed = store.delete(Filter(ids=gone)).versions
    assert store.erase(30)
    after = database(store).stat().st_ino, database(store).stat().st_size
    assert after[0] == before[0]
    assert after[1] >= before[1]  # not rewritten: its free pages are used again
    data = everything(tmp_path / "notes").lower()
    assert [n for n in gone if f"quidnunc{int(n[1:]):04d}".encode() in data] == []
    assert store.find_traces(removed)[1] == 0


def test_what_remains_is_as_it_was(store, tmp_path):
    """Texts, histories, passages, memories, and an index and a database that are consistent."""
    texts = crowd(store, 80)
    gone = set(random.Random(2).sample(sorted(texts), 30))
    kept = sorted(set(texts) - gone)
    passages = [p.id for n in kept for p in store.passages_of(n)]
    memories = store.load(passages, FINGERPRINT)
    store.delete(Filter(ids=sorted(gone)))
    assert store.erase(30)
    assert {n: store.history(n)[-1].text for n in kept} == {n: texts[n] for n in kept}
    assert all(len(store.history(n)) == 2 for n in kept)
    assert store.load(passages, FINGERPRINT).keys() == memories.keys()
    assert [f for f in store.check() if not f.ok] == []
    assert found(store, f"quidnunc{int(kept[0][1:]):04d}")[0] == texts[kept[0]]
    with closing(sqlite3.connect(database(store))) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_erased_words_leave_the_full_text_index(store):
    """Its vocabulary has those of the remaining documents alone."""
    crowd(store, 40)
    store.delete(Filter(ids=["d7"]))
    assert store.erase(30)
    with closing(sqlite3.connect(database(store))) as db:
        db.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, passage_text, row)")
        words = {row[0] for row in db.execute("SELECT term FROM words")}
    assert ("quidnunc0007" in words, "quidnunc0008" in words) == (False, True)


def test_free_pages_of_a_database_written_without_overwriting_are_cleared(store, tmp_path):
    """Another program deleted a table and left its rows in free pages."""
    crowd(store, 20)
    with closing(sqlite3.connect(database(store))) as db:
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("CREATE TABLE theirs (a)")
        db.executemany("INSERT INTO theirs VALUES (?)", [["zanzibarquartz" * 900]] * 9)
        db.commit()
        db.execute("DROP TABLE theirs")
        db.commit()
    assert store.erase(30)
    assert b"zanzibarquartz" not in everything(tmp_path / "notes")


def test_another_process_does_not_bring_back_what_its_cache_holds(store, tmp_path):
    """A second connection has read the pages before; its next write begins from the cleared ones."""
    texts = crowd(store, 80)
    gone = random.Random(1).sample(sorted(texts), 40)
    other = SQLiteStore(tmp_path / "notes")
    assert len(other.page(Filter(), 500, None).documents) == 80
    store.delete(Filter(ids=gone))
    assert other.count(Filter()) == 40
    assert len(other.page(Filter(), 500, None).documents) == 40
    assert store.erase(30)
    for n in sorted(set(texts) - set(gone)):
        other.replace(n, {"metadata": {"seen": True}})
    other.close()
    store.close()
    data = everything(tmp_path / "notes").lower()
    assert [n for n in gone if f"quidnunc{int(n[1:]):04d}".encode() in data] == []


def test_a_reader_of_the_old_state_delays_the_erasure(store):
    """The call says so; without the reader it succeeds."""
    crowd(store, 20)
    with closing(sqlite3.connect(database(store), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM documents").fetchall()
        store.delete(Filter(ids=["d3"]))
        assert not store.erase(0.05)
        reader.execute("ROLLBACK")
    assert store.erase(0.05)


def test_a_database_that_cannot_be_cleared_in_place_is_rewritten(store, tmp_path, monkeypatch):
    """The promise does not depend on the other process."""
    crowd(store, 40)
    monkeypatch.setattr(erasure, "clear_elsewhere", lambda *_: None)
    size = database(store).stat().st_size
    store.delete(Filter(ids=[f"d{n}" for n in range(20)]))
    assert store.erase(30)
    assert database(store).stat().st_size < size
    assert b"quidnunc0007" not in everything(tmp_path / "notes")


def test_a_page_that_is_not_as_the_format_says_is_refused(store, tmp_path):
    """Nothing is overwritten on a guess."""
    crowd(store, 40)
    store.close()
    copy = tmp_path / "copy.db"
    data = bytearray(database(store).read_bytes())
    data[4096] = 7  # the kind of page 2
    copy.write_bytes(data)
    with copy.open("rb") as file, pytest.raises(ValueError, match="a page of kind 7"):
        list(unused_bytes.unused(file, [2]))


def test_a_database_that_is_largely_free_is_rewritten(store, monkeypatch):
    """Forgetting most of a memory makes its file smaller."""
    crowd(store, 100)
    monkeypatch.setattr(erasure, "LARGELY", 4)
    size = database(store).stat().st_size
    store.delete(Filter(ids=[f"d{n}" for n in range(10, 100)]))
    assert store.erase(30)
    assert database(store).stat().st_size < size // 2


def test_a_database_that_is_half_cleared_is_whole(store, tmp_path):
    """A kill between two writes does no damage: SQLite reads none of the bytes that are cleared."""
    crowd(store, 40)
    store.delete(Filter(ids=[f"d{n}" for n in range(0, 40, 3)]))
    store.close()
    file = tmp_path / "notes" / "memory.db"
    with closing(sqlite3.connect(file)) as db:
        before = list(db.iterdump())
        roots = [r[0] for r in db.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 0")]
    with file.open("r+b") as data:
        places = list(unused_bytes.unused(data, [1, *roots]))
        for at, length in places[::2]:
            data.seek(at)
            data.write(bytes(length))
    assert len(places) > 1
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert list(db.iterdump()) == before
