"""Compressed passages as objects: the same over SQLite and Postgres, in a folder and in obstore's
memory. test_objects_s3.py has the faults of a network.
"""

import hashlib
import logging
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from cmt_sdk.errors import InvalidSetting, StorageDenied, StorageError
from cmt_sdk.storage import bucket as buckets
from cmt_sdk.storage import objects
from cmt_sdk.storage.blob import pack
from cmt_sdk.storage.references import LARGE, Reference
from cmt_sdk.storage.repair import repair
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import DeletedObjects, Filter
from tests.contract.places import big, files_in, put_big
from tests.contract.stores import GENOA, LISBON, STORES, OpenStore, drop_objects, encoded, put

pytest.importorskip("obstore", reason="needs the extra objects")
CACHE = 10_000_000
DAY = timedelta(days=1, seconds=1)
NAMES = {seed: Reference.to(pack(big(seed).compressed)).name for seed in (1, 2, 3)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(buckets, "AGAIN", ())


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture(params=["sqlite", "postgres", "postgres_scope"])
def open_store(request, tmp_path, clock, place) -> OpenStore:
    """Opens a store that puts objects into a folder."""

    def opener(folder, clock):
        store = STORES[request.param](folder, clock)
        store.keep_objects(f"file://{place}", CACHE)
        return store

    opened = OpenStore(opener, tmp_path / "notes", clock)
    yield opened
    opened.close()


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def sqlite(tmp_path, clock, place):
    """A store in a folder, for what does not depend on the database."""
    with closing(SQLiteStore(tmp_path / "notes", clock=clock)) as made:
        made.keep_objects(f"file://{place}", CACHE)
        yield made


def loaded(store, passage: int) -> bytes | None:
    """The compressed passage as it is read."""
    found = store.load([passage], FINGERPRINT).get(passage)
    return None if found is None else pack(found)


def forgotten(store, **conditions: object) -> DeletedObjects:
    """Delete documents and their objects, as `forget` does."""
    store.delete(Filter(**conditions), erase=True)
    return store.delete_unused_objects()


def test_a_large_compressed_passage_is_an_object_named_by_its_hash(store, place):
    """It is read as it was stored; the object's bytes have the SHA-256 that names it."""
    passage = put_big(store, LISBON)
    ((name, file),) = files_in(place).items()
    assert name == hashlib.sha256(file.read_bytes()).hexdigest() == NAMES[1]
    assert file.read_bytes() == loaded(store, passage) == pack(big().compressed)
    assert store.encodings([passage])[passage][0].compressed.arrays["bytes"].size == LARGE
    assert store.stats().memory_bytes == len(pack(big().compressed))


def test_a_small_one_stays_in_its_row(store, place):
    """Nothing is put, and no place is made for it."""
    document = put(store, LISBON)
    (passage,) = store.passages_of(document.id)
    store.save({passage.id: encoded(1)}, FINGERPRINT)
    assert (files_in(place), store.settings()) == ({}, {})
    assert loaded(store, passage.id) == pack(encoded(1).compressed)


def test_a_later_opening_finds_objects_without_being_told(open_store, request, tmp_path, clock):
    """The memory records where they are."""
    passage = put_big(open_store(), LISBON)
    kind = request.node.callspec.params["open_store"]
    with closing(STORES[kind](tmp_path / "notes", clock)) as later:
        assert loaded(later, passage) == pack(big().compressed)
        document = put(later, GENOA)
        ids = [p.id for p in later.passages_of(document.id)]
        later.save({i: big(2) for i in ids}, FINGERPRINT)
        assert loaded(later, ids[0]) == pack(big(2).compressed)
        assert [r.ok for r in later.check() if r.check == "objects"] == [True]


def test_equal_passages_share_an_object_until_the_last_is_forgotten(store, place):
    """The first `forget` deletes nothing that is still wanted."""
    put_big(store, LISBON, scope="a")
    passage = put_big(store, GENOA[:31], scope="b")
    assert list(files_in(place)) == [NAMES[1]]
    assert forgotten(store, scope="a") == DeletedObjects()
    assert loaded(store, passage) == pack(big().compressed)
    assert forgotten(store, scope="b") == DeletedObjects((NAMES[1],))
    assert files_in(place) == {}


def test_a_replaced_compressed_passage_leaves_no_object(store, place):
    """The next passage that is saved takes it along."""
    passage = put_big(store, LISBON)
    store.save({passage: big(2)}, FINGERPRINT)
    assert list(files_in(place)) == [NAMES[2]]
    assert loaded(store, passage) == pack(big(2).compressed)


@pytest.mark.parametrize("how", ["evict", "forget_encodings"])
def test_what_is_dropped_is_counted(store, place, how):
    """Whatever deletes a row is counted, without knowing of objects."""
    passage = put_big(store, LISBON)
    store.evict(0) if how == "evict" else store.forget_encodings(None)
    assert loaded(store, passage) is None
    assert store.delete_unused_objects().names == (NAMES[1],)
    assert files_in(place) == {}


def test_a_crash_between_put_and_commit_leaves_garbage_for_a_day(store, clock, place, monkeypatch):
    """No row names it; it is deleted once nobody can still be about to name it."""
    document = put(store, LISBON)
    (passage,) = store.passages_of(document.id)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_row_data", die)
        with pytest.raises(KeyboardInterrupt):
            store.save({passage.id: big()}, FINGERPRINT)
    assert (list(files_in(place)), loaded(store, passage.id)) == ([NAMES[1]], None)
    assert store.delete_unused_objects().names == ()
    clock.time += DAY
    assert store.delete_unused_objects().names == (NAMES[1],)
    assert files_in(place) == {}


def test_what_a_crash_left_is_used_when_the_passage_comes_again(store, place, monkeypatch):
    """The object that is there already is the same bytes."""
    document = put(store, LISBON)
    (passage,) = store.passages_of(document.id)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_row_data", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.save({passage.id: big()}, FINGERPRINT)
    store.save({passage.id: big()}, FINGERPRINT)
    assert (list(files_in(place)), loaded(store, passage.id)) == (
        [NAMES[1]],
        pack(big().compressed),
    )


def test_a_crash_between_commit_and_delete_is_finished_later(open_store, place, monkeypatch):
    """The rows are gone, the table still has the object, and any process deletes it."""
    store = open_store()
    put_big(store, LISBON)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(buckets.Bucket, "delete", die)
        with pytest.raises(KeyboardInterrupt):
            forgotten(store, scope="")
    assert list(files_in(place)) == [NAMES[1]]
    assert open_store().delete_unused_objects().names == (NAMES[1],)
    assert files_in(place) == {}


def test_a_process_killed_while_it_deletes_lets_go_after_a_while(store, clock, place):
    """Until then nobody deletes or names what it has taken, and the deletion counts as open."""
    passage = put_big(store, LISBON)
    store.delete(Filter(scope=""), erase=True)
    assert store._take_unused() is not None  # and dies
    assert store.delete_unused_objects() == DeletedObjects(left=1)
    passage = put_big(store, GENOA[:31])  # of the same bytes: kept in its row
    clock.time += timedelta(seconds=objects.LEASE_S)
    assert store.delete_unused_objects().names == (NAMES[1],)
    assert loaded(store, passage) == pack(big().compressed)
    assert files_in(place) == {}


def test_what_another_process_deletes_meanwhile_is_not_lost(open_store, place, monkeypatch):
    """A passage of equal bytes is forgotten between put and commit: the row holds the bytes."""
    mine, other = open_store(), open_store()
    put_big(other, LISBON, scope="a")
    document = put(mine, GENOA[:31], scope="b")
    (passage,) = mine.passages_of(document.id)
    put_all = buckets.Bucket.put

    def put_late(self, bodies) -> None:
        put_all(self, bodies)
        assert forgotten(other, scope="a").names == (NAMES[1],)

    monkeypatch.setattr(buckets.Bucket, "put", put_late)
    mine.save({passage.id: big()}, FINGERPRINT)
    assert files_in(place) == {}
    assert loaded(mine, passage.id) == pack(big().compressed)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(b"cut"), "has 3 bytes in place of "),
        (lambda file: file.write_bytes(bytes(file.stat().st_size)), "has other bytes than those"),
    ],
    ids=["missing", "truncated", "changed"],
)
def test_a_damaged_object_is_a_damaged_passage(store, place, caplog, damage, why):
    """It is named, read as missing, and put again when the passage is made again."""
    passage = put_big(store, LISBON)
    damage(files_in(place)[NAMES[1]])
    with caplog.at_level(logging.WARNING):
        assert loaded(store, passage) is None
    assert f"passage {passage} will be made again from its text: object file://{place}" in (
        caplog.text
    )
    assert why in caplog.text
    assert store.encodings([passage]) == {}
    store.save({passage: big()}, FINGERPRINT)
    assert loaded(store, passage) == pack(big().compressed)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"cut")])
