"""SQLiteStore: its database file, what is left in it after erasing, its checks, and its errors."""

import errno
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cmt_sdk.errors import (
    MemoryNotFound,
    StorageDamaged,
    StorageDenied,
    StorageFull,
    StorageLocked,
    StorageNewer,
)
from cmt_sdk.storage.disk_errors import translated
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import Document, Filter
from cmt_sdk.types.vectors import ChangeCounters
from tests.contract.stores import (
    GENOA,
    LISBON,
    Clock,
    drop_objects,
    encoded,
    found,
    put,
    run_together,
    save_all,
    spans,
)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "notes", clock=clock)
    yield opened
    opened.close()


# -- documents -----------------------------------------------------------------------------------


def test_an_expired_document_is_gone_in_every_way(store, clock):
    """From its expiry on: not listed, counted, found or compressed, its id and text are free; its
    history stays.
    """
    expiry = clock.time + timedelta(hours=1)
    document = put(store, id="a", source="s", expires_at=expiry)
    (passage,) = save_all(store)
    put(store, "It never got compressed.", expires_at=expiry)
    before = store.change_counters()
    assert store.vectors(ChangeCounters()).passage_ids == [passage]
    clock.time = expiry
    assert store.page(Filter(), 10, None).documents == []
    assert store.count(Filter()) == store.stats().documents == store.stats().pending == 0
    assert (store.passages([passage]), store.pending(10), store.choose(Filter())) == ({}, [], set())
    assert found(store, "museum") == []
    assert (
        store.vectors(before).live,
        store.vectors(ChangeCounters()).passage_ids,
        store.alive(),
    ) == (
        set(),
        [],
        0,
    )
    assert store.change_counters() != before
    assert all(f.ok for f in store.check())
    assert store.history("a") == [replace(document, ready=True)]
    again = put(store, GENOA, id="a")
    assert store.history("a") == [again]
    assert store.add(Document("It never got compressed."), [])[1] == "added"


def test_a_damaged_document_hides_no_other_and_can_be_deleted(store, tmp_path):
    """Bytes that are no text, metadata that is no JSON."""
    put(store, id="a")
    put(store, GENOA, id="b")
    put(store, "Well.", id="c")
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db, db:
        db.execute("UPDATE documents SET text = CAST(x'4D75FF73' AS TEXT) WHERE doc_id = 'a'")
        db.execute("UPDATE documents SET metadata = '{' WHERE doc_id = 'b'")
    assert store.page(Filter(ids=["a", "c"]), 9, None).documents[0].text == "Mu\ufffds"
    assert [f.check for f in store.check() if not f.ok] == ["texts", "records", "metadata"]
    assert [d.id for d in store.delete(Filter(ids=["a", "b"])).versions] == ["a", "b"]
    assert [d.id for d in store.page(Filter(), 9, None).documents] == ["c"]


def test_more_documents_than_one_list_of_sql_takes(store, monkeypatch):
    """They go in several lists, in one transaction."""
    monkeypatch.setattr("cmt_sdk.storage.connection.MANY", 3)
    for i in range(11):
        put(store, f"Fact {i}.", id=str(i))
    removed = store.delete(Filter(ids=[str(i) for i in range(10)]))
    assert (len(removed.versions), removed.passages) == (10, 10)
    assert [d.id for d in store.page(Filter(), 10, None).documents] == ["10"]


# -- passages, memories, vectors -----------------------------------------------------------------


def test_a_passage_waits_no_longer_once_it_has_a_vector(store, tmp_path):
    """Whatever another program wrote into the table: saving ends the waiting."""
    put(store)
    (a,) = save_all(store)
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db, db:
        db.execute("INSERT INTO waiting VALUES (?)", [a])
    assert save_all(store) == [a]
    assert store.pending(9) == []


def test_a_damaged_memory_is_as_good_as_cold(store, tmp_path, caplog):
    """It is left out, with a warning, so that it is made again from the text; the check-up names
    it.
    """
    put(store, GENOA)
    a, b = save_all(store)
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db, db:
        db.execute(
            "UPDATE memories SET data = CAST(substr(data, 1, 80) || x'00' AS BLOB) WHERE"
            " passage_id = ?",
            [a],
        )
    assert store.load([a, b], FINGERPRINT).keys() == {b}
    assert store.encodings([a, b]).keys() == {b}
    assert f"the compressed form of passage {a} is damaged" in caplog.text
    (finding,) = [f for f in store.check() if not f.ok]
    assert (finding.check, f"passage {a}" in finding.detail) == ("memories", True)
    store.save({a: encoded(a)}, FINGERPRINT)
    assert store.load([a, b], FINGERPRINT).keys() == {a, b}


