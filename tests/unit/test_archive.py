"""Archives: what goes out comes in again, a hostile or damaged file changes nothing, and memory use
stays flat.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from cmt_sdk import archive
from cmt_sdk.archive import contents, writing
from cmt_sdk.errors import (
    AlreadyExists,
    CMTError,
    InvalidDocument,
    NotFound,
    StorageDamaged,
    StorageDenied,
    StorageFull,
    StorageNewer,
)
from cmt_sdk.testing.fakes import FINGERPRINT, FakeCompressor, FakeEngine, open_fake
from cmt_sdk.types import Document, Encoded, Filter, Fingerprint, Page, Passage, Progress, Span

MONDAY = datetime(2025, 3, 3, 9, 30, tzinfo=UTC)
TUESDAY = datetime(2025, 3, 4, 9, 30, tzinfo=UTC)


@dataclass
class FakeStore:
    """The part of the store's port that archives use, in memory."""

    documents: dict[str, list[Document]] = field(default_factory=dict)
    cut: dict[str, list[Passage]] = field(default_factory=dict)
    memories: dict[int, tuple[Encoded, Fingerprint]] = field(default_factory=dict)

    def restore(self, versions: Sequence[Document], spans: Sequence[Span]) -> tuple[Document, bool]:
        """All versions, unless the id has the text."""
        last = versions[-1]
        for known in (h[-1] for h in self.documents.values()):
            if (known.id, known.text, known.scope) == (last.id, last.text, last.scope):
                return known, False
        start = 1 + sum(map(len, self.cut.values()))
        self.documents[last.id] = list(versions)
        self.cut[last.id] = [
            Passage(
                start + n,
                last.id,
                last.version,
                n,
                s.start,
                s.end,
                s.tokens,
                last.text[s.start : s.end],
                s.heading,
            )
            for n, s in enumerate(spans)
        ]
        return last, True

    def extend_history(
        self, document_id: str, versions: Sequence[Document], spans: Sequence[Span] | None
    ) -> Document:
        """Fields that change in place."""
        self.documents[document_id][-1] = versions[-1]
        return versions[-1]

    def now(self) -> datetime:
        """A clock."""
        return TUESDAY

    def related(self, versions: Sequence[Document]) -> list[Document]:
        """Those whose text is that of a version."""
        texts = {v.text for v in versions}
        heads = [self.history(i)[-1] for i in self.documents]
        return [d for d in heads if d.text in texts and d.scope == versions[-1].scope]

    def page(self, filter: Filter, limit: int, cursor: str | None) -> Page:
        """By id, a page at a time."""
        ids = [i for i in self.documents if filter.ids is None or i in filter.ids]
        start = int(cursor or 0)
        page = [self.history(i)[-1] for i in ids[start : start + limit]]
        return Page(page, str(start + limit) if start + limit < len(ids) else None)

    def history(self, document_id: str) -> list[Document]:
        """Every version, ready when all passages have memories."""
        ready = all(p.id in self.memories for p in self.cut.get(document_id, []))
        return [replace(d, ready=ready) for d in self.documents.get(document_id, [])]

    def passages_of(self, document_id: str) -> list[Passage]:
        """The passages of the last version."""
        return self.cut.get(document_id, [])

    def encodings(self, passage_ids: Sequence[int]) -> dict[int, tuple[Encoded, Fingerprint]]:
        """The stored ones."""
        return {i: self.memories[i] for i in passage_ids if i in self.memories}

    def save(self, encoded: Mapping[int, Encoded], fingerprint: Fingerprint) -> None:
        """Keep them."""
        self.memories |= {i: (e, fingerprint) for i, e in encoded.items()}


def cut(document: Document) -> list[Span]:
    """A passage a sentence."""
    text = document.text
    ends = [i + 1 for i, sign in enumerate(text) if sign == "."] or [len(text)]
    return [Span(start, end, end - start) for start, end in zip([0, *ends], ends, strict=False)]


def refuse_nul(document: Document) -> None:
    """Stand-in for the check of a real memory."""
    if "\x00" in document.text:
        raise InvalidDocument("NUL")