def test_a_check_names_damaged_objects(store, place, damage):
    """It lists the place, and reads no object."""
    passage = put_big(store, LISBON)
    damage(files_in(place)[NAMES[1]])
    (found,) = [r for r in store.check() if r.check == "objects"]
    assert not found.ok
    assert f"1 of 1 in file://{place} cannot be read (passage {passage}: object" in found.detail
    assert found.remedy == "nothing: they are made again when they are needed"


def test_a_place_that_is_gone_damages_nothing(store, place):
    """An unmounted disk is not a lost object."""
    passage = put_big(store, LISBON)
    moved = place.rename(place.with_name("elsewhere"))
    with pytest.raises(StorageError, match=r"holds no objects of this memory .*: mount the disk"):
        store.load([passage], FINGERPRINT)
    (found,) = [r for r in store.check() if r.check == "objects"]
    assert "mount the disk" in found.detail
    document = put(store, GENOA)
    ids = [p.id for p in store.passages_of(document.id)]
    moved.rename(place)
    assert loaded(store, passage) == pack(big().compressed)
    store.save({i: big(2) for i in ids}, FINGERPRINT)


def test_looking_finds_objects_that_the_database_does_not_know(sqlite, clock, place):
    """Such as after a restore. Young ones stay, and those of another memory."""
    put_big(sqlite, LISBON)
    ((_, known),) = files_in(place).items()
    others = place / "another-memory" / ("b" * 64)
    others.parent.mkdir()
    for file in (known.with_name("a" * 64), others):
        file.write_bytes(b"unknown")
    assert sqlite.delete_unused_objects().names == ()
    assert sqlite.delete_unused_objects(look=True).names == ()  # the clock stands before all files
    clock.time = clock.time.replace(year=2200)
    assert sqlite.delete_unused_objects(look=True).names == ("a" * 64,)
    assert set(files_in(place)) == {NAMES[1], "b" * 64}