# -- forgetting ----------------------------------------------------------------------------------


TOLD = "Wilhelmina keeps the zanzibarquartz under the mongolfière."


TRACES = (b"zanzibarquartz", b"wilhelmina", b"mongolfi", b"quartzitic", b"geheimakte")


def scrub(store: SQLiteStore, filter: Filter) -> tuple[list[str], int]:
    """Delete, erase, look: the files and the traces left in them."""
    removed = store.delete(filter)
    assert store.erase(30)
    return store.find_traces(removed.versions)


def everything(folder: Path) -> bytes:
    """All bytes of a folder, in lower case."""
    return b"".join(f.read_bytes().lower() for f in sorted(folder.iterdir()))


def test_scrubbed_text_is_in_no_byte_of_the_folder(store, tmp_path):
    """Not in rows, history, the full-text index, the log, nor free pages, though another process
    has the folder open.
    """
    folder = tmp_path / "notes"
    other = SQLiteStore(folder)
    for i in range(100):
        put(store, f"Fact {i} of the quarterly report.")
    document = put(store, TOLD, source="geheimakte.md", metadata={"k": "quartzitic"})
    save_all(store)
    store.replace(
        document.id, {"text": "The zanzibarquartz is gone."}, spans("The zanzibarquartz is gone.")
    )
    assert other.count(Filter()) == 101
    assert all(t in everything(folder) for t in TRACES)
    files, traces = scrub(store, Filter(ids=[document.id]))
    assert (sorted(files), traces) == (["memory.db", "memory.db-shm", "memory.db-wal"], 0)
    assert [t for t in TRACES if t in everything(folder)] == []
    assert found(other, "report")
    assert found(other, "zanzibarquartz") == []
    other.close()
    store.close()
    assert [t for t in TRACES if t in everything(folder)] == []


def test_what_other_programs_left_in_free_pages_goes_too(store, tmp_path):
    """A database that was written without overwriting is written anew."""
    folder = tmp_path / "notes"
    with closing(sqlite3.connect(folder / "memory.db")) as db:
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("CREATE TABLE theirs (a)")
        db.execute("INSERT INTO theirs VALUES (?)", [TOLD * 100])
        db.commit()
        db.execute("DELETE FROM theirs")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"zanzibarquartz" in everything(folder)
    assert store.erase(0)
    assert store.find_traces([Document(TOLD)])[1] == 0
    assert b"zanzibarquartz" not in everything(folder)


def test_deleted_text_is_overwritten_even_without_scrubbing(store, tmp_path):
    """A document that was only deleted is in no free page; words may stay in the full-text index
    until scrubbed.
    """
    document = put(store, TOLD * 200)
    store.delete(Filter(ids=[document.id]))
    store.close()
    assert b"keeps the zanzibarquartz under" not in everything(tmp_path / "notes")


def test_scrubbed_words_leave_the_full_text_index(store, tmp_path):
    """FTS5 stores stems behind shared beginnings, which no byte scan sees: its own vocabulary is
    asked.
    """
    put(store, "The quarterly reports.")
    document = put(store, TOLD)
    scrub(store, Filter(ids=[document.id]))
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db:
        db.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, passage_text, row)")
        db.execute("CREATE VIRTUAL TABLE temp.forms USING fts5vocab(main, passage_forms, row)")
        assert [r[0] for r in db.execute("SELECT term FROM words")] == [
            "quarterli",
            "report",
            "the",
        ]
        grams = ["art", "erli", "quar", "rter", "terl", "uart"]  # of "quarterly"
        assert [r[0] for r in db.execute("SELECT term FROM forms")] == grams
        db.execute("INSERT INTO passage_text (passage_text) VALUES ('integrity-check')")
        db.execute("INSERT INTO passage_forms (passage_forms) VALUES ('integrity-check')")
        assert db.execute("PRAGMA freelist_count").fetchone() == (0,)


