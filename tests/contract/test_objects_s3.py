"""Objects in S3, as moto serves it on this machine: throttling, silence, refusals, versions."""

from contextlib import closing
from datetime import timedelta

import pytest

from cmt_sdk.errors import StorageDenied, StorageError
from cmt_sdk.storage import bucket as buckets
from cmt_sdk.storage.blob import pack
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import DeletedObjects, Filter
from tests.contract.places import SECRET, big, put_big, s3
from tests.contract.stores import GENOA, LISBON
from tests.contract.test_objects import NAMES, loaded

pytest.importorskip("obstore", reason="needs the extra objects")
pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of moto and what it brings
]
WHOLE = pack(big().compressed)


@pytest.fixture
def server(monkeypatch):
    with s3(monkeypatch) as double:
        yield double


@pytest.fixture
def store(server, tmp_path, monkeypatch):
    """A store with objects in the bucket, which waits for no second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(buckets, "AGAIN", (0.01, 0.01))
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=9)}
    retries = {"max_retries": 3, "backoff": {**backoff, "base": 2}}
    monkeypatch.setattr(buckets, "RETRIES", {**retries, "retry_timeout": timedelta(seconds=60)})
    with closing(SQLiteStore(tmp_path / "notes")) as made:
        made.keep_objects("s3://mem/prefix", 0)
        yield made


def test_objects_in_a_bucket_are_read_and_forgotten(store, server):
    """Put once, with a condition; read; deleted, and looked for once more."""
    passage = put_big(store, LISBON)
    path = f"/mem/prefix/{store._object_place().folder}/{NAMES[1]}"
    assert server.ask("GET", path) == WHOLE == loaded(store, passage)
    store.delete(Filter(scope=""), erase=True)
    assert store.delete_unused_objects() == DeletedObjects((NAMES[1],))
    assert server.requests[-1] == ("HEAD", path)


@pytest.mark.parametrize("status", [503, 429, 500])
def test_throttling_is_waited_out(store, server, status):
    """What is refused for a moment is asked for again, for writing and for reading."""
    server.faults = [status, status]
    passage = put_big(store, LISBON)
    server.faults = [status, status]
    assert loaded(store, passage) == WHOLE


@pytest.mark.parametrize("fault", [503, "cut"])
def test_a_place_without_answers_is_an_error_and_damages_nothing(store, server, fault):
    """No passage counts as damaged; the next call works as before."""
    passage = put_big(store, LISBON)
    server.always = fault
    with pytest.raises(StorageError, match=r"s3://mem/prefix did not do what was asked"):
        store.load([passage], FINGERPRINT)
    store.delete(Filter(scope=""), erase=True)
    if fault == 503:
        with pytest.raises(StorageError, match="and try again; what was stored is safe"):
            store.delete_unused_objects()
    server.always = None
    assert store.delete_unused_objects().names == (NAMES[1],)


def test_a_body_that_breaks_off_is_asked_for_again(store, server):
    """The object itself is sound."""
    passage = put_big(store, LISBON)
    server.faults = ["cut"]
    assert loaded(store, passage) == WHOLE


def test_a_write_without_an_answer_is_made_again(store, server, monkeypatch):
    """The first one may have arrived: the second finds the same bytes there."""
    put_big(store, GENOA[:31], 2)
    monkeypatch.setattr(buckets, "TIMEOUT", "1s")
    store._bucket = None  # opened again, with less patience
    server.faults = ["slow"]
    passage = put_big(store, LISBON)
    assert loaded(store, passage) == WHOLE


def test_a_refusal_names_the_place_and_no_secret(store, server):
    """Nothing is stored without its bytes."""
    put_big(store, GENOA[:31], 2)
    server.always = 403
    with pytest.raises(
        StorageDenied, match=r"s3://mem/prefix refuses .*check the credentials"
    ) as no:
        put_big(store, LISBON)
    assert SECRET not in str(no.value)
    server.always = None
    assert store.stats().compressed == 1


def test_a_bucket_that_is_not_there_is_named(store, tmp_path):
    """It is not made."""
    store.keep_objects("s3://nobody-s/prefix", 0)
    with pytest.raises(StorageDenied, match=r"there is no s3://nobody-s/prefix .*make the bucket"):
        put_big(store, LISBON)


def test_a_bucket_that_keeps_versions_proves_nothing(store, server):
    """The object is gone for readers; its earlier version can be left, and the receipt says so."""
    kept = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    server.ask("PUT", "/mem?versioning", kept)
    put_big(store, LISBON)
    store.delete(Filter(scope=""), erase=True)
    assert store.delete_unused_objects() == DeletedObjects((NAMES[1],), (NAMES[1],))


def test_a_check_finds_what_is_missing_or_truncated(store, server):
    """By one listing."""
    passages = [put_big(store, LISBON), put_big(store, GENOA[:31], 2)]
    folder = f"/mem/prefix/{store._object_place().folder}"
    server.ask("DELETE", f"{folder}/{NAMES[1]}")
    server.ask("PUT", f"{folder}/{NAMES[2]}", WHOLE[:100])
    (found,) = [r for r in store.check() if r.check == "objects"]
    assert f"2 of 2 in s3://mem/prefix cannot be read (passage {passages[0]}" in found.detail
    assert store.load(passages, FINGERPRINT) == {}
    store.save({passages[1]: big(2)}, FINGERPRINT)
    assert loaded(store, passages[1]) == pack(big(2).compressed)
