"""A memory with the setting `objects`: opening, forgetting, copies, commands; and what it is made of:
references, the cache, addresses.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cmt_sdk.config.address import object_fault
from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import InvalidSetting, StorageError
from cmt_sdk.memory.copying import copy_memory
from cmt_sdk.storage import bucket as buckets
from cmt_sdk.storage.object_cache import ObjectCache
from cmt_sdk.storage.references import LARGE, SIZE, Reference
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake
from cmt_sdk.types import CompressedPassage, Encoded
from tests.contract.places import files_in

TRIP = "The museum moved to Lisbon in 2019."
DIARY = "Nobody knows the garden behind the mill."


@dataclass
class LargeCompressor(FakeCompressor):
    """Memories that are large enough to be objects."""

    def compress(self, texts):
        """As the fake does, and larger."""
        made = super().compress(texts)
        return [
            Encoded(
                CompressedPassage(
                    e.compressed.kind,
                    e.compressed.tokens,
                    {**e.compressed.arrays, "pad": np.zeros(LARGE, np.uint8)},
                ),
                e.embedding,
            )
            for e in made
        ]


def open_large(path, engine=None, **options):
    """A memory whose passages are objects, where it has a place for them."""
    return open_fake(path, engine or FakeEngine(LargeCompressor()), **options)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(buckets, "AGAIN", ())


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "bucket"


def test_a_memory_answers_from_objects_and_records_where_they_are(tmp_path, place):
    """The setting is given once."""
    pytest.importorskip("obstore")
    with open_large(tmp_path / "notes", objects=f"file://{place}") as memory:
        memory.add(TRIP)
    assert len(files_in(place)) == 1
    with open_large(tmp_path / "notes") as memory:
        assert memory.settings.objects == f"file://{place}"
        assert memory.ask("Where is the museum?").text == TRIP
        assert memory.stats().compressed == 1


def test_a_disk_that_is_not_mounted_is_left_as_it_is(tmp_path, place):
    """No folder is made in its place; with the disk back the memory answers again."""
    pytest.importorskip("obstore")
    settings = {"objects": f"file://{place}", "object_cache": 0}
    with open_large(tmp_path / "notes", **settings) as memory:
        memory.add(TRIP)
    place.rename(tmp_path / "away")
    with open_large(tmp_path / "notes") as memory, pytest.raises(StorageError, match="mount"):
        memory.ask("Where is the museum?")
    assert not place.exists()
    (tmp_path / "away").rename(place)
    with open_large(tmp_path / "notes") as memory:
        assert memory.ask("Where is the museum?").text == TRIP


def test_a_receipt_names_the_objects_that_were_deleted(tmp_path, place):
    """And the cache of this machine has them no longer."""
    pytest.importorskip("obstore")
    with open_large(tmp_path / "notes", objects=f"file://{place}") as memory:
        memory.add(TRIP, id="trip")
        memory.add(DIARY, id="diary")
        memory.ask("Where is the museum? Who knows the garden?")
        before = files_in(place)
        assert set(files_in(tmp_path / "cache")) == set(before)
        receipt = memory.forget("diary")
        assert (receipt.complete, receipt.objects_unproven, receipt.traces_found) == (True, (), 0)
        assert set(before) - set(files_in(place)) == set(receipt.objects)
        assert len(receipt.objects) == 1
        assert not set(receipt.objects) & set(files_in(tmp_path / "cache"))


def test_forgetting_goes_on_where_the_place_did_not_answer(tmp_path, place, monkeypatch):
    """The documents are gone; the next opening deletes the objects."""
    pytest.importorskip("obstore")

    def refuse(*_):
        raise StorageError("no answer")

    with open_large(tmp_path / "notes", objects=f"file://{place}") as memory:
        memory.add(DIARY, id="diary")
        with monkeypatch.context() as patch:
            patch.setattr(buckets.Bucket, "delete", refuse)
            with pytest.raises(StorageError, match="The documents are gone; their bytes go when"):
                memory.forget("diary")
        assert (memory.stats().documents, len(files_in(place))) == (0, 1)
    open_large(tmp_path / "notes").close()
    assert files_in(place) == {}


def test_archives_and_copies_carry_the_bytes(tmp_path, place):
    """They need no place, and their memories none of the source's."""
    pytest.importorskip("obstore")
    with open_large(tmp_path / "notes", objects=f"file://{place}") as memory:
        memory.add(TRIP)
        memory.export(tmp_path / "notes.cmt")
    copied = copy_memory(tmp_path / "notes", tmp_path / "copied", open_with=open_large)
    assert (copied.complete, copied.compressed) == (True, 1)
    place.rename(place.with_name("gone"))
    with open_large(tmp_path / "copied") as memory:
        assert memory.settings.objects is None
        assert memory.ask("Where is the museum?").text == TRIP
    with open_large(tmp_path / "imported") as memory:
        assert memory.import_archive(tmp_path / "notes.cmt").added == 1
        assert memory.ask("Where is the museum?").text == TRIP