def take(store: FakeStore, path: Path, accepts: bool = True, longest: int = 10_000) -> Progress:
    """Read an archive into a store."""
    return [
        Progress(),
        *archive.read(
            store,
            path,
            archive.ArchiveImport(refuse_nul, cut, lambda *_: accepts, longest, trust=True),
        ),
    ][-1]


def compress_all(store: FakeStore) -> None:
    """Give every passage its memory."""
    for passages in store.cut.values():
        made = FakeCompressor().compress([p.content for p in passages])
        store.save({p.id: e for p, e in zip(passages, made, strict=True)}, FINGERPRINT)


def filled() -> FakeStore:
    """Two documents, one of them in its third version, three passages, all compressed."""
    store = FakeStore()
    first = Document(
        "Old news.", "trip", "trip.md", "user/ada", {"year": 2019}, MONDAY, MONDAY, None, 1, False
    )
    second = replace(first, text="Newer news.", version=2, updated_at=TUESDAY)
    third = replace(
        second, text="Lisbon is nice. So is Porto.", version=4, current=True, expires_at=TUESDAY
    )
    store.restore([first, second, third], cut(third))
    metadata = {"a": None, "b": 1.5, "c": True, "d": "ü \u2028\x07"}
    alone = Document("Ünïcode – 漢字 🙂.", "alone", None, "", metadata, TUESDAY, TUESDAY)
    store.restore([alone], cut(alone))
    compress_all(store)
    return store


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """An archive of `filled()`."""
    path = tmp_path / "whole.cmt"
    archive.write(filled(), path)
    return path


def same_memories(left: FakeStore, right: FakeStore) -> bool:
    """True when both stores hold the same passages with the same bytes behind them."""

    def bytes_of(store: FakeStore) -> list[object]:
        pairs = [
            (p, store.memories[p.id])
            for passages in store.cut.values()
            for p in passages
            if p.id in store.memories
        ]
        return [
            (
                p.document_id,
                p.text,
                f,
                e.compressed.kind,
                e.compressed.tokens,
                e.embedding.tobytes(),
                _bytes(e),
            )
            for p, (e, f) in pairs
        ]

    return sorted(bytes_of(left), key=repr) == sorted(bytes_of(right), key=repr)