def test_scrub_tells_what_is_left(store, tmp_path):
    """A copy of the text that the store does not know of is counted, in either case of letters, and
    across blocks.
    """
    document = put(store, TOLD)
    (tmp_path / "notes" / "copy.bin").write_bytes(
        b"x" * ((1 << 22) - 5) + b"zanzibarquartz" + b"y" * 100 + b"wilhelmina"
    )
    files, traces = scrub(store, Filter(ids=[document.id]))
    assert (sorted(files)[0], traces) == ("copy.bin", 2)


@pytest.mark.parametrize(
    ("forgotten", "remaining"),
    [
        # words of our own schema
        ("The documents, versions and metadata of this memory.", "Nothing."),
        ("A planet.", "The planetarium."),  # a word within a longer one
        ("The PLANETARIUM.", "A Planetarium!"),
        ("One two six.", "One two six, one two six."),  # no long word: pieces of the text
        ("Hm.", "Hm, hm."),
    ],
)
def test_what_something_else_holds_is_no_trace(store, forgotten, remaining):
    """The receipt must not cry wolf over words that stay for good reasons."""
    put(store, remaining, metadata={"k": "v"})
    store.set_settings({"compression": 4})
    document = put(store, forgotten)
    assert scrub(store, Filter(ids=[document.id]))[1] == 0


def test_a_text_that_lives_on_in_another_scope_is_no_trace(store):
    """Forgetting one of two equal texts leaves the other."""
    document = put(store, TOLD, scope="u/ann")
    put(store, TOLD, scope="u/bob")
    assert scrub(store, Filter(ids=[document.id]))[1] == 0
    assert found(store, "zanzibarquartz") == [TOLD]


def test_short_words_beside_long_ones_that_live_on_are_looked_for(store, tmp_path):
    """A document whose long words others hold too is found by pieces of its text."""
    put(store, "The password is in the envelope.")
    document = put(store, "Password: ab1 cd2 ef3 gh4 ij5 kl6 mn7 op8")
    (tmp_path / "notes" / "copy.bin").write_bytes(document.text.encode())
    assert scrub(store, Filter(ids=[document.id]))[1] > 0


def test_a_reader_in_another_connection_delays_no_truth(store, tmp_path):
    """While someone still reads the old state its bytes are in the files, and the count says so;
    later they go.
    """
    document = put(store, TOLD)
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM documents").fetchall()
        removed = store.delete(Filter(ids=[document.id])).versions
        assert not store.erase(0.05)
        assert store.find_traces(removed)[1] > 0
        reader.execute("ROLLBACK")
    assert store.erase(0.05)
    assert store.find_traces(removed)[1] == 0
    assert b"zanzibarquartz" not in everything(tmp_path / "notes")


OTHERS_TURN = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    other.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""