def test_configuring_refuses_what_would_keep_the_memory_from_opening(tmp_path, place):
    """Objects cannot be left behind."""
    pytest.importorskip("obstore")
    with open_large(tmp_path / "notes", objects=f"file://{place}") as memory:
        memory.add(TRIP)
        with pytest.raises(InvalidSetting, match="bring that folder there first"):
            memory.configure(objects=f"file://{tmp_path}/other")
        assert memory.configure(objects=None).objects is None
    with open_large(tmp_path / "notes") as memory:
        assert memory.ask("Where is the museum?").text == TRIP
        memory.add(DIARY)
        assert (len(files_in(place)), memory.stats().compressed) == (1, 2)


def test_the_commands_create_and_clean(cmt, tmp_path, place):
    """`cmt create --set objects=`, `cmt gc`, and the receipt of `cmt forget`."""
    pytest.importorskip("obstore")
    cmt.opener = open_large
    cmt("create", "-m", "notes", "--set", f"objects=file://{place}")
    cmt("add", "--text", TRIP, "-m", "notes")
    assert cmt("gc", "-m", "notes").stdout == "0 objects deleted\n"
    assert cmt.json("gc", "-m", "notes") == {"names": [], "unproven": [], "left": 0}
    assert "\n1 object deleted\n" in cmt("forget", "--scope", "", "--yes", "-m", "notes").stdout
    assert files_in(place) == {}


@pytest.mark.parametrize(
    "address",
    ["", "bucket", "s3://", "file://host/folder", "file:folder", "file:///", "https://x/y", 7,
     "s3://key:secret@bucket", "s3://bucket?sig=secret", "s3://bucket/#secret",
     "s3://bucket/../other", "s3://bucket/a\nb", "memory:///"],
)  # fmt: skip
def test_an_address_that_is_no_place_is_refused(address):
    """What may be a secret is not repeated."""
    with pytest.raises(InvalidSetting, match="give s3://bucket/prefix, gs://") as refused:
        Settings(objects=address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["s3://bucket", "s3://b/a/b", "gs://b/a", "az://container/a", "file:///a b/c"]
)
def test_an_address_of_a_place_is_taken(address):
    """Of each scheme."""
    assert object_fault(address) == ""


def test_a_reference_is_read_back_and_nothing_else_is_one():
    """A compressed passage begins otherwise, or is longer."""
    made = Reference.to(b"bytes")
    assert (len(made.data), Reference.of(made.data)) == (SIZE, made)
    assert Reference.of(b"CMTM" + bytes(SIZE - 4)) is None
    assert Reference.of(made.data + b"x") is None
    assert Reference.of(b"") is None
    assert (made.fault(b"bytes"), made.fault(b"byte")) == ("", "has 4 bytes in place of 5")
    assert made.fault(b"bytez") == "has other bytes than those it is named after"


def used(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir())


def test_the_cache_holds_its_bound_and_what_was_used_last(tmp_path):
    """Whatever comes, no more bytes than the limit; the one that is read often stays."""
    cache = ObjectCache(tmp_path / "cache", 1000)
    bodies = [bytes([n]) * 100 for n in range(40)]
    often = Reference.to(bodies[0])
    for n, body in enumerate(bodies):
        cache.put(Reference.to(body), body)
        assert used(tmp_path / "cache") <= 1000
        assert cache.get(often) == bodies[0]
        os.utime(tmp_path / "cache" / often.name, (4e9 + n, 4e9 + n))
    assert cache.get(Reference.to(bodies[-1])) == bodies[-1]
    assert cache.get(Reference.to(bodies[1])) is None


def test_two_processes_share_the_bound(tmp_path):
    """Each notices what the other has written before much more is."""
    caches = [ObjectCache(tmp_path / "cache", 1600) for _ in range(2)]
    for n in range(60):
        body = bytes([n]) * 100
        caches[n % 2].put(Reference.to(body), body)
        assert used(tmp_path / "cache") <= 1600 + 100


def test_the_cache_takes_nothing_that_is_damaged_or_larger_than_it(tmp_path):
    """A damaged file is removed; a limit of 0 keeps nothing."""
    folder = tmp_path / "cache"
    cache = ObjectCache(folder, 1000)
    reference = Reference.to(b"x" * 100)
    cache.put(reference, b"x" * 100)
    (folder / reference.name).write_bytes(b"y" * 100)
    assert cache.get(reference) is None
    assert list(folder.iterdir()) == []
    cache.put(Reference.to(b"z" * 1001), b"z" * 1001)
    ObjectCache(folder, 0).put(reference, b"x" * 100)
    assert list(folder.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_none(tmp_path):
    """A file stands in its place: nothing fails."""
    (tmp_path / "cache").write_text("in the way")
    cache = ObjectCache(tmp_path / "cache", 1000)
    reference = Reference.to(b"x")
    cache.put(reference, b"x")
    assert cache.get(reference) is None