def test_two_memories_in_one_place_do_not_meet(sqlite, tmp_path, clock, place):
    """Each has a folder of its own there."""
    passage = put_big(sqlite, LISBON)
    with closing(SQLiteStore(tmp_path / "other", clock=clock)) as other:
        other.keep_objects(f"file://{place}", 0)
        put_big(other, LISBON)
        assert forgotten(other, scope="").names == (NAMES[1],)
    assert loaded(sqlite, passage) == pack(big().compressed)


def test_another_place_needs_the_objects_to_be_there(sqlite, tmp_path, place):
    """It is refused until they are moved."""
    passage = put_big(sqlite, LISBON)
    new = f"file://{tmp_path}/new"
    with pytest.raises(InvalidSetting, match=r"bring that folder there first, or copy the memory"):
        sqlite.keep_objects(new, 0)
    place.rename(tmp_path / "new")  # in place of the empty folder that the attempt has made
    sqlite.keep_objects(new, 0)
    assert loaded(sqlite, passage) == pack(big().compressed)


def test_a_backup_holds_the_bytes(sqlite, tmp_path, place):
    """It needs no place, and deletes nothing there."""
    passage = put_big(sqlite, LISBON)
    file = sqlite.back_up(tmp_path / "copy")
    with closing(SQLiteStore(file.parent)) as copy:
        assert loaded(copy, passage) == pack(big().compressed)
        assert copy.delete_unused_objects() == DeletedObjects()
        copy.delete(Filter(scope=""), erase=True)
    assert list(files_in(place)) == [NAMES[1]]