def test_looking_for_traces_keeps_the_locks_of_the_database(store, tmp_path):
    """Closing a handle on the file in this process would drop them, and let another process write
    in between.
    """
    removed = [put(store, TOLD)]
    file = str(tmp_path / "notes" / "memory.db")
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        store.find_traces(removed)
        said = subprocess.run(
            [sys.executable, "-c", OTHERS_TURN, file], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == "database is locked"
        writer.execute("ROLLBACK")


# -- the folder ----------------------------------------------------------------------------------


def test_a_healthy_memory_is_found_healthy(store):
    """Every check is told, and what waits is told with its command."""
    put(store)
    assert [(f.check, f.remedy) for f in store.check() if f.remedy] == [
        ("compression", "cmt compress")
    ]
    save_all(store)
    checks = {f.check: f.ok for f in store.check()}
    texts, vectors = (
        ("texts", "records", "metadata", "passages", "full-text search"),
        (
            "fingerprints",
            "embeddings",
            "memories",
        ),
    )
    names = (
        "files",
        "database",
        "index",
        "references",
        "settings",
        "compression",
        "copies",
        *texts,
        *vectors,
    )
    assert checks == dict.fromkeys(names, True)


def test_a_text_that_lost_a_bit_is_found(store, tmp_path):
    """SQLite has no checksums of its own; ours tells which document is not what was stored."""
    put(store, id="hurt")
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db, db:
        db.execute("UPDATE documents SET text = replace(text, 'Lisbon', 'Lisbom')")
    (finding,) = [f for f in store.check() if f.check == "texts"]
    assert (finding.ok, finding.detail) == (False, "not as they were stored: hurt")


def changed_records(store: SQLiteStore) -> str:
    """What the check-up says of the fields beside the texts; empty when all is well."""
    (finding,) = [f for f in store.check() if f.check == "records"]
    return "" if finding.ok else finding.detail.split(": ")[1]


ONE_BIT = {
    "metadata": (
        "UPDATE documents SET metadata = replace(metadata, '1', '3') WHERE doc_id = 'hurt' AND"
        " current"
    ),
    "its type": (
        "UPDATE documents SET metadata = CAST(metadata AS BLOB) WHERE doc_id = 'hurt' AND current"
    ),
    "time": (
        "UPDATE documents SET updated_at = updated_at + 1.0 / 4194304 WHERE doc_id = 'hurt' AND"
        " current"
    ),
    "source": "UPDATE documents SET source = 'c.md' WHERE doc_id = 'hurt' AND version = 1",
    "hash": "UPDATE documents SET record_hash = NULL WHERE doc_id = 'hurt' AND current",
}


@pytest.mark.parametrize("lost", ONE_BIT)
def test_a_bit_that_is_lost_beside_a_text_is_found(store, tmp_path, lost):
    """In metadata, times, an earlier version's source, or the hash: adding again does not hide it,
    an update by id settles it.
    """
    put(store, "Unhurt.", id="sound", source="a.md", metadata={"n": 1})
    put(store, id="hurt", source="a.md", metadata={"n": 1})
    store.replace("hurt", {"text": GENOA}, spans(GENOA))
    assert changed_records(store) == ""
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db, db:
        assert db.execute(ONE_BIT[lost]).rowcount == 1
    assert changed_records(store) == "hurt"
    put(store, GENOA, id="hurt", metadata={"m": 2})
    assert changed_records(store) == "hurt"
    store.replace("hurt", {"metadata": {"n": 1}})
    assert changed_records(store) == ""


def test_what_is_written_fits_its_hash(store, tmp_path):
    """However far off its times are, and in all versions, restored ones too."""
    times = [
        datetime(9998, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(1, 1, 2, 3, 4, 5, 678_901, UTC),
        None,
    ]
    for number, time in enumerate(times):
        old = Document(
            f"Old {number}.",
            str(number),
            source="ü\ufffd.md",
            created_at=time,
            updated_at=time,
            current=False,
        )
        store.restore(
            [old, replace(old, text=f"New {number}.", version=2, expires_at=times[0])], []
        )
        store.replace(str(number), {"text": f"Newest {number}."}, [])
        store.replace(str(number), {"metadata": {"a": 0.1, "b": None, "c": True, "d": "ü"}})
        put(store, f"Newest {number}.", id=str(number), metadata={"e": 1})
    assert changed_records(store) == ""
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db:
        assert db.execute(
            "SELECT count(*), count(DISTINCT record_hash) FROM documents"
        ).fetchone() == (9, 9)


def test_folder_names_are_only_names(tmp_path, monkeypatch):
    """Signs that mean something in an address or in SQL do not here; a relative folder stays where
    it was.
    """
    for name in ("what?mode=ro", "a#b", "100%", "it's", "ünï", "a b"):
        store = SQLiteStore(tmp_path / name)
        put(store)
        store.close()
        assert (tmp_path / name / "memory.db").is_file()
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore(Path("here"))
    document = put(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.erase(0)
    assert store.find_traces([])[0]
    assert store.history(document.id) == [document]
    assert store.stats().file_bytes > 0
    store.close()


def test_no_memory_there(tmp_path):
    """Without leave to make one: an error that names the folder, and nothing is made."""
    with pytest.raises(MemoryNotFound, match="nowhere"):
        SQLiteStore(tmp_path / "nowhere", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_later_database_is_refused(tmp_path):
    """Both numbers and the remedy are told; nothing in it is touched."""
    SQLiteStore(tmp_path).close()
    file = tmp_path / "memory.db"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version = 99")
    before = file.read_bytes()
    with pytest.raises(
        StorageNewer, match=r"schema 99, this release of cmt-sdk knows up to 9: update cmt-sdk"
    ):
        SQLiteStore(tmp_path)
    assert file.read_bytes() == before


def test_memories_of_schema_2_have_no_fidelity(store, tmp_path):
    """A folder of an earlier release is brought up to date: its memories stay, and new ones have
    theirs.
    """
    put(store, GENOA)
    a, b = save_all(store)
    store.close()
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db, db:
        drop_objects(db)
        db.execute("DROP INDEX by_any_content")
        db.execute("DROP INDEX by_living_scope")
        db.execute("DROP INDEX by_fidelity")
        db.execute("ALTER TABLE memories DROP COLUMN fidelity")
        db.execute("ALTER TABLE documents DROP COLUMN record_hash")
        db.execute("PRAGMA user_version = 2")
    opened = SQLiteStore(tmp_path / "notes", create=False)
    assert opened.load([a, b], FINGERPRINT).keys() == {a, b}
    opened.save({b: replace(encoded(), fidelity=0.9)}, FINGERPRINT)
    assert {i: p.fidelity for i, (p, _) in opened.passages([a, b]).items()} == {a: None, b: 0.9}
    opened.close()


def test_a_foreign_database_is_left_alone(tmp_path):
    """Another program's memory.db gets no tables of ours."""
    with closing(sqlite3.connect(tmp_path / "memory.db")) as db, db:
        db.execute("CREATE TABLE theirs (a)")
    with pytest.raises(StorageDamaged, match="something else"):
        SQLiteStore(tmp_path)
    with closing(sqlite3.connect(tmp_path / "memory.db")) as db:
        assert [r[0] for r in db.execute("SELECT name FROM sqlite_master")] == ["theirs"]


def test_a_reader_opens_while_another_process_writes(tmp_path, clock):
    """Opening takes no write lock where nothing is to be made."""
    SQLiteStore(tmp_path, clock=clock).close()
    with closing(sqlite3.connect(tmp_path / "memory.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        store = SQLiteStore(tmp_path, create=False, clock=clock)
        assert store.count(Filter()) == 0
        store.close()
        writer.execute("ROLLBACK")


@pytest.fixture
def impatient(monkeypatch, tmp_path, clock) -> Iterator[SQLiteStore]:
    """A store that waits for others for a moment only."""
    monkeypatch.setattr("cmt_sdk.storage.driver.WAIT_SECONDS", 0.05)
    store = SQLiteStore(tmp_path, clock=clock)
    yield store
    store.close()


def test_a_busy_folder(impatient, tmp_path, clock):
    """Who cannot write in time is told why; reading goes on, though the time of reading cannot be
    noted.
    """
    put(impatient)
    (passage,) = save_all(impatient)
    clock.time += timedelta(minutes=5)
    with closing(sqlite3.connect(tmp_path / "memory.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            StorageLocked, match=r"was busy for 0.05 s: another process is writing; try again"
        ):
            put(impatient, GENOA)
        assert impatient.load([passage], FINGERPRINT).keys() == {passage}
        assert found(impatient, "museum") == [LISBON]
        writer.execute("ROLLBACK")
    assert put(impatient, GENOA).version == 1


def test_a_place_that_is_no_folder(tmp_path):
    """A file where the folder should be, a folder where the file should be: denied, with the
    path.
    """
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "memory.db").mkdir(parents=True)
    for place in (tmp_path / "file", tmp_path / "file" / "in it", tmp_path / "folder"):
        with pytest.raises(StorageDenied, match=place.name):
            SQLiteStore(place)


def test_what_the_operating_system_says_is_translated(tmp_path):
    """No permission and no space, each with its own error and remedy."""
    for number, expected in (
        (errno.EACCES, StorageDenied),
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
    ):
        with pytest.raises(expected, match=str(tmp_path)) as caught, translated(tmp_path):
            raise OSError(number, "no")
        assert isinstance(caught.value.__cause__, OSError)


# -- threads -------------------------------------------------------------------------------------


def test_scrubbing_while_others_work(store):
    """Forgetting rewrites the files under the feet of readers and writers."""
    document = put(store, TOLD)

    def work() -> None:
        for n in range(10):
            put(store, f"Fact {n} from {threading.get_ident()}.")
            assert found(store, "fact")

    def forget() -> None:
        scrub(store, Filter(ids=[document.id]))

    assert run_together(work, work, forget) == []
    assert store.count(Filter()) == 20
