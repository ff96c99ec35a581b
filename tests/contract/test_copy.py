"""Copying between folders, archives and databases: all comes along, nothing is encoded again, and
a copy that was interrupted is finished by the next one.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cmt_sdk
from cmt_sdk.archive import records
from cmt_sdk.errors import (
    AlreadyExists,
    InvalidInput,
    MemoryNotFound,
    ModelMismatch,
    NotFound,
    StorageDamaged,
    StorageDenied,
    StorageEncrypted,
    StorageError,
)
from cmt_sdk.testing.fakes import FINGERPRINT, FakeCompressor, FakeEngine, open_fake
from cmt_sdk.types import Document, Encoded
from tests import postgres
from tests.contract.copies import (
    MUSEUM,
    Copier,
    Place,
    contents,
    fill,
    held,
    other_spelling,
    settings_of,
)

KINDS = ("folder", "archive", "postgres")
PlaceOf = Callable[[str, str], Place]


@pytest.fixture(scope="module")
def databases() -> Iterator[dict[str, postgres.Database]]:
    """Two databases."""
    made = {name: postgres.new_database() for name in ("one", "two")}
    yield made
    for database in made.values():
        postgres.drop(database)


@pytest.fixture
def place(request, tmp_path) -> PlaceOf:
    """Names an empty end of a kind."""

    def named(kind: str, name: str) -> Place:
        if kind != "postgres":
            return tmp_path / (f"{name}.cmt" if kind == "archive" else name)
        database = request.getfixturevalue("databases")[name]
        database.empty()
        return database.address

    return named


@pytest.fixture
def filled(tmp_path) -> Path:
    """A folder with a memory."""
    fill(tmp_path / "filled")
    return tmp_path / "filled"


@pytest.fixture
def copy() -> Copier:
    return Copier()


# -- all comes along -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_all_comes_along_and_nothing_is_encoded_again(kind, other, place, filled, copy, tmp_path):
    """Documents with histories and fields, passages as they are split, compressed passages and
    embeddings byte for byte, settings; a second copy changes nothing.
    """
    source = place(kind, "one")
    copy(filled, source)
    target = place(other, "two")
    done = copy(source, target)
    assert (done.added, done.differences, done.documents, done.pending) == (14, 0, 14, 0)
    assert done.compressed == done.passages > 14
    assert held(target, tmp_path) == held(filled, tmp_path)
    assert copy.compressed == []
    again = copy(source, target)
    assert (again.added, again.updated, again.compressed) == (0, 0, 0)
    assert (again.unchanged, again.complete) == (14, True)
    assert copy(source, target, verify=True).complete


def test_an_encrypted_memory_stays_encrypted_in_a_new_folder(filled, copy, tmp_path, monkeypatch):
    """And is not opened without its key."""
    pytest.importorskip("sqlcipher3")
    monkeypatch.setenv("CMT_KEY", "c3" * 32)
    with open_fake(tmp_path / "secret", encrypted=True) as memory:
        memory.add(MUSEUM)
    assert copy(tmp_path / "secret", tmp_path / "copy").complete
    assert (tmp_path / "copy" / "memory.db").read_bytes().startswith(b"CMTE")
    monkeypatch.setenv("CMT_KEY", "d4" * 32)
    with pytest.raises(StorageError):
        copy(tmp_path / "secret", tmp_path / "another")
    monkeypatch.delenv("CMT_KEY")
    with pytest.raises(StorageEncrypted, match="set CMT_KEY"):
        copy(tmp_path / "secret", tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_settings_of_one_machine_stay_behind(copy, tmp_path):
    """The device and the generator; an archive has none of them."""
    generator = {"generator": "http://127.0.0.1:9/v1", "generator_model": "private"}
    with open_fake(tmp_path / "a", device="cuda:7", compression=2.5, **generator) as memory:
        memory.add(MUSEUM)
    copy(tmp_path / "a", tmp_path / "a.cmt")
    copy(tmp_path / "a.cmt", tmp_path / "b")
    assert b"private" not in (tmp_path / "a.cmt").read_bytes()
    with open_fake(tmp_path / "b") as memory:
        chosen = memory.settings
    assert (chosen.compression, chosen.device, chosen.generator) == (2.5, "auto", None)


@pytest.mark.parametrize("kind", ["folder", "postgres"])
def test_passages_stay_cold_and_pending(kind, place, copy, tmp_path):
    """A cold passage comes with its embedding, and what waits goes on waiting."""
    with open_fake(tmp_path / "a", memory_budget=200) as memory:
        memory.add_many([f"Fact {n} about a harbour." for n in range(20)])
        memory.add_many(["A text that waits."], compress=False)
        before = memory.stats()
    assert (before.pending, before.cold > 5) == (1, True)
    target = place(kind, "two")
    done = copy(tmp_path / "a", target)
    assert (done.complete, done.pending, done.passages) == (True, 1, 20)
    with open_fake(tmp_path / "a") as memory, copy.open(target) as other:
        after = other.stats()
        assert (after.pending, after.cold) == (before.pending, before.cold)
        assert contents(other) == contents(memory)


def test_passages_of_a_codec_and_in_four_bits_come_together(copy, tmp_path):
    """Whichever comes first."""
    with open_fake(tmp_path / "a") as memory:
        memory.add("Fact one.", id="one")
    with open_fake(tmp_path / "a", FakeEngine.of(codec="c" * 8)) as memory:
        memory.add("Fact two.", id="two")
        memory.update("one", "Fact three.")
        memory.add("Fact four.", id="four")
    assert copy(tmp_path / "a", tmp_path / "b").complete


# -- documents that are there already --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "postgres"])
def test_a_forgotten_document_stays_out(kind, place, filled, copy):
    """Forgotten at the target, amid a copy and after it; one that was removed comes back."""
    target = place(kind, "two")
    copy(filled, target)
    with copy.open(target) as memory:
        memory.forget("long")
        removed = next(memory.documents()).id
        memory.delete(removed)
    done = copy(filled, target)
    assert (done.added, done.left_out, done.complete) == (1, 1, True)
    with copy.open(target) as memory:
        assert "long" not in memory.ids()
        assert removed in memory.ids()


def test_what_the_source_forgot_is_named_and_stays_out_of_the_copy(filled, copy, tmp_path):
    """A copy from elsewhere does not bring it either; the receipt names the copy."""
    copy(filled, tmp_path / "earlier")
    with open_fake(filled) as memory:
        receipt = memory.forget("long")
        assert str(tmp_path / "earlier") in receipt.copies
    assert copy(filled, tmp_path / "earlier").forgotten == ["long"]
    copy(filled, tmp_path / "later")
    done = copy(tmp_path / "earlier", tmp_path / "later")
    assert (done.added, done.left_out, done.complete) == (0, 1, True)


def test_a_forgotten_document_that_was_added_again_is_copied(filled, copy, tmp_path):
    """The record of its id is of the past."""
    with open_fake(filled) as memory:
        memory.forget("long")
        memory.add("It is here again.", id="long")
    copy(filled, tmp_path / "b")
    assert copy(filled, tmp_path / "b").left_out == 0
    with open_fake(tmp_path / "b") as memory:
        assert memory.get("long").text == "It is here again."


def test_a_database_that_is_a_copy_is_named_in_the_receipt(filled, copy, place):
    """Without its password."""
    target = place("postgres", "two")
    copy(filled, target)
    with open_fake(filled) as memory:
        copies = memory.forget("long").copies
    assert str(target) in copies
    assert not any(postgres.PASSWORD in name for name in copies)


def test_later_versions_are_added_and_earlier_ones_change_nothing(filled, copy, tmp_path):
    """As an import does it; a document that changed at both is refused until a choice is made."""
    copy(filled, tmp_path / "b")
    with open_fake(filled) as memory:
        memory.update("long", "A newer text.")
    assert copy(filled, tmp_path / "b").updated == 1
    with open_fake(tmp_path / "b") as memory:
        memory.update("long", "The newest text.")
        memory.add("Only here.", id="mine")
    done = copy(filled, tmp_path / "b")
    assert (done.unchanged, done.complete) == (14, True)
    with open_fake(filled) as memory:
        memory.update("long", "Another text.")
        memory.add("New there.", id="new")
    with pytest.raises(AlreadyExists, match=r"1 document went on here and in .*filled"):
        copy(filled, tmp_path / "b")
    with open_fake(tmp_path / "b") as memory:
        assert "new" not in memory.ids()
    assert copy(filled, tmp_path / "b", diverged="theirs").complete
    with open_fake(tmp_path / "b") as memory:
        assert (memory.get("long").text, "mine" in memory.ids()) == ("Another text.", True)


def test_another_model_is_refused_unless_texts_are_compressed_again(filled, copy, tmp_path):
    """Nothing is stored before."""
    other = Copier(FakeEngine.of(base="0" * 16, model="other"))
    with other.open(tmp_path / "b", passage_tokens=40) as memory:
        memory.add("Here first.", id="first")
    with pytest.raises(ModelMismatch, match=r"made by fake .*b has other .*reencode=True"):
        copy(filled, tmp_path / "b")
    with other.open(tmp_path / "b") as memory:
        assert memory.ids() == ["first"]
    done = other(filled, tmp_path / "b", reencode=True)
    assert (done.complete, done.added, done.pending, done.reencoded > 14) == (True, 14, 0, True)


# -- what is compared ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "postgres"])
def test_a_difference_is_named(kind, place, filled, copy):
    """A text, a field, a compressed passage, and what is missing."""
    target = place(kind, "two")
    copy(filled, target)
    with copy.open(target) as memory:
        passages = memory.passages("long")
        wrong = FakeCompressor().compress(["Other bytes."])[0]
        whole = memory._store.encodings([passages[0].id])[passages[0].id][0]
        changed = Encoded(wrong.compressed, whole.embedding)
        memory._store.save({passages[0].id: changed, passages[1].id: wrong}, FINGERPRINT)
    done = copy(filled, target, verify=True)
    assert (done.differences, done.complete) == (2, False)
    assert "of document 'long' has other bytes" in done.named[0]
    assert "of document 'long' has another embedding" in done.named[1]
    with open_fake(filled) as memory:
        memory.add("Not there yet.", source="new.md")
    done = copy(filled, target, verify=True)
    assert "document 'new.md' is missing" in done.named
    assert done.differences == 3


def test_a_compressed_passage_that_is_lost_is_named(filled, copy, tmp_path):
    """Unless the target drops some to keep its budget."""
    copy(filled, tmp_path / "b")
    with open_fake(tmp_path / "b") as memory:
        memory._store.evict(0)
    done = copy(filled, tmp_path / "b")
    assert done.differences == done.passages
    assert "is lost" in done.named[0]
    with open_fake(tmp_path / "b") as memory:
        memory.configure(memory_budget=1)
    assert copy(filled, tmp_path / "b").complete


# -- interrupted copies --------------------------------------------------------------------------


class Stop(Exception):
    """Raised in the middle of a copy."""


@pytest.mark.parametrize("kind", ["folder", "postgres"])
@pytest.mark.parametrize("origin", ["folder", "archive"])
def test_a_copy_that_was_stopped_is_finished_by_the_next(
    kind, origin, place, filled, copy, tmp_path
):
    """At every seventh step; what is there is not stored again."""
    source = place(origin, "one")
    copy(filled, source)
    target = place(kind, "two")
    finished, step, done = False, 1, 0

    while not finished:
        left = step

        def stop(*_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Stop

        try:
            copy(source, target, on_step=stop)
            finished = True
        except Stop:
            step += 7
        if origin == "folder" or (kind == "folder" and Path(str(target)).exists()):
            with copy.open(target) as memory:
                assert memory.count() >= done
                done = memory.count()
    assert held(target, tmp_path) == held(filled, tmp_path)
    assert copy.compressed == []


def test_a_server_that_goes_away_and_comes_back(filled, copy, tmp_path):
    """The error names the remedy, and the next copy goes on."""
    server = postgres.own_server()
    try:
        address = server.database.address

        def stop(stage: str, done: int, _: int) -> None:
            if (stage, done) == ("documents", 7):
                server.stop()

        with pytest.raises(StorageError, match="check the address and the server, and try again"):
            copy(filled, address, on_step=stop)
        server.start()
        done = copy(filled, address)
        assert (done.complete, done.unchanged >= 7, done.added + done.unchanged) == (True, True, 14)
        assert held(address, tmp_path) == held(filled, tmp_path)
    finally:
        server.stop()


# -- errors --------------------------------------------------------------------------------------


def test_a_source_that_is_missing(copy, tmp_path):
    """No target is made."""
    with pytest.raises(MemoryNotFound, match="no memory in"):
        copy(tmp_path / "nothing", tmp_path / "b")
    with pytest.raises(NotFound, match=r"there is no file .*nothing.cmt"):
        copy(tmp_path / "nothing.cmt", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_source_and_target_are_the_same(filled, copy, tmp_path, place):
    """By a link, or by two spellings of an address."""
    (tmp_path / "link").symlink_to(filled)
    with pytest.raises(InvalidInput, match="source and target are both"):
        copy(filled, tmp_path / "link")
    copy(filled, tmp_path / "a.cmt")
    (tmp_path / "b.cmt").symlink_to(tmp_path / "a.cmt")
    with pytest.raises(InvalidInput, match="source and target are both"):
        copy(tmp_path / "a.cmt", tmp_path / "b.cmt")
    address = place("postgres", "one")
    copy(filled, address)
    with pytest.raises(InvalidInput, match="source and target are both"):
        copy(address, other_spelling(address))


def test_a_target_that_is_read_only(filled, copy, tmp_path):
    """It is named."""
    copy(filled, tmp_path / "b")
    with open_fake(filled) as memory:
        memory.add("New.")

    def open_read_only(place, **options):
        memory = open_fake(Path(place), **options)
        memory.read_only = Path(place).name == "b"
        return memory

    with pytest.raises(StorageDenied, match=r"b is read-only.*give a target that can be written"):
        cmt_sdk.copy_memory(filled, tmp_path / "b", open_with=open_read_only)


def test_an_archive_that_is_damaged(filled, copy, tmp_path):
    """Truncated, changed, no archive at all; the target is not touched."""
    file = tmp_path / "a.cmt"
    copy(filled, file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(StorageDamaged, match="fetch or copy it again"):
        copy(file, tmp_path / "b")
    with pytest.raises(StorageDamaged):
        copy(file, tmp_path / "b.cmt")
    file.write_bytes(b"notes")
    with pytest.raises(StorageDamaged):
        copy(file, tmp_path / "b")
    (tmp_path / "notes.db").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"name it memory\.db"):
        copy(tmp_path / "notes.db", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "b.cmt").exists()


def test_an_archive_that_is_there_is_replaced_on_demand(filled, copy, tmp_path):
    """An archive alone; one that is a copy of the source as it is now stays."""
    copy(filled, tmp_path / "a.cmt")
    before = (tmp_path / "a.cmt").stat()
    assert copy(filled, tmp_path / "a.cmt").unchanged == 14
    assert (tmp_path / "a.cmt").stat().st_ino == before.st_ino
    with open_fake(filled) as memory:
        memory.add("New.")
    with pytest.raises(AlreadyExists, match="--overwrite"):
        copy(filled, tmp_path / "a.cmt")
    assert copy(filled, tmp_path / "a.cmt", overwrite=True).added == 15


def test_compressed_passages_without_a_seal_are_refused(filled, copy, tmp_path, monkeypatch):
    """Until they are trusted, or compressed again."""
    copy(filled, tmp_path / "a.cmt")
    monkeypatch.setenv("CMT_ARCHIVE_KEY", str(tmp_path / "another.key"))
    with pytest.raises(InvalidInput, match=r"not sealed with your key .*another.key.*--trust"):
        copy(tmp_path / "a.cmt", tmp_path / "b")
    assert copy(tmp_path / "a.cmt", tmp_path / "c", trust=True).complete
    assert copy.compressed == []
    done = copy(tmp_path / "a.cmt", tmp_path / "d", reencode=True)
    assert (done.complete, done.pending, done.reencoded > 14) == (True, 0, True)


def test_what_a_database_cannot_hold_is_refused_before_anything_is_stored(copy, tmp_path, place):
    """An id of more than 500 characters."""
    with open_fake(tmp_path / "a") as memory:
        memory.add("Fact one.")
        memory.add("Fact two.", id="x" * 501)
    target = place("postgres", "two")
    with pytest.raises(InvalidInput, match="the limit in Postgres is 500"):
        copy(tmp_path / "a", target)
    with open_fake(target) as memory:
        assert memory.ids() == []


# -- any memory ----------------------------------------------------------------------------------


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)
DOCUMENTS = st.lists(
    st.builds(
        Document,
        text=TEXTS,
        source=st.none() | st.sampled_from(["a.md", "b.txt"]),
        scope=st.sampled_from(["", "user/ann", "user/ben"]),
        metadata=st.dictionaries(
            st.sampled_from("ab"), st.none() | st.booleans() | st.integers(-9, 9)
        ),
    ),
    max_size=6,
)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(DOCUMENTS, st.data())
def test_a_copy_of_a_copy_is_the_memory(documents, data):
    """Whatever it holds, through a folder and through an archive."""
    copy = Copier()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_fake(folder / "a") as memory:
            memory.add_together(documents, wait=True)
            for known in list(memory.ids())[::2]:
                memory.update(known, data.draw(TEXTS))
            expected = contents(memory), settings_of(memory)
        for middle in ("b", "b.cmt"):
            end = folder / f"c{middle}x"
            assert copy(folder / "a", folder / middle).complete
            assert copy(folder / middle, end).complete
            assert held(end, folder) == expected
    assert copy.compressed == []


def test_copying_holds_little_in_memory(copy, tmp_path, monkeypatch):
    """Compressed passages are stored some at a time."""
    monkeypatch.setattr(records, "SHARD_BYTES", 2_000)
    monkeypatch.setattr(records, "BATCH", 4)
    with open_fake(tmp_path / "a") as memory:
        memory.add_many(f"Fact {n} about {'a harbour ' * 30}." for n in range(60))
    sizes = []
    with open_fake(tmp_path / "b") as memory:
        save = type(memory._store).save

        def note(self, encoded, fingerprint):
            sizes.append(len(encoded))
            save(self, encoded, fingerprint)

        monkeypatch.setattr(type(memory._store), "save", note)
    assert copy(tmp_path / "a", tmp_path / "b").complete
    assert sum(sizes) == 60
    assert max(sizes) <= 10