def _bytes(encoded: Encoded) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {n: (str(a.dtype), a.shape, a.tobytes()) for n, a in encoded.compressed.arrays.items()}


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with its members changed."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    new = path.with_name("changed.cmt")
    with zipfile.ZipFile(new, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
    return new


def with_row(path: Path, member: str, line: int, **fields: Any) -> Path:
    """The archive with fields of one JSON line replaced."""

    def change(members: dict[str, bytes]) -> None:
        rows = [json.loads(row) for row in members[member].splitlines()]
        rows[line] |= fields
        members[member] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    return rewritten(path, change)


def with_manifest(path: Path, **fields: Any) -> Path:
    """The archive with fields of its manifest replaced."""

    def change(members: dict[str, bytes]) -> None:
        members["manifest.json"] = json.dumps(
            json.loads(members["manifest.json"]) | fields
        ).encode()

    return rewritten(path, change)


def refused(path: Path, error: type[CMTError] = StorageDamaged, longest: int = 10_000) -> str:
    """The message with which an archive is refused; nothing may have been stored."""
    store = FakeStore()
    with pytest.raises(error) as raised:
        take(store, path, longest=longest)
    assert store == FakeStore()
    return str(raised.value)


# -- round trips ---------------------------------------------------------------------------------


def test_everything_comes_back(whole: Path) -> None:
    """Ids, sources, scopes, metadata, times, versions and memories are the ones that went out."""
    store = FakeStore()
    assert take(store, whole) == Progress(added=2, passages=3, compressed=3, taken=3)
    assert {i: store.history(i) for i in store.documents} == {
        i: filled().history(i) for i in filled().documents
    }
    assert same_memories(store, filled())


def test_fidelity_travels_with_its_memory(tmp_path: Path) -> None:
    """As it was measured, also 1 and 0; where it was not, and from archives that know nothing of
    it, None.
    """
    store, there = filled(), FakeStore()
    store.memories = {
        i: (replace(e, fidelity=measured), f)
        for (i, (e, f)), measured in zip(
            sorted(store.memories.items()), (1.0, 0.0, None), strict=True
        )
    }
    archive.write(store, tmp_path / "all.cmt")
    take(there, tmp_path / "all.cmt")
    assert [there.memories[i][0].fidelity for i in sorted(there.memories)] == [1.0, 0.0, None]

    def forget(members: dict[str, bytes]) -> None:
        rows = [json.loads(line) for line in members["memories/00000.jsonl"].splitlines()]
        kept = [{n: v for n, v in row.items() if n != "fidelity"} for row in rows]
        members["memories/00000.jsonl"] = b"".join(json.dumps(row).encode() + b"\n" for row in kept)

    earlier = FakeStore()
    take(earlier, rewritten(tmp_path / "all.cmt", forget))
    assert [e.fidelity for e, _ in earlier.memories.values()] == [None] * 3


def test_returns_the_number_of_documents(tmp_path: Path) -> None:
    """Documents are counted, not versions."""
    assert archive.write(filled(), tmp_path / "a.cmt") == 2
    assert archive.write(FakeStore(), tmp_path / "b.cmt") == 0
    assert take(FakeStore(), tmp_path / "b.cmt") == Progress()


def test_other_programs_can_read_it(whole: Path) -> None:
    """The members are plain JSON and safetensors under the documented names."""
    with zipfile.ZipFile(whole) as file:
        assert sorted(file.namelist()) == [
            "documents.jsonl", "manifest.json", "memories/00000.jsonl", "memories/00000.safetensors",
        ]  # fmt: skip
        manifest = json.loads(file.read("manifest.json"))
        lines = [json.loads(line) for line in file.read("documents.jsonl").splitlines()]
        arrays = load(file.read("memories/00000.safetensors"))
    assert {n: manifest[n] for n in ("format", "documents", "versions", "memories", "shards")} == {
        "format": 1, "documents": 2, "versions": 4, "memories": 3, "shards": 1,
    }  # fmt: skip
    assert [(line["id"], line["version"], line["current"]) for line in lines] == [
        ("trip", 1, False), ("trip", 2, False), ("trip", 4, True), ("alone", 1, True),
    ]  # fmt: skip
    assert lines[3]["text"] == "Ünïcode – 漢字 🙂."
    assert arrays["0.key"].shape == (64,)


def test_the_same_memory_makes_the_same_file(tmp_path: Path) -> None:
    """No clock and no order of chance is in an archive."""
    for name in ("a.cmt", "b.cmt"):
        archive.write(filled(), tmp_path / name)
    assert (tmp_path / "a.cmt").read_bytes() == (tmp_path / "b.cmt").read_bytes()


def test_importing_twice_changes_nothing(whole: Path) -> None:
    """Documents that are here already are unchanged, and their memories stay as they are."""
    store = FakeStore()
    take(store, whole)
    memories = dict(store.memories)
    assert take(store, whole) == Progress(unchanged=2)
    assert store.memories == memories


def test_an_import_that_was_cut_off_goes_on(whole: Path) -> None:
    """Texts that came in without their memories get them the next time."""
    store = FakeStore()
    take(store, whole)
    store.memories.clear()
    assert take(store, whole) == Progress(unchanged=2, compressed=3, taken=3)
    assert same_memories(store, filled())


def test_memories_of_another_model_are_left_to_be_made_again(whole: Path) -> None:
    """The documents come in, their passages wait."""
    store = FakeStore()
    assert take(store, whole, accepts=False) == Progress(added=2, passages=3)
    assert store.memories == {}


def test_memories_fit_by_what_they_were_made_of(whole: Path) -> None:
    """Where texts are cut otherwise here, the memories of other passages are not taken."""
    store = FakeStore()
    rules = archive.ArchiveImport(
        refuse_nul,
        lambda document: [Span(0, len(document.text), 1)],
        lambda *_: True,
        10_000,
        None,
        True,
    )
    assert list(archive.read(store, whole, rules))[-1] == Progress(
        added=2, passages=2, compressed=1, taken=1
    )
    assert [p.document_id for p in store.cut["alone"]] == ["alone"]
    assert set(store.memories) == {store.cut["alone"][0].id}


def test_passages_that_wait_go_out_as_text(tmp_path: Path) -> None:
    """A memory that is not compressed yet can be exported."""
    store = filled()
    store.memories.clear()
    archive.write(store, tmp_path / "a.cmt")
    copy = FakeStore()
    assert take(copy, tmp_path / "a.cmt") == Progress(added=2, passages=3)


def test_the_same_text_under_another_id_keeps_its_id(whole: Path) -> None:
    """Of a text without a source there is one; the metadata that it lacks come along."""
    store = FakeStore()
    store.restore([Document("Ünïcode – 漢字 🙂.", "mine")], [Span(0, 13, 13)])
    assert take(store, whole) == Progress(added=1, updated=1, passages=2, compressed=2, taken=2)
    assert set(store.documents) == {"mine", "trip"}
    assert store.history("mine")[-1].metadata["c"] is True


def test_a_document_that_went_on_here_is_unchanged(whole: Path) -> None:
    """An archive does not undo an update that came after it."""
    store = filled()
    latest = replace(store.documents["trip"][-1], text="Newest news.", version=5)
    store.documents["trip"] = [replace(d, current=False) for d in store.documents["trip"]] + [
        latest
    ]
    assert take(store, whole) == Progress(unchanged=2)
    assert store.history("trip")[-1].text == "Newest news."


def test_an_id_that_stands_for_another_text_stops_the_import(whole: Path) -> None:
    """Nothing is stored, not even the documents before it."""
    store = FakeStore()
    store.restore([Document("Something else.", "alone")], [Span(0, 15, 15)])
    with pytest.raises(AlreadyExists, match="1 document went on here and in the archive"):
        take(store, whole)
    assert set(store.documents) == {"alone"}


def test_shards_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is closed at its size; every memory comes back from whichever it is in."""
    # a key of 256 bytes and some text: two memories a shard
    monkeypatch.setattr(writing, "SHARD_BYTES", 300)
    archive.write(filled(), tmp_path / "a.cmt")
    with zipfile.ZipFile(tmp_path / "a.cmt") as file:
        assert "memories/00001.safetensors" in file.namelist()
    store = FakeStore()
    assert take(store, tmp_path / "a.cmt").compressed == 3
    assert same_memories(store, filled())


def test_memory_use_does_not_grow_with_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times the memories need less than twice the room to write or to check."""
    monkeypatch.setattr(writing, "SHARD_BYTES", 2**18)

    def peak(documents: int) -> int:
        store = FakeStore()
        big = FakeCompressor().compress(["x" * 20_000])[0]
        for n in range(documents):
            store.restore([Document(f"Text {n}.", f"d{n}")], [Span(0, 5, 1)])
            store.memories[n + 1] = (big, FINGERPRINT)
        tracemalloc.start()
        archive.write(store, tmp_path / f"{documents}.cmt")
        with contents.opened(tmp_path / f"{documents}.cmt", 10_000) as read:
            read.check()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(400) < 2 * peak(40)


# -- writing -------------------------------------------------------------------------------------


def test_does_not_overwrite_unless_asked(whole: Path) -> None:
    """The file that is there stays as it is."""
    before = whole.read_bytes()
    with pytest.raises(AlreadyExists, match=r"whole\.cmt is there already"):
        archive.write(FakeStore(), whole)
    assert whole.read_bytes() == before
    assert archive.write(FakeStore(), whole, overwrite=True) == 0
    assert whole.read_bytes() != before


def test_a_full_disk_leaves_nothing_behind(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file stays, the half-written one goes."""
    before = whole.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="disk is full"):
        archive.write(FakeStore(), whole, overwrite=True)
    assert whole.read_bytes() == before
    assert list(whole.parent.iterdir()) == [whole]


def test_an_error_of_the_store_leaves_nothing_behind(tmp_path: Path) -> None:
    """An archive is whole or not there."""

    class Broken(FakeStore):
        def encodings(self, passage_ids: Sequence[int]) -> dict[int, tuple[Encoded, Fingerprint]]:
            raise StorageDamaged("a page cannot be read")

    store = Broken(filled().documents, filled().cut)
    with pytest.raises(StorageDamaged, match="a page cannot be read"):
        archive.write(store, tmp_path / "a.cmt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """No folder is made on the way."""
    with pytest.raises(NotFound, match="nowhere"):
        archive.write(FakeStore(), tmp_path / "nowhere" / "a.cmt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    """The system's refusal is ours in words."""
    tmp_path.chmod(0o500)
    with pytest.raises(StorageDenied):
        archive.write(FakeStore(), tmp_path / "a.cmt")


def test_only_the_owner_can_read_it(whole: Path) -> None:
    """Memories are private."""
    assert whole.stat().st_mode & 0o077 == 0


# -- through a Memory on disk --------------------------------------------------------------------


def travelled(tmp_path: Path) -> Path:
    """An archive of a memory on disk: an updated document and one in another scope."""
    with open_fake(tmp_path / "old") as memory:
        first = memory.add(
            "The museum moved to Lisbon in 2019.", id="trip", metadata={"year": 2019}
        )
        memory.update(first.id, "The museum moved to Porto in 2021.")
        memory.add("Ada likes green tea.", source="ada.md", scope="user/ada")
        assert memory.export(tmp_path / "all.cmt") == 2
    return tmp_path / "all.cmt"


def test_a_memory_travels_without_being_compressed_again(tmp_path: Path) -> None:
    """Texts, histories, times and memories arrive; nothing is compressed for it."""
    path = travelled(tmp_path)
    engine = FakeEngine()
    steps: list[Progress] = []
    with open_fake(tmp_path / "old") as old, open_fake(tmp_path / "new", engine) as new:
        assert new.import_archive(path, on_progress=steps.append) == Progress(
            added=2, passages=2, compressed=2, taken=2
        )
        assert new.history("trip") == old.history("trip")
        assert list(new.documents()) == list(old.documents())
        assert engine.compressor.compressed == []
        assert (
            new.model.ask("Where did the museum move?").text == "The museum moved to Porto in 2021."
        )
        assert new.search("green tea", mode="vector")[0].document.source == "ada.md"
    assert steps[-1] == Progress(added=2, passages=2, compressed=2, taken=2)


def test_a_memory_of_another_model_is_compressed_anew(tmp_path: Path) -> None:
    """Texts arrive, and the model of the new place makes its own memories at once or in the
    background.
    """
    path = travelled(tmp_path)
    for folder, wait in (("now", True), ("later", False)):
        engine = FakeEngine.of(base="another")
        with open_fake(tmp_path / folder, engine) as new:
            assert new.import_archive(path, wait=wait).added == 2
            assert new.wait(30)
            assert sorted(engine.compressor.compressed) == [
                "The museum moved to Porto in 2021.",
                "ada\nAda likes green tea.",
            ]
            assert new.stats().pending == 0


def test_a_memory_of_another_shape_is_not_taken(tmp_path: Path) -> None:
    """A file may claim any fingerprint; keys of another size would spoil every search."""
    path = travelled(tmp_path)

    def shrink(members: dict[str, bytes]) -> None:
        arrays = dict(load(members["memories/00000.safetensors"]))
        keys = {name: np.eye(8, dtype=np.float32)[0] for name in arrays if name.endswith(".key")}
        members["memories/00000.safetensors"] = save(arrays | keys)

    with open_fake(tmp_path / "new") as new:
        assert new.import_archive(rewritten(path, shrink), trust=True) == Progress(
            added=2, passages=2, compressed=2
        )
        assert new.search("green tea", mode="vector")[0].document.source == "ada.md"


def test_a_budget_holds_for_what_comes_in(tmp_path: Path) -> None:
    """Memories over it are dropped again and made when they are needed."""
    path = travelled(tmp_path)
    with open_fake(tmp_path / "new", memory_budget=1) as new:
        new.import_archive(path)
        assert new.stats().cold == 2


# -- hostile and damaged files -------------------------------------------------------------------


def test_what_a_callback_raises_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    """It comes out as it was raised; what was imported before it stays."""

    def broken(progress: Progress) -> None:
        raise FileNotFoundError("the caller's own")

    with open_fake(tmp_path / "a") as memory:
        memory.add("The boat is in Genoa.")
        memory.export(tmp_path / "a.cmt")
    with open_fake(tmp_path / "b") as memory:
        with pytest.raises(FileNotFoundError, match="the caller's own"):
            memory.import_archive(tmp_path / "a.cmt", on_progress=broken)
        assert memory.count() == 1


def in_two_hours(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the memory's clock forward."""
    monkeypatch.setattr(memory._store, "_clock", lambda: datetime.now(UTC) + timedelta(hours=2))


def test_what_expired_since_it_was_exported_comes_in_as_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One old note must not make a backup unreadable."""
    with open_fake(tmp_path / "a") as memory:
        memory.add("Short-lived.", expires_at=datetime.now(UTC) + timedelta(hours=1))
        memory.add("The boat is in Genoa.")
        memory.export(tmp_path / "a.cmt")
    with open_fake(tmp_path / "b") as memory:
        in_two_hours(memory, monkeypatch)
        assert memory.import_archive(tmp_path / "a.cmt").added == 2
        assert [d.text for d in memory.documents()] == ["The boat is in Genoa."]


def test_what_expired_here_makes_room_for_what_lives_in_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same text and with another."""
    for text in ("The boat is in Genoa.", "The boat was in Porto."):
        with open_fake(tmp_path / text[-6:] / "a") as memory:
            memory.add("The boat is in Genoa.", id="boat")
            memory.export(tmp_path / text[-6:] / "a.cmt")
        with open_fake(tmp_path / text[-6:] / "b") as memory:
            memory.add(text, id="boat", expires_at=datetime.now(UTC) + timedelta(hours=1))
            in_two_hours(memory, monkeypatch)
            assert memory.import_archive(tmp_path / text[-6:] / "a.cmt").added == 1
            assert memory.get("boat").text == "The boat is in Genoa."


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Nothing there is not damage."""
    assert "nowhere.cmt" in refused(tmp_path / "nowhere.cmt", NotFound)


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"plain text", b"\x00" * 100, b"PK\x05\x06" + b"\xff" * 18]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    """Any file may be named by mistake."""
    path = tmp_path / "a.cmt"
    path.write_bytes(data)
    assert "a.cmt" in refused(path)


def test_another_zip_file_is_refused(tmp_path: Path) -> None:
    """A zip file without a manifest is no memory."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("photo.jpg", b"")
    assert "no manifest.json" in refused(tmp_path / "a.zip")


def test_every_truncation_is_refused(whole: Path) -> None:
    """A file that is cut off anywhere is damaged, and nothing of it is stored."""
    data, cut_off = whole.read_bytes(), whole.with_name("cut.cmt")
    for length in range(0, len(data), 97):
        cut_off.write_bytes(data[:length])
        refused(cut_off)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_flipped_bit_never_passes_for_something_else(whole: Path, data: st.DataObject) -> None:
    """It is found, or it stands where it does not matter: no other error, no other content."""
    content = bytearray(whole.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    flipped = whole.with_name("flipped.cmt")
    flipped.write_bytes(content)
    store = FakeStore()
    try:
        take(store, flipped)
    except (StorageDamaged, StorageNewer):
        assert store == FakeStore()
    else:
        assert {i: store.history(i) for i in store.documents} == {
            i: filled().history(i) for i in filled().documents
        }
        assert same_memories(store, filled())


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "memories/../../outside",
        "memories/00001.jsonl",
        "pickle.pkl",
        "a\\b",
    ],
)
def test_members_of_other_names_are_refused(whole: Path, name: str) -> None:
    """Only the members that the manifest counts may be there, and nothing is ever unpacked."""
    path = rewritten(whole, lambda members: members.update({name: pickle.dumps("never loaded")}))
    assert "do not belong there" in refused(path)
    assert not (whole.parent.parent / "outside").exists()


def test_a_missing_member_is_refused(whole: Path) -> None:
    """A shard that the manifest counts has to be there."""
    assert "missing" in refused(
        rewritten(whole, lambda members: members.pop("memories/00000.jsonl") and None)
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(whole: Path) -> None:
    """Two programs could read two different archives out of one file."""
    with zipfile.ZipFile(whole, "a") as out:
        out.writestr("documents.jsonl", b"")
    assert "twice" in refused(whole)


def test_a_link_is_refused(whole: Path) -> None:
    """A member that says it is a symbolic link is none of ours."""
    with zipfile.ZipFile(whole) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(whole, "w") as out:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == "documents.jsonl" else 0o600) << 16
            out.writestr(info, data)
    assert "only plain" in refused(whole)


def test_a_bomb_is_refused_before_it_expands(tmp_path: Path) -> None:
    """A compressed member is not read at all."""
    path = tmp_path / "bomb.cmt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("manifest.json", b" " * 50_000_000)
    tracemalloc.start()
    assert "uncompressed" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_false_count_of_shards_is_refused(whole: Path) -> None:
    """Names are not made up for shards that are not there."""
    assert "do not belong" in refused(with_manifest(whole, shards=10**15))


@pytest.mark.parametrize("count", ["documents", "versions", "memories"])
def test_a_false_count_is_refused(whole: Path, count: str) -> None:
    """What the manifest says is what there is."""
    assert "the manifest says" in refused(with_manifest(whole, **{count: 7}))


def test_a_newer_format_is_named_as_such(whole: Path) -> None:
    """The remedy is another release, not another file."""
    assert "format 3" in refused(with_manifest(whole, format=3), StorageNewer)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "1"}, {"format": None}, {"format": -1}, {"format": True}, {"documents": -1}, {"shards": 1.0},
        {"fingerprints": []}, {"fingerprints": {"x": {}}}, {"fingerprints": {"x": None}},
    ],
)  # fmt: skip
def test_a_manifest_of_the_wrong_shape_is_refused(whole: Path, fields: dict[str, Any]) -> None:
    """Every field has its type and its range."""
    refused(with_manifest(whole, **fields))