def test_a_backup_leaves_out_what_is_damaged(sqlite, tmp_path, place):
    """Its passage is made again from the text."""
    passage = put_big(sqlite, LISBON)
    files_in(place)[NAMES[1]].unlink()
    with closing(SQLiteStore(sqlite.back_up(tmp_path / "copy").parent)) as copy:
        assert (loaded(copy, passage), copy.stats().cold) == (None, 1)


def test_a_repair_makes_passages_of_missing_objects_pending(sqlite, tmp_path, place):
    """Their text is there; the others stay."""
    lost, kept = put_big(sqlite, LISBON), put_big(sqlite, GENOA[:31], 2)
    files_in(place)[NAMES[1]].unlink()
    sqlite.close()
    done = {r.check: r.detail for r in repair(tmp_path / "notes")}
    assert done["objects"] == "1 were missing or damaged, and are pending again"
    with closing(SQLiteStore(tmp_path / "notes")) as store:
        assert [p.id for p in store.pending(9)] == [lost]
        assert loaded(store, kept) == pack(big(2).compressed)


def test_a_database_of_an_earlier_release_is_brought_up_to_date(tmp_path, place):
    """Its memories stay in their rows; new ones are counted."""
    with closing(SQLiteStore(tmp_path / "notes")) as store:
        document = put(store, LISBON)
        (passage,) = store.passages_of(document.id)
        store.save({passage.id: big()}, FINGERPRINT)
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db:
        drop_objects(db)
        db.execute("PRAGMA user_version = 8")
        db.commit()
    with closing(SQLiteStore(tmp_path / "notes")) as store:
        store.keep_objects(f"file://{place}", 0)
        assert loaded(store, passage.id) == pack(big().compressed)
        put_big(store, GENOA[:31], 2)
        assert list(files_in(place)) == [NAMES[2]]
        assert forgotten(store, scope="").names == (NAMES[2],)


def test_an_encrypted_memory_keeps_no_objects(tmp_path, clock, place, monkeypatch):
    """They would not be encrypted."""
    pytest.importorskip("sqlcipher3")
    monkeypatch.setenv("CMT_KEY", "a5" * 32)
    with (
        closing(STORES["encrypted"](tmp_path / "diary", clock)) as store,
        pytest.raises(InvalidSetting, match="is encrypted, and its objects would not be"),
    ):
        store.keep_objects(f"file://{place}", 0)


def test_obstore_s_memory_serves_as_a_place(tmp_path, clock, monkeypatch):
    """A store without files or network, with the same calls."""
    from obstore.store import MemoryStore

    made = MemoryStore()
    monkeypatch.setattr(buckets, "open_store", lambda _: made)
    with closing(SQLiteStore(tmp_path / "notes", clock=clock)) as store:
        store.keep_objects("s3://tests", 0)
        passage = put_big(store, LISBON)
        assert loaded(store, passage) == pack(big().compressed)
        assert forgotten(store, scope="") == DeletedObjects((NAMES[1],))
        with pytest.raises(FileNotFoundError):
            made.head(f"{store._object_place().folder}/{NAMES[1]}")


def test_a_folder_that_may_not_be_written_is_named(sqlite, tmp_path):
    """A file stands where the folder would be."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((StorageDenied, StorageError), match=f"{tmp_path}/file/inside"):
        sqlite.keep_objects(f"file://{tmp_path}/file/inside", 0)


def test_a_fork_refuses_objects(sqlite, monkeypatch):
    """A child of a process that has used them would wait for threads that it does not have."""
    passage = put_big(sqlite, LISBON)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(StorageError, match="start the child with multiprocessing's method spawn"):
        sqlite.load([passage], FINGERPRINT)
    buckets._users.discard(-1)
