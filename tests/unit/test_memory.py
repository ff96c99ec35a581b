"""Memory's promises, over a real store on disk and a fake language model."""

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cmt_sdk.errors import (
    DocumentNotFound,
    InvalidDocument,
    InvalidFilter,
    InvalidSetting,
    MemoryNotFound,
    ModelMismatch,
)
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake
from cmt_sdk.types import Document, Progress

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2021."


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        yield opened


def everything(folder: Path) -> bytes:
    """The bytes of all files of a folder."""
    return b"".join(f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file())


def test_what_is_added_is_answered_from_in_a_later_opening(tmp_path):
    """A document added by one opening of the folder answers in the next, from its memory."""
    with open_fake(tmp_path / "notes") as first:
        first.add(LISBON, source="trip.md")
    with open_fake(tmp_path / "notes", create=False) as second:
        answer = second.model.ask("Where did the museum move?")
    assert answer.text == LISBON
    assert [str(s) for s in answer.sources] == ["trip.md[0:35]"]
    assert answer.reader == "memory"


def test_add_returns_the_document_as_stored(memory):
    """Id, version, times and readiness are filled in."""
    document = memory.add(
        LISBON, source="trip.md", scope="user/ann", metadata={"year": 2019, "fun": True}
    )
    assert document.text == LISBON
    assert (document.version, document.current, document.ready) == (1, True, True)
    assert (document.source, document.scope, document.metadata) == (
        "trip.md",
        "user/ann",
        {"year": 2019, "fun": True},
    )
    assert document.created_at == document.updated_at is not None
    assert memory.get(document.id) == document


def test_same_content_twice_is_one_document(memory):
    """In one scope; another scope has its own."""
    first = memory.add(LISBON)
    assert memory.add(LISBON, source="again.md").id == first.id
    assert memory.add(LISBON, scope="user/ann").id != first.id
    assert memory.count() == 2


def test_an_unchanged_document_that_waits_is_compressed_and_has_no_new_passages(memory):
    """Its passages were counted when it was stored."""
    stored = memory.add_many([LISBON], compress=False)
    assert (stored.added, stored.passages, stored.compressed) == (1, 1, 0)
    again = memory.add_many([LISBON])
    assert (again.unchanged, again.passages, again.compressed) == (1, 0, 1)


def test_add_many_streams_and_reports(memory):
    """Any iterable is taken, once, and progress counts what happened to each document."""
    seen = []
    total = memory.add_many(
        (f"Fact number {i} is here." for i in [1, 2, 2, 3]), on_progress=seen.append
    )
    assert total == Progress(added=3, unchanged=1, passages=3, compressed=3)
    assert seen[-1] == total
    assert len(seen) > 3


def test_a_bad_document_stops_the_stream_and_keeps_what_came_before(memory):
    """What was stored before the error stays, and is compressed."""
    with pytest.raises(InvalidDocument):
        memory.add_many([LISBON, "   ", PORTO])
    assert [d.ready for d in memory.documents()] == [True]
    assert memory.model.ask("Where did the museum move?").text == LISBON


def test_known_sources_are_updated_when_asked(memory):
    """With `replace`, a source with another text becomes the document's next version."""
    memory.add_many([Document(LISBON, source="trip.md")])
    again = memory.add_many([Document(LISBON, source="trip.md")], replace=True)
    changed = memory.add_many([Document(PORTO, source="trip.md")], replace=True)
    assert (again.unchanged, changed.updated) == (1, 1)
    assert [d.text for d in memory.documents()] == [PORTO]


def test_update_answers_anew_and_keeps_the_history(memory):
    """The old version stops answering at once and stays listed."""
    document = memory.add(LISBON, source="trip.md")
    updated = memory.update(document.id, PORTO)
    assert (updated.id, updated.version) == (document.id, 2)
    assert memory.model.ask("Where did the museum move?").text == PORTO
    assert [(d.version, d.text, d.current) for d in memory.history(document.id)] == [
        (1, LISBON, False),
        (2, PORTO, True),
    ]
    assert not memory.search("Lisbon", mode="text")