def test_a_fingerprint_has_to_name_itself(whole: Path) -> None:
    """What made a memory cannot be exchanged behind its name."""
    with zipfile.ZipFile(whole) as file:
        prints = json.loads(file.read("manifest.json"))["fingerprints"]
    name = next(iter(prints))
    prints[name]["base"] = "another"
    assert "does not name itself" in refused(with_manifest(whole, fingerprints=prints))


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ""}, {"id": 7}, {"text": None}, {"text": ["a"]}, {"source": 1}, {"scope": None},
        {"version": 0}, {"version": "1"}, {"version": True}, {"current": 1}, {"metadata": None},
        {"metadata": {"a": [1]}}, {"metadata": {"a": {"b": 1}}}, {"created_at": "soon"}, {"created_at": 7},
        {"updated_at": "2025-03-03T09:30:00"}, {"text": "\ud800"}, {"metadata": {"\udfff": 1}},
        {"version": 2**63}, {"source": "a\0b"}, {"metadata": {"a\0b": 1}}, {"metadata": {"a": float("nan")}},
        {"created_at": "0001-01-01T00:00:00+14:00"},
    ],
)  # fmt: skip
def test_a_document_of_the_wrong_shape_is_refused(whole: Path, fields: dict[str, Any]) -> None:
    """Every field has its type; half a surrogate pair is no text."""
    assert "documents.jsonl, line 4" in refused(with_row(whole, "documents.jsonl", 3, **fields))


def test_versions_out_of_order_are_refused(whole: Path) -> None:
    """A history runs forward, and only its last version is current."""
    assert "not in order" in refused(with_row(whole, "documents.jsonl", 0, version=3))
    assert "not in order" in refused(with_row(whole, "documents.jsonl", 0, current=True))
    assert "not in order" in refused(with_row(whole, "documents.jsonl", 3, current=False))
    assert "not in order" in refused(with_row(whole, "documents.jsonl", 3, id="trip"))


@pytest.mark.parametrize(
    "line",
    [b"[]", b"1", b"{", b"\xff\xfe", b"[" * 100_000, b'{"version": ' + b"9" * 5000 + b"}", b""],
)
def test_a_line_that_is_no_object_is_refused(whole: Path, line: bytes) -> None:
    """Neither deep nesting nor long numbers nor broken text gets through."""
    refused(rewritten(whole, lambda members: members.update({"documents.jsonl": line + b"\n"})))


def test_a_text_that_this_memory_would_not_take_is_refused(whole: Path) -> None:
    """The check of `add` holds for archives, before anything is stored."""
    refused(with_row(whole, "documents.jsonl", 3, text="a\x00b"), InvalidDocument)


def test_a_line_over_the_limit_is_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text may be as long as this memory's limit allows, and no line much longer."""
    monkeypatch.setattr(contents, "LARGEST_ROW", 500)
    path = with_row(whole, "documents.jsonl", 3, text="x" * 5000)
    assert "over 1100 bytes" in refused(path, longest=100)