def test_fields_change_without_a_new_version(memory):
    """Metadata, source, scope and expiry are changed in place; nothing is compressed again."""
    document = memory.add(LISBON)
    updated = memory.update(document.id, metadata={"seen": True}, source="b.md")
    assert (updated.version, updated.metadata, updated.source) == (1, {"seen": True}, "b.md")
    with pytest.raises(TypeError, match="no argument 'colour'"):
        memory.update(document.id, colour="red")


def test_delete_takes_a_document_out(memory):
    """It is no longer found in any way; an unknown id is an error that names it."""
    document = memory.add(LISBON)
    assert memory.delete(document.id).text == LISBON
    assert memory.count() == 0
    assert not memory.search("museum")
    with pytest.raises(DocumentNotFound, match=document.id):
        memory.delete(document.id)


def test_forgotten_text_is_in_no_file(tmp_path):
    """After forget, every byte of the folder is free of every version's words; the receipt says
    so.
    """
    folder = tmp_path / "notes"
    with open_fake(folder) as memory:
        document = memory.add(
            "The password is zanzibarquartz, says Wilhelmina.", source="secret.md"
        )
        memory.update(document.id, "The password is now mongolfierplum, says Wilhelmina.")
        memory.add(LISBON)
        assert b"zanzibarquartz" in everything(folder)
        receipt = memory.forget(document.id)
        assert (receipt.documents, receipt.versions, receipt.traces_found) == ([document.id], 2, 0)
        assert receipt.passages == 1
        left = everything(folder)
        assert memory.model.ask("Where did the museum move?").text == LISBON
    for word in (b"zanzibarquartz", b"mongolfierplum", b"Wilhelmina", b"wilhelmina", b"secret.md"):
        assert word not in left
        assert word not in everything(folder)


def test_forget_needs_a_condition_and_a_known_id(memory):
    """Forgetting everything must be said; a typing error in an id is not silence."""
    memory.add(LISBON, scope="user/ann")
    memory.add(LISBON, scope="user/anna")
    with pytest.raises(InvalidFilter, match="scope=''"):
        memory.forget()
    with pytest.raises(DocumentNotFound):
        memory.forget("nothing")
    assert len(memory.forget(scope="user/ann").documents) == 1
    assert len(memory.forget(scope="").documents) == 1


def test_compression_can_follow_in_the_background(memory):
    """With wait=False the text is there at once; the memory follows."""
    document = memory.add(LISBON, wait=False)
    assert memory.search("museum", mode="text")[0].document.id == document.id
    assert memory.wait(10)
    assert memory.get(document.id).ready
    assert memory.stats().pending == 0


def test_what_waits_is_compressed_when_it_is_needed(tmp_path):
    """A process that ended before compressing loses nothing: the next question encodes what it
    reads.
    """

    class Crash(FakeCompressor):
        def compress(self, texts):
            raise KeyboardInterrupt

    with (
        open_fake(tmp_path / "notes", FakeEngine(Crash())) as memory,
        pytest.raises(KeyboardInterrupt),
    ):
        memory.add(LISBON)
    with open_fake(tmp_path / "notes") as memory:
        assert memory.stats().pending == 1
        assert memory.model.ask("Where did the museum move?").text == LISBON
        assert memory.compress() == 0


def test_a_passage_that_cannot_be_compressed_holds_up_no_other(tmp_path):
    """What went wrong with it is raised once the others are done; it waits on, and words still find
    it.
    """

    class Poisoned(FakeCompressor):
        def compress(self, texts):
            if any("poison" in t for t in texts):
                raise ValueError("not with me")
            return super().compress(texts)

    with open_fake(tmp_path / "notes", FakeEngine(Poisoned())) as memory:
        with pytest.raises(ValueError, match="not with me"):
            memory.add_many([LISBON, "A little poison.", PORTO])
        assert [d.ready for d in memory.documents()] == [True, False, True]
        with pytest.raises(ValueError, match="not with me"):
            memory.compress()
        assert memory.search("poison", mode="text")
        memory.add("Something else.")
        with pytest.raises(ValueError, match="not with me"):
            memory.wait(10)
        assert memory.stats().pending == 1