@pytest.mark.parametrize(
    "fields",
    [
        {"document": None}, {"tokens": -1}, {"tokens": 2**31}, {"tokens": "1"}, {"kind": 1}, {"arrays": None},
        {"arrays": [1]}, {"arrays": ["bytes", "bytes"]}, {"arrays": []}, {"arrays": ["other"]},
        {"fingerprint": "unknown"}, {"fidelity": 1.5}, {"fidelity": -0.1}, {"fidelity": "high"}, {"fidelity": True},
    ],
)  # fmt: skip
def test_a_memory_of_the_wrong_shape_is_refused(whole: Path, fields: dict[str, Any]) -> None:
    """A row names the arrays that are there and a fingerprint of the manifest."""
    assert "memories/00000" in refused(with_row(whole, "memories/00000.jsonl", 1, **fields))


def unsound_shards() -> Iterator[Any]:
    """Bytes that are no safetensors, or none that belong to the rows beside them."""
    sound = {f"{n}.memory.bytes": np.zeros(4, np.uint8) for n in range(3)}
    unit = {f"{n}.key": np.eye(64, dtype=np.float32)[0] for n in range(3)}
    yield pytest.param(b"", id="empty")
    yield pytest.param(b"\xff" * 64, id="header-longer-than-file")
    yield pytest.param(pickle.dumps({"a": 1}), id="pickle")
    yield pytest.param(b"\x02" + b"\x00" * 7 + b"{}", id="no-tensor")
    header = json.dumps({"0.key": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
    yield pytest.param(len(header).to_bytes(8, "little") + header + b"1234", id="shape-beyond-data")
    header = json.dumps({"0.key": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    yield pytest.param(
        len(header).to_bytes(8, "little") + header + b"1234", id="a-type-numpy-lacks"
    )
    yield pytest.param(save(sound | unit | {"9.key": unit["0.key"]}), id="one-too-many")
    yield pytest.param(
        save(sound | unit | {"0.key": np.zeros(64, np.float32)}), id="key-of-length-0"
    )
    yield pytest.param(
        save(sound | unit | {"0.key": np.full(64, np.nan, np.float32)}), id="key-not-a-number"
    )
    yield pytest.param(
        save(sound | unit | {"0.key": np.eye(8, dtype=np.float32)}), id="key-a-matrix"
    )
    yield pytest.param(save(sound | unit | {"0.key": np.ones(1, np.float64)}), id="key-of-doubles")


@pytest.mark.parametrize("shard", list(unsound_shards()))
def test_an_unsound_shard_is_refused(whole: Path, shard: bytes) -> None:
    """Arrays are read by safetensors alone and have to be the ones that the rows name."""
    assert "memories/00000" in refused(
        rewritten(whole, lambda members: members.update({"memories/00000.safetensors": shard}))
    )


def test_a_shard_over_the_limit_is_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shard is loaded that is larger than any that is written."""
    monkeypatch.setattr(contents, "LARGEST_SHARD", 1000)
    assert "the limit is 1000" in refused(whole)


def test_an_encrypted_member_is_refused(whole: Path) -> None:
    """We ask for no passwords."""
    data = bytearray(whole.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    whole.write_bytes(data)
    assert "only plain" in refused(whole)