def test_background_compression_survives_any_error(tmp_path):
    """`wait` raises it, and what is added after is compressed."""

    class Once(FakeCompressor):
        def compress(self, texts):
            if not self.compressed:
                self.compressed.append("tried")
                raise RuntimeError("no memory left on the device")
            return super().compress(texts)

    with open_fake(tmp_path / "notes", FakeEngine(Once())) as memory:
        memory.add(LISBON, wait=False)
        with pytest.raises(RuntimeError, match="no memory left"):
            memory.wait(10)
        memory.add(PORTO, wait=False)
        assert memory.wait(10)
        assert memory.stats().pending == 0


def test_adding_compresses_what_was_added_and_not_what_waits(tmp_path):
    """A chat turn does not wait for what was left behind; that follows in the background."""
    engine = FakeEngine()
    with open_fake(tmp_path / "notes", engine) as memory:
        memory.add_many([LISBON], compress=False)
        assert memory.add(PORTO).ready
        assert engine.compressor.compressed[0] == PORTO
        assert memory.wait(10)
        assert engine.compressor.compressed == [PORTO, LISBON]


def test_threads_that_compress_share_the_work(tmp_path):
    """No passage is compressed twice."""
    engine = FakeEngine()
    with open_fake(tmp_path / "notes", engine) as memory:
        memory.add_many([f"Fact number {i}." for i in range(64)], compress=False)
        threads = [threading.Thread(target=memory.compress) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(engine.compressor.compressed) == 64


def test_another_process_that_encodes_with_another_model_is_noticed(tmp_path):
    """Also after the first question: it neither reads the other's memories nor mixes its own with
    them.
    """
    with open_fake(tmp_path / "notes") as memory:
        assert memory.model.ask("Where did the museum move?").abstained
        with open_fake(tmp_path / "notes", FakeEngine.of(base="0" * 16)) as other:
            other.add(LISBON)
        with pytest.raises(ModelMismatch):
            memory.model.ask("Where did the museum move?")
        with pytest.raises(ModelMismatch):
            memory.add(PORTO)


def test_another_model_is_refused_with_the_remedy(tmp_path):
    """Both models and the command are named; after reencode the memory answers again, and a cut-off
    one resumes.
    """
    with open_fake(tmp_path / "notes") as memory:
        memory.add(LISBON)
    other = FakeEngine.of(model="other", base="0" * 16)
    with open_fake(tmp_path / "notes", other) as memory:
        with pytest.raises(
            ModelMismatch, match=r"made by fake .* is other .*base: f+ != 0+.*cmt reencode"
        ):
            memory.model.ask("Where did the museum move?")
        assert memory.search("museum", mode="text")
        assert memory.reencode() == 1
        assert memory.model.ask("Where did the museum move?").text == LISBON


def test_a_different_share_kept_is_no_other_model(tmp_path):
    """Memories with more or fewer entries are read side by side."""
    with open_fake(tmp_path / "notes") as memory:
        memory.add(LISBON)
    with open_fake(tmp_path / "notes", FakeEngine.of(keep=0.5)) as memory:
        assert memory.model.ask("Where did the museum move?").text == LISBON


def test_a_memory_goes_on_where_the_same_weights_are_computed_in_another_precision(tmp_path):
    """A CPU without units for bf16 reads what another made in bf16, and adds to it; weights in four
    bits are others.
    """
    with open_fake(tmp_path / "notes") as memory:
        memory.add(LISBON)
    with open_fake(tmp_path / "notes", FakeEngine.of(quantization="fp32")) as memory:
        memory.add("The harbour of Genoa opens at nine.")
        assert memory.model.ask("Where did the museum move?").text == LISBON
    with open_fake(tmp_path / "notes") as memory:
        assert (
            memory.model.ask("When opens the harbour?").text
            == "The harbour of Genoa opens at nine."
        )
    quantised = open_fake(tmp_path / "notes", FakeEngine.of(quantization="nf4"))
    with quantised as memory, pytest.raises(ModelMismatch, match=r"quantization: .* != nf4"):
        memory.model.ask("Where did the museum move?")


def test_expired_documents_do_not_answer(memory, monkeypatch):
    """A document is gone from its expiry on; one that has expired already is not taken."""
    memory.add(LISBON, expires_at=datetime.now(UTC) + timedelta(minutes=30))
    assert memory.count() == 1
    monkeypatch.setattr(memory._store, "_clock", lambda: datetime.now(UTC) + timedelta(minutes=31))
    with pytest.raises(InvalidDocument, match=r"expires_at=2001-01-01.* has passed"):
        memory.add("Too late.", expires_at=datetime(2001, 1, 1, tzinfo=UTC))
    memory.add(PORTO, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert [d.text for d in memory.documents()] == [PORTO]
    assert memory.model.ask("Where did the museum move?").text == PORTO


def test_settings_are_those_the_memory_was_made_with(tmp_path):
    """A setting given once stays; a name that is none is an error; so is a value outside its
    range.
    """
    with open_fake(tmp_path / "notes", passage_tokens=64):
        pass
    with open_fake(tmp_path / "notes") as memory:
        assert memory.settings.passage_tokens == 64
    with pytest.raises(InvalidSetting, match="no setting 'colour'"):
        open_fake(tmp_path / "other", colour="red")
    with pytest.raises(InvalidSetting, match=r"compression=0: choose a number from 1 to 100"):
        open_fake(tmp_path / "other", compression=0)
    with pytest.raises(InvalidSetting, match=r"fidelity=1: choose one of False, True"):
        open_fake(tmp_path / "other", fidelity=1)
    with pytest.raises(
        InvalidSetting, match=r"fidelity=True: only the passages of compressor='kv' are measured"
    ):
        open_fake(tmp_path / "other", fidelity=True, compressor="soft")


def test_no_memory_yet(tmp_path):
    """Opening without making is an error that names the folder, and makes nothing."""
    with pytest.raises(MemoryNotFound, match="nowhere"):
        open_fake(tmp_path / "nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()


def test_what_is_said_again_about_a_known_text_holds(tmp_path):
    """Fields given with a text that is there already take the place of its own; the source
    stays.
    """
    until = datetime(2999, 1, 1, tzinfo=UTC)
    with open_fake(tmp_path / "notes") as memory:
        first = memory.add("The code is 5519.")
        memory.add(
            "The code is 5519.", source="gate.txt", metadata={"year": 2024}, expires_at=until
        )
        again = memory.add("The code is 5519.", source="other.txt")
        assert (again.id, again.version, memory.count()) == (first.id, 1, 1)
        assert (again.source, again.metadata, again.expires_at) == (
            "gate.txt",
            {"year": 2024},
            until,
        )


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_memory_is_its_owner_s_alone(tmp_path):
    """Neither the folder nor a file in it can be read by others."""
    with open_fake(tmp_path / "notes") as memory:
        memory.add("The code is 5519.")
        assert (tmp_path / "notes").stat().st_mode & 0o077 == 0
        assert [
            f.name
            for f in (tmp_path / "notes").iterdir()
            if f.name.startswith("memory.db") and f.stat().st_mode & 0o077
        ] == []


def test_an_update_that_changes_nothing_ends(tmp_path):
    """The document stays as it is, with its version and its memory."""
    with open_fake(tmp_path / "notes") as memory:
        stored = memory.add("Ann likes tea.", source="tea.md", metadata={"n": 1})
        again = memory.update(stored.id, metadata={"n": 1}, source="tea.md")
        assert (again.version, again.ready, memory.stats().pending) == (1, True, 0)
