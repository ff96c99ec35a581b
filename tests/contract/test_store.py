"""What ports.Store and ports.VectorStore promise, asked of the store on disk."""

import errno
import hashlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from cmt_sdk.errors import (
    AlreadyExists,
    DocumentNotFound,
    InvalidDocument,
    InvalidFilter,
    InvalidInput,
    MemoryNotFound,
    ModelMismatch,
    StorageDamaged,
    StorageDenied,
    StorageFull,
    StorageLocked,
    StorageNewer,
)
from cmt_sdk.ports import Known, Store, VectorStore
from cmt_sdk.storage.disk_errors import translated
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import Document, Encoded, Filter, Fingerprint, PackedMemory, Removed, Span
from cmt_sdk.vectors import Changes, Generation

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
OTHER = replace(FINGERPRINT, model="other", base="0" * 16)
MORE = replace(FINGERPRINT, keep=0.5)  # which the same model can read
LISBON = "The museum moved to Lisbon in 2019."
GENOA = "The harbour of Genoa opens at nine. Its lighthouse is old."


class Clock:
    """A clock that goes on by a second with every reading, and by more when told to."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        """The time, a second after the last one told."""
        self.time += timedelta(seconds=1)
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "notes", clock=clock)
    yield opened
    opened.close()


def spans(text: str, heading: str = "") -> list[Span]:
    """A span a sentence."""
    ends = [i + 1 for i, c in enumerate(text) if c == "."] or [len(text)]
    starts = [0, *(e + 1 for e in ends[:-1])]
    return [Span(a, b, len(text[a:b].split()), heading) for a, b in zip(starts, ends, strict=True)]


def put(store: SQLiteStore, text: str = LISBON, **fields: object) -> Document:
    """Store a document and return it."""
    return store.add(Document(text, **fields), spans(text))[0]


def encoded(seed: int = 1, size: int = 64) -> Encoded:
    """A memory of `size` bytes and an embedding of 8 values."""
    key = np.random.default_rng(seed).standard_normal(8).astype(np.float32)
    return Encoded(
        PackedMemory("fake", 3, {"bytes": np.full(size, seed, np.uint8)}), key / np.linalg.norm(key)
    )


def save_all(store: SQLiteStore, fingerprint: Fingerprint = FINGERPRINT) -> list[int]:
    """Encode whatever waits; its passage ids."""
    ids = [p.id for p in store.pending(1_000)]
    store.save({i: encoded(i) for i in ids}, fingerprint)
    return ids


def found(store: SQLiteStore, query: str, **conditions: object) -> list[str]:
    """Texts of the passages that a full-text search finds, best first."""
    hits = [h.passage_id for h in store.search_text(query, 10, Filter(**conditions))]
    texts = {i: p.text for i, (p, _) in store.passages(hits).items()}
    return [texts[h] for h in hits]


def test_the_store_obeys_its_ports(store):
    """The type checker sees to the signatures in cmt_sdk; here the names are all there."""
    for port in (Store, VectorStore):
        names = [n for n in dir(port) if not n.startswith("_")]
        assert [n for n in names if not hasattr(store, n)] == []
        assert [n for n in names if not callable(getattr(store, n))] == (
            ["read_only"] if port is Store else []
        )


# -- documents -----------------------------------------------------------------------------------


def test_add_fills_in_what_is_missing(store):
    """An id, the times, the first version; not ready until its passages have vectors."""
    document, outcome = store.add(
        Document(LISBON, source="trip.md", scope="u", metadata={"a": 1}), spans(LISBON)
    )
    assert outcome == "added"
    assert len(document.id) == 32
    assert START < document.created_at == document.updated_at
    assert document == Document(
        LISBON,
        document.id,
        "trip.md",
        "u",
        {"a": 1},
        document.created_at,
        document.created_at,
        None,
        1,
        True,
        False,
    )
    save_all(store)
    assert store.history(document.id) == [replace(document, ready=True)]


def test_what_stays_of_a_text_is_not_lost_to_the_index(store):
    """A sentence appended: two passages stay as they are, one waits, and no embedding goes."""
    first = put(store, GENOA)
    kept = save_all(store)
    before = store.changes()
    longer = f"{GENOA}{LISBON}"
    cut = [*spans(GENOA), Span(len(GENOA), len(longer), 7)]
    assert store.replace(first.id, {"text": longer}, cut).ready is False
    assert [p.id for p in store.passages_of(first.id)][:2] == kept
    assert [p.text for p in store.pending(10)] == [LISBON]
    assert store.changes() == before
    assert store.load(kept, FINGERPRINT).keys() == set(kept)
    assert found(store, "lighthouse") == ["Its lighthouse is old."]
    store.replace(first.id, {"text": LISBON}, spans(LISBON))
    assert [p.text for p in store.passages_of(first.id)] == [LISBON]
    assert store.changes().lost > before.lost
    assert found(store, "lighthouse") == []


def test_a_known_document_is_cut_as_what_it_becomes(store):
    """`split` sees what was known and what is to be stored, and may leave the passages as they
    are.
    """
    seen = []

    def split(known: Document, new: Document) -> list[Span] | None:
        seen.append((known.source, new.source, dict(new.metadata)))
        return (
            None
            if new.text == known.text and new.source == known.source
            else spans(new.text, str(new.source))
        )

    put(store, LISBON, source="a.md", metadata={"n": 1})
    store.add(Document(LISBON, metadata={"n": 2}), spans(LISBON), split=split)
    store.add(Document(LISBON, metadata={"n": 2}), split=split)
    store.add(Document(GENOA, source="a.md"), spans(GENOA), by_source=True, split=split)
    (document,) = store.page(Filter(), 10, None).documents
    assert [p.heading for p in store.passages_of(document.id)] == ["a.md", "a.md"]
    store.replace(document.id, {"source": "b.md"}, split=split)
    assert [p.heading for p in store.passages_of(document.id)] == ["b.md", "b.md"]
    assert found(store, "b") == [p.text for p in store.passages_of(document.id)][::-1]
    assert seen == [
        ("a.md", "a.md", {"n": 2}),
        ("a.md", "a.md", {"n": 2}),
        ("a.md", "b.md", {"n": 2}),
    ]


def test_what_is_given_is_kept_exactly(store):
    """Id, times to the microsecond, any metadata value, any text."""
    moment = datetime(1969, 7, 20, 20, 17, 40, 123456, UTC)
    metadata = {
        "": None,
        'k"\\\n.]': 'v"\\',
        "n": -(2**63),
        "x": 0.1,
        "t": True,
        "ключ": "значение 🙂",
    }
    given = Document(
        "🙂 a\r\n\tb\u2028c",
        "my id/é",
        None,
        "a/b",
        metadata,
        moment,
        expires_at=moment + timedelta(36500),
    )
    stored = put(
        store,
        given.text,
        **{n: getattr(given, n) for n in ("id", "scope", "metadata", "created_at", "expires_at")},
    )
    assert replace(stored, updated_at=None) == given
    assert list(stored.metadata) == list(metadata)
    assert [p.text for p in store.passages_of("my id/é")] == [given.text]


def test_an_expiry_at_the_end_of_time_is_kept(store):
    """People write datetime.max for "never"; it must not make the document unreadable."""
    document = put(store, expires_at=datetime.max.replace(tzinfo=UTC))
    assert document.expires_at == datetime(9999, 12, 31, tzinfo=UTC)
    assert store.page(Filter(), 1, None).documents == [document]


def undated(document):
    """A document without the time at which it was last told."""
    return replace(document, updated_at=None)


def again(store, document):
    """Add a document; what is stored, without its time, and what happened."""
    stored, outcome = store.add(document, spans(document.text))
    return undated(stored), outcome


def test_what_is_told_again_is_told_last(store):
    """A text without a new source is as new as its last telling; a file that is read again is as
    old as it was.
    """
    first = put(store, source="trip.md")
    told, _ = store.add(Document(LISBON), spans(LISBON))
    read, _ = store.add(Document(LISBON, source="trip.md"), spans(LISBON), by_source=True)
    assert first.updated_at < told.updated_at == read.updated_at
    assert told.created_at == first.created_at


def test_the_same_text_in_a_scope_is_one_document(store):
    """The one there is returned; another scope, another text, and another id given on purpose are
    documents of their own.
    """
    first = put(store, source="trip.md")
    assert again(store, Document(LISBON, source="other.md")) == (undated(first), "unchanged")
    assert again(store, Document(LISBON, id=first.id)) == (undated(first), "unchanged")
    assert store.add(Document(LISBON, scope="u"), spans(LISBON))[1] == "added"
    named, outcome = store.add(Document(LISBON, id="named"), spans(LISBON))
    assert outcome == "added"
    assert again(store, Document(LISBON, id="named")) == (undated(named), "unchanged")
    assert store.count(Filter()) == 3


def test_what_is_said_again_joins_what_was_said(store):
    """Metadata key by key and expiry as given now; what is not given stays, and the source by which
    it is found.
    """
    first = put(store, source="trip.md", metadata={"a": 1})
    later = START + timedelta(days=9)
    both, outcome = store.add(
        Document(LISBON, source="b.md", metadata={"b": 2}, expires_at=later), spans(LISBON)
    )
    assert outcome == "updated"
    assert both == replace(
        first, metadata={"a": 1, "b": 2}, expires_at=later, updated_at=both.updated_at
    )
    assert again(store, Document(LISBON)) == (undated(both), "unchanged")


def test_a_known_text_is_taken_without_cutting_it(store):
    """By its text or by its source; nothing happens for one that is not here."""
    first = put(store, source="trip.md")
    assert store.add(Document(LISBON, source="trip.md"), by_source=True) == (first, "unchanged")
    known, outcome = store.add(Document(LISBON))
    assert (undated(known), outcome) == (undated(first), "unchanged")
    assert store.match(Document(LISBON)).document == known
    assert store.match(Document(LISBON, id="b")).document is None
    assert store.match(Document(GENOA)).document is None
    assert store.stats().versions == 1


def test_match_shows_what_adding_makes_of_a_known_document(store):
    """The document that a given one stands for, and the same one after the addition; nothing is
    stored.
    """
    assert store.match(Document(LISBON)) == Known(hashlib.sha256(LISBON.encode()).hexdigest())
    first = put(store, source="trip.md", metadata={"a": 1})
    before = store.stats()
    more = Document(LISBON, source="b.md", metadata={"b": 2})
    found = store.match(more)
    assert (found.document, found.merged) == (first, replace(first, metadata={"a": 1, "b": 2}))
    longer = Document(GENOA, source="trip.md")
    found = store.match(longer, by_source=True)
    assert (found.document, found.merged) == (first, replace(first, text=GENOA))
    assert found.content_hash == store.match(Document(GENOA)).content_hash
    assert store.stats() == before
    stored, outcome = store.add(longer, spans(GENOA), by_source=True, known=found)
    assert (stored.text, stored.metadata, outcome) == (GENOA, {"a": 1}, "updated")


def test_a_document_that_changes_after_the_match_is_matched_again(store):
    """What another process stores or deletes between `match` and `add` counts."""
    new = Document(LISBON, metadata={"b": 2})
    found = store.match(new)
    put(store, metadata={"a": 1})
    stored, outcome = store.add(new, split=lambda *_: None, known=found)
    assert (dict(stored.metadata), outcome) == ({"a": 1, "b": 2}, "updated")
    found = store.match(new)
    store.delete(Filter(ids=[stored.id]))
    seen = []
    again, outcome = store.add(
        new, split=lambda known, _: seen.append(known) or spans(LISBON), known=found
    )
    assert (again.id != stored.id, outcome, seen) == (True, "added", [None])
    assert [p.text for p in store.passages_of(again.id)] == [LISBON]


def test_another_text_of_a_source_is_its_next_version(store):
    """One transaction finds the source and stores: with the fields given now, and only where it is
    asked for.
    """
    first = put(store, source="trip.md", scope="u", metadata={"a": 1})
    second, outcome = store.add(
        Document(GENOA, source="trip.md", scope="u"), spans(GENOA), by_source=True
    )
    assert (outcome, second.id, second.version, second.text) == ("updated", first.id, 2, GENOA)
    assert second.metadata == {"a": 1}
    assert store.add(
        Document(GENOA, source="trip.md", scope="u"), spans(GENOA), by_source=True
    ) == (second, "unchanged")
    assert store.add(Document(LISBON, source="trip.md", scope="u"), spans(LISBON))[1] == "added"
    assert store.add(Document("New.", source="new.md"), spans("New."), by_source=True)[1] == "added"


def test_a_taken_id_is_refused(store):
    """Another text under a known id is an update, and add does not guess; nothing changes."""
    put(store, id="a")
    with pytest.raises(AlreadyExists, match="'a' is taken"):
        store.add(Document(GENOA, id="a"), spans(GENOA))
    with pytest.raises(AlreadyExists, match="'a' is taken"):
        store.restore([Document(GENOA, id="a")], spans(GENOA))
    assert [d.text for d in store.page(Filter(), 10, None).documents] == [LISBON]


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "\udcff.txt"},
        {"source": "a\0b"},
        {"scope": "\ud800"},
        {"id": "\ud800"},
        {"id": 7},
        {"scope": None},
        {"metadata": {"k": "\ud800"}},
        {"metadata": {"\ud800": 1}},
        {"metadata": {1: 1}},
        {"metadata": {"k": [1]}},
        {"metadata": {"k": {"a": 1}}},
        {"metadata": {"k": float("nan")}},
        {"metadata": {"k": 2**63}},
        {"metadata": {"k": 10**5000}},
        {"metadata": {"k": b"bytes"}},
        {"metadata": {"k": START}},
    ],
)
def test_what_a_database_cannot_hold_is_refused(store, fields):
    """File names that are no UTF-8, NUL, numbers past 64 bits, nested values: our error, and
    nothing is stored.
    """
    with pytest.raises(InvalidDocument):
        put(store, **fields)
    assert store.stats().versions == 0


def test_find_by_source(store, clock):
    """Scope and source exactly; the one changed last of several; not an expired one."""
    old = put(store, source="a*.md", scope="u")
    new = put(store, GENOA, source="a*.md", scope="u")

    def find(scope, source):
        return store.match(Document("?", source=source, scope=scope), by_source=True).document

    assert find("u", "a*.md") == new
    assert store.replace(old.id, {"metadata": {"n": 1}}) == find("u", "a*.md")
    assert find("", "a*.md") is find("u", "a?.md") is find("u", "aX.md") is None
    put(store, "Gone soon.", source="b", expires_at=clock.time + timedelta(minutes=1))
    assert find("", "b").text == "Gone soon."
    clock.time += timedelta(minutes=2)
    assert find("", "b") is None


def test_ids_by_their_beginning(store, clock):
    """Sorted, of living documents only; no sign is a wildcard."""
    for name in ("abd", "abc", "ab", "b", "a%", "é"):
        put(store, f"Text of {name}.", id=name)
    put(store, id="abe", expires_at=clock.time + timedelta(seconds=9))
    clock.time += timedelta(minutes=1)
    assert store.ids("ab") == ["ab", "abc", "abd"]
    assert store.ids("") == ["a%", "ab", "abc", "abd", "b", "é"]
    assert (store.ids("a%"), store.ids("a_"), store.ids("é")) == (["a%"], [], ["é"])


def test_replace_makes_the_next_version(store):
    """The new text answers, the old one is history with its own fields; creation time stays."""
    first = put(store, source="a", metadata={"v": 1})
    save_all(store)
    second = store.replace(
        first.id, {"text": GENOA, "source": "b", "metadata": {"v": 2}}, spans(GENOA)
    )
    assert (second.id, second.version, second.current, second.ready) == (first.id, 2, True, False)
    assert (second.text, second.source, second.metadata) == (GENOA, "b", {"v": 2})
    assert first.created_at == second.created_at < second.updated_at
    assert store.history(first.id) == [replace(first, current=False), second]
    assert [p.version for p in store.passages_of(first.id)] == [2, 2]
    assert found(store, "museum lighthouse") == ["Its lighthouse is old."]
    assert store.count(Filter()) == 1
    assert store.count(Filter(history=True)) == 2


def test_replace_without_spans_changes_fields_in_place(store):
    """No new version, and nothing waits for compression again; nor where the text is the one there
    is.
    """
    first = put(store)
    save_all(store)
    moved = store.replace(first.id, {"source": "b", "scope": "v", "metadata": {"k": "x"}})
    assert moved == replace(
        first, source="b", scope="v", metadata={"k": "x"}, updated_at=moved.updated_at, ready=True
    )
    assert moved.updated_at > first.updated_at
    same = store.replace(first.id, {"text": LISBON, "source": "c"}, spans(LISBON))
    assert (
        store.history(first.id)
        == [same]
        == [replace(moved, source="c", updated_at=same.updated_at)]
    )


def test_what_is_not_changed_is_left_to_others(store):
    """Two who change different fields of one document at once lose neither change."""
    first = put(store)
    store.replace(first.id, {"source": "b"})
    store.replace(first.id, {"metadata": {"k": 1}})
    assert (store.history(first.id)[0].source, store.history(first.id)[0].metadata) == (
        "b",
        {"k": 1},
    )


def test_replace_needs_a_living_document(store, clock):
    """An unknown or expired id is an error that names it."""
    for changes, spans_given in (({"source": "b"}, None), ({"text": LISBON}, [])):
        with pytest.raises(DocumentNotFound, match="'nobody'"):
            store.replace("nobody", changes, spans_given)
    put(store, id="a", expires_at=clock.time + timedelta(minutes=1))
    clock.time += timedelta(minutes=2)
    with pytest.raises(DocumentNotFound):
        store.replace("a", {"source": "b"})


def test_restore_keeps_everything_as_given(store):
    """Versions, ids, numbers and times of an archive; only the last version is cut and found."""
    times = [START - timedelta(days=n) for n in (9, 5, 2)]
    versions = [
        Document(LISBON, "a", "s", "u", {"v": 1}, times[0], times[1], None, 1, False),
        Document(GENOA, "a", "s", "u", {"v": 4}, times[0], times[2], None, 4, True),
    ]
    stored, is_new = store.restore(versions, spans(GENOA))
    assert is_new
    assert store.history("a") == versions == [versions[0], stored]
    assert found(store, "museum lighthouse") == ["Its lighthouse is old."]
    assert store.restore([Document(GENOA, "a", scope="u")], spans(GENOA)) == (stored, False)
    # two of one text stay two
    assert store.restore([Document(GENOA, "b", scope="u")], spans(GENOA))[1]
    assert store.replace(stored.id, {"text": LISBON}, spans(LISBON)).version == 5


def test_an_expired_document_is_gone_in_every_way(store, clock):
    """From its expiry on: not listed, counted, found or compressed, its id and text are free; its
    history stays.
    """
    expiry = clock.time + timedelta(hours=1)
    document = put(store, id="a", source="s", expires_at=expiry)
    (passage,) = save_all(store)
    put(store, "It never got compressed.", expires_at=expiry)
    before = store.changes()
    assert store.vectors(Changes()).passages == [passage]
    clock.time = expiry
    assert store.page(Filter(), 10, None).documents == []
    assert store.count(Filter()) == store.stats().documents == store.stats().pending == 0
    assert (store.passages([passage]), store.pending(10), store.choose(Filter())) == ({}, [], set())
    assert found(store, "museum") == []
    assert (store.vectors(before).live, store.vectors(Changes()).passages, store.alive()) == (
        set(),
        [],
        0,
    )
    assert store.changes() != before
    assert all(f.ok for f in store.check())
    assert store.history("a") == [replace(document, ready=True)]
    again = put(store, GENOA, id="a")
    assert store.history("a") == [again]
    assert store.add(Document("It never got compressed."), [])[1] == "added"


def test_delete_takes_all_versions_and_what_belongs_to_them(store):
    """Returns every removed version; passages, words, memories and vectors go too; others stay."""
    first = put(store, scope="u/ann")
    save_all(store)
    second = store.replace(first.id, {"text": GENOA}, spans(GENOA))
    save_all(store)
    kept = put(store, scope="u/anna")
    before = store.changes()
    removed = store.delete(Filter(scope="u/ann"))
    assert removed == Removed([replace(first, current=False), replace(second, ready=False)], 2)
    assert store.page(Filter(history=True), 10, None).documents == [kept]
    assert found(store, "museum lighthouse") == [LISBON]
    assert store.vectors(before).live == set()
    assert store.changes() != before
    stats = store.stats()
    assert (stats.documents, stats.versions, stats.passages, stats.memory_bytes) == (1, 1, 1, 0)
    assert store.delete(Filter(scope="u/ann")) == Removed([], 0)


def test_delete_takes_an_earlier_version_that_fits(store):
    """What a user's scope once held goes with the scope, though the document has moved; the
    document stays.
    """
    first = put(store, scope="u/ann")
    store.replace(first.id, {"text": GENOA, "scope": "u/bob"}, spans(GENOA))
    assert [d.text for d in store.delete(Filter(scope="u/ann")).versions] == [LISBON]
    assert [(d.text, d.version) for d in store.history(first.id)] == [(GENOA, 2)]
    assert found(store, "lighthouse") == ["Its lighthouse is old."]


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


def test_delete_takes_expired_documents_too(store, clock):
    """What a user wants forgotten must not hide behind its expiry."""
    put(store, id="a", expires_at=clock.time + timedelta(minutes=1))
    clock.time += timedelta(minutes=2)
    assert [d.id for d in store.delete(Filter(ids=["a"])).versions] == ["a"]


def test_more_documents_than_one_list_of_sql_takes(store, monkeypatch):
    """They go in several lists, in one transaction."""
    monkeypatch.setattr("cmt_sdk.storage.connection.MANY", 3)
    for i in range(11):
        put(store, f"Fact {i}.", id=str(i))
    removed = store.delete(Filter(ids=[str(i) for i in range(10)]))
    assert (len(removed.versions), removed.passages) == (10, 10)
    assert [d.id for d in store.page(Filter(), 10, None).documents] == ["10"]


# -- pages ---------------------------------------------------------------------------------------


def walk(store: SQLiteStore, filter: Filter, limit: int) -> list[str]:
    """Texts page by page."""
    texts, cursor = [], None
    while True:
        page = store.page(filter, limit, cursor)
        assert len(page.documents) <= limit
        texts += [d.text for d in page.documents]
        cursor = page.next_cursor
        if cursor is None:
            return texts


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_hold_each_document_once_in_order_of_creation(store, limit):
    """Also where many were made at the same moment."""
    for i in range(7):
        put(
            store,
            f"Fact {i}.",
            created_at=START + timedelta(seconds=i // 3),
            scope="u" if i % 2 else "",
        )
    assert walk(store, Filter(), limit) == [f"Fact {i}." for i in range(7)]
    assert walk(store, Filter(scope="u"), limit) == ["Fact 1.", "Fact 3.", "Fact 5."]


def test_the_last_page_says_so(store):
    """A full last page has no next one; an empty listing neither."""
    assert store.page(Filter(), 2, None) == store.page(Filter(), 2, "0.0/0")
    put(store)
    put(store, GENOA)
    assert store.page(Filter(), 2, None).next_cursor is None
    assert store.page(Filter(), 1, None).next_cursor is not None


def test_a_cursor_survives_changes(store):
    """What is updated, added or deleted between two pages neither repeats nor hides another
    document.
    """
    made = [put(store, f"Fact {i}.", created_at=START) for i in range(5)]
    page = store.page(Filter(), 2, None)
    store.replace(made[0].id, {"text": "New fact 0."}, spans("New fact 0."))
    store.replace(made[1].id, {"text": "New fact 1."}, spans("New fact 1."))
    store.delete(Filter(ids=[made[1].id, made[3].id]))
    put(store, "Fact 5.")
    rest = store.page(Filter(), 10, page.next_cursor)
    assert [d.text for d in rest.documents] == ["Fact 2.", "Fact 4.", "Fact 5."]
    assert walk(store, Filter(), 1) == ["New fact 0.", "Fact 2.", "Fact 4.", "Fact 5."]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "1", "1/", "/1", "nan/1", "1/1/1", "1e5/-1", "1/" + "9" * 400, "1 OR 1=1/1", "１/1"],
)
def test_a_foreign_cursor_is_refused(store, cursor):
    """Only what `page` gave out."""
    with pytest.raises(InvalidInput, match="next_cursor"):
        store.page(Filter(), 1, cursor)


@pytest.mark.parametrize("limit", [0, -1, 2**63])
def test_a_page_has_at_least_one_document(store, limit):
    """And not more than a machine counts."""
    with pytest.raises(InvalidInput, match="limit="):
        store.page(Filter(), limit, None)


def test_every_way_to_ask_takes_the_same_filter(store):
    """Page, count, choose, full-text search and delete agree; a bad filter is refused by each
    before anything happens.
    """
    a = put(store, scope="u", metadata={"n": 1})
    put(store, GENOA, scope="u", metadata={"n": 2})
    filter = Filter(scope="u", where={"n": {"<": 2}})
    assert store.page(filter, 9, None).documents == [a]
    assert store.count(filter) == len(store.choose(filter)) == 1
    assert found(store, "museum lighthouse", scope="u", where={"n": {"<": 2}}) == [LISBON]
    bad = Filter(where={'"': 1})
    for call in (
        lambda: store.page(bad, 1, None),
        lambda: store.count(bad),
        lambda: store.delete(bad),
    ):
        with pytest.raises(InvalidFilter):
            call()
    assert store.delete(filter).versions == [replace(a, ready=False)]


# -- passages, memories, vectors -----------------------------------------------------------------


def test_passages_are_pieces_of_the_text(store):
    """In order, with offsets, tokens and headings; by document and by id, with their document."""
    document, _ = store.add(Document(GENOA), [Span(0, 35, 7, "Ports > Genoa"), Span(36, 58, 4)])
    first, second = store.passages_of(document.id)
    assert (first.document_id, first.version, first.ordinal, first.start, first.end) == (
        document.id,
        1,
        0,
        0,
        35,
    )
    assert (first.text, first.tokens, first.heading) == (
        "The harbour of Genoa opens at nine.",
        7,
        "Ports > Genoa",
    )
    assert (second.ordinal, second.text, second.heading) == (1, "Its lighthouse is old.", "")
    both = store.passages([second.id, first.id, 999])
    assert {i: p for i, (p, _) in both.items()} == {first.id: first, second.id: second}
    # thousands of passages must not be thousands of copies of their text
    assert both[first.id][1] is both[second.id][1]
    assert both[first.id][1] == document
    store.save({first.id: encoded()}, FINGERPRINT)
    assert [p.ready for p in store.passages_of(document.id)] == [True, False]
    assert store.passages_of("nobody") == []
    assert found(store, "ports") == ["The harbour of Genoa opens at nine."]


def test_pending_passages_come_oldest_first(store):
    """Until they have a vector; superseded ones no longer wait."""
    first = put(store)
    put(store, GENOA)
    assert [p.text for p in store.pending(2)] == [LISBON, "The harbour of Genoa opens at nine."]
    store.replace(first.id, {"text": "New."}, spans("New."))
    _, lighthouse, new = store.pending(9)
    assert [lighthouse.text, new.text] == ["Its lighthouse is old.", "New."]
    assert store.pending(9, of=[first.id, "nobody"]) == [new]
    assert store.pending(9, of=[]) == []
    save_all(store)
    assert store.pending(9) == []
    assert store.stats().pending == 0


def test_memories_are_stored_whole(store):
    """Byte for byte, by passage; what is missing is left out; archives get keys and fingerprints
    with them.
    """
    put(store, GENOA)
    a, b = save_all(store)
    loaded = store.load([b, a, 999], FINGERPRINT)
    assert loaded.keys() == {a, b}
    assert loaded[a].arrays["bytes"].tolist() == [a] * 64
    assert (loaded[a].kind, loaded[a].tokens) == ("fake", 3)
    with_keys = store.encodings([a, 999])
    assert with_keys.keys() == {a}
    assert with_keys[a][0].embedding.tolist() == encoded(a).embedding.tolist()
    assert with_keys[a][1] == FINGERPRINT
    assert store.load([], FINGERPRINT) == store.encodings([]) == {}


def test_fidelity_is_kept_with_its_memory(store, tmp_path, clock):
    """Told with the passage and to archives, also after reopening; a memory made again brings its
    own, or none.
    """
    document = put(store, GENOA)
    a, b = save_all(store)
    assert [p.fidelity for p in store.passages_of(document.id)] == [None, None]
    store.save(
        {a: replace(encoded(), fidelity=0.75), b: replace(encoded(), fidelity=0.0)}, FINGERPRINT
    )
    again = SQLiteStore(tmp_path / "notes", create=False, clock=clock)
    assert {i: p.fidelity for i, (p, _) in again.passages([a, b]).items()} == {a: 0.75, b: 0.0}
    assert [e.fidelity for e, _ in again.encodings([a, b]).values()] == [0.75, 0.0]
    again.close()
    store.save({a: replace(encoded(), fidelity=0.5), b: encoded()}, FINGERPRINT)
    assert {i: p.fidelity for i, (p, _) in store.passages([a, b]).items()} == {a: 0.5, b: None}
    store.evict(0)
    assert store.passages([a])[a][0].fidelity is None


def test_save_passes_over_what_is_gone(store):
    """A document deleted while it was being compressed does not come back."""
    document = put(store)
    (passage,) = store.pending(1)
    store.delete(Filter(ids=[document.id]))
    store.save({passage.id: encoded(), 999: encoded()}, FINGERPRINT)
    assert (
        store.load([passage.id], FINGERPRINT),
        store.vectors(Changes()).labels,
        store.stats().memory_bytes,
    ) == ({}, [], 0)


def test_labels_never_return(store):
    """Each vector has a label of its own, above all earlier ones, even where the last one was
    deleted.
    """
    put(store, id="a")
    save_all(store)
    first = store.vectors(Changes())
    store.delete(Filter(ids=["a"]))
    put(store)
    save_all(store)
    rows = store.vectors(first.changes)
    assert rows.live == set(rows.labels)
    assert rows.labels[0] > first.labels[0]
    assert rows.matrix.dtype == np.float32
    assert rows.matrix.tolist() == [encoded(rows.passages[0]).embedding.tolist()]
    assert store.vectors(Changes()).labels == rows.labels
    nothing = store.vectors(rows.changes)
    assert (nothing.changes, nothing.labels, nothing.passages, nothing.live) == (
        rows.changes,
        [],
        [],
        None,
    )
    assert nothing.matrix.shape == (0, 0)


def test_changes_are_seen_where_the_vectors_change(store):
    """A new vector, another, one superseded or deleted; other fields, and a memory made again,
    leave the index as it is.
    """
    document = put(store)
    seen = [store.changes()]
    (passage,) = save_all(store)
    seen.append(store.changes())
    assert seen[1].lost == seen[0].lost
    store.save({passage: encoded(passage)}, FINGERPRINT)
    assert store.changes() == seen[-1]
    store.save({passage: encoded(77)}, FINGERPRINT)
    seen.append(store.changes())
    assert seen[2].gained > seen[1].gained
    assert store.vectors(seen[1]).live == {seen[2].gained}
    store.replace(document.id, {"source": "b"})
    assert store.changes() == seen[-1]
    store.replace(document.id, {"text": GENOA}, spans(GENOA))
    seen.append(store.changes())
    store.delete(Filter())
    seen.append(store.changes())
    assert len(set(seen)) == 5
    assert [c.lost for c in seen] == sorted(c.lost for c in seen)


def test_memories_of_another_model_are_refused(store):
    """Two models that write into one memory would misread each other; nothing is stored, and what
    differs is told.
    """
    put(store, GENOA)
    a, b = [p.id for p in store.pending(2)]
    store.save({a: encoded(a)}, FINGERPRINT)
    long = replace(encoded(b), embedding=np.ones(16, np.float32))
    with pytest.raises(
        ModelMismatch, match=r"encoded with fake meanwhile \(base: .*\): open the memory again"
    ):
        store.save({b: long}, OTHER)
    assert [p.id for p in store.pending(2)] == [b]
    assert store.fingerprints() == [FINGERPRINT]
    store.save({b: encoded(b)}, MORE)
    store.forget_encodings(OTHER)
    store.save({a: long, b: long}, OTHER)
    assert store.vectors(Changes()).matrix.shape == (2, 16)


def test_memories_of_another_model_are_not_read(store):
    """Also where another process made them anew between the search and the reading."""
    put(store)
    (a,) = save_all(store)
    assert store.load([a], MORE).keys() == {a}
    with pytest.raises(ModelMismatch, match="open the memory again"):
        store.load([a], OTHER)


def test_a_passage_waits_no_longer_once_it_has_a_vector(store, tmp_path):
    """Whatever another program wrote into the table: saving ends the waiting."""
    put(store)
    (a,) = save_all(store)
    with closing(sqlite3.connect(tmp_path / "notes" / "memory.db")) as db, db:
        db.execute("INSERT INTO waiting VALUES (?)", [a])
    assert save_all(store) == [a]
    assert store.pending(9) == []


def test_forget_encodings_keeps_one_maker(store):
    """Everything else waits again; fingerprints that nothing has are not told."""
    put(store)
    (a,) = save_all(store)
    put(store, GENOA)
    save_all(store, MORE)
    assert sorted(f.keep for f in store.fingerprints()) == [0.25, 0.5]
    assert store.forget_encodings(FINGERPRINT) == 2
    assert store.fingerprints() == [FINGERPRINT]
    assert store.load([a], FINGERPRINT).keys() == {a}
    assert len(store.pending(9)) == 2
    assert store.forget_encodings(None) == 1
    assert (store.fingerprints(), store.stats().memory_bytes) == ([], 0)


def test_evict_drops_the_memories_read_longest_ago(store, clock):
    """Until the rest fits; keys stay, so the passages are found and encoded again when they are
    needed.
    """
    put(store, GENOA)
    put(store)
    a, b, c = save_all(store)
    size = store.stats().memory_bytes // 3
    clock.time += timedelta(minutes=5)
    store.load([a], FINGERPRINT)
    assert store.evict(3 * size) == 0
    assert store.evict(2 * size + 1) == 1
    assert store.load([a, b, c], FINGERPRINT).keys() == {a, c}
    assert (store.stats().cold, store.alive(), store.pending(9)) == (1, 3, [])
    assert store.evict(0) == 2
    assert store.stats().memory_bytes == 0


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
    assert f"the memory of passage {a} is damaged" in caplog.text
    (finding,) = [f for f in store.check() if not f.ok]
    assert (finding.check, f"passage {a}" in finding.detail) == ("memories", True)
    store.save({a: encoded(a)}, FINGERPRINT)
    assert store.load([a, b], FINGERPRINT).keys() == {a, b}


# -- full text -----------------------------------------------------------------------------------


def test_any_word_may_match_best_first(store):
    """Word forms are folded, scores fall, `limit` holds."""
    put(store)
    put(store, GENOA)
    put(store, "Museums, museums, a museum!")
    assert found(store, "MUSEUM") == ["Museums, museums, a museum!", LISBON]
    assert found(store, "lighthouses moving")[0] in {"Its lighthouse is old.", LISBON}
    scores = [h.score for h in store.search_text("museum Lisbon", 10, Filter())]
    assert scores == sorted(scores, reverse=True)
    assert len(store.search_text("museum Lisbon", 1, Filter())) == 1


@pytest.mark.parametrize(
    "query", ["", "  ", "?!", "\ud800", "_", "\0", "nothing-of-it", '"', "*", "'"]
)
def test_a_query_without_words_finds_nothing(store, query):
    """And is no error."""
    put(store)
    assert found(store, query) == []


@pytest.mark.parametrize(
    "query",
    [
        'museum" OR "x',
        "museum*",
        "museum AND (",
        "body:museum",
        "NEAR(museum)",
        "^museum",
        "mu\0 museum",
    ],
)
def test_a_query_is_words_not_syntax(store, query):
    """Whatever FTS5 would read into it."""
    put(store)
    assert found(store, query) == [LISBON]


def test_a_very_long_query_is_answered(store):
    """A page pasted as a question: its longest words count."""
    put(store, GENOA)
    noise = " ".join(f"w{i}" for i in range(20_000))
    assert found(store, f"{noise} lighthouse") == ["Its lighthouse is old."]


# -- forgetting ----------------------------------------------------------------------------------

TOLD = "Wilhelmina keeps the zanzibarquartz under the mongolfière."
TRACES = (b"zanzibarquartz", b"wilhelmina", b"mongolfi", b"quartzitic", b"geheimakte")


def scrub(store: SQLiteStore, filter: Filter) -> tuple[list[str], int]:
    """Delete, erase, look: the files and the traces left in them."""
    removed = store.delete(filter)
    assert store.erase(30)
    return store.traces(removed.versions)


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
    assert store.traces([Document(TOLD)])[1] == 0
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
        assert store.traces(removed)[1] > 0
        reader.execute("ROLLBACK")
    assert store.erase(0.05)
    assert store.traces(removed)[1] == 0
    assert b"zanzibarquartz" not in everything(tmp_path / "notes")


def test_an_erasure_stays_due_until_it_is_complete(store):
    """It is recorded with the deletion itself; a deletion that came after it is not done with
    it.
    """
    put(store, id="a")
    put(store, GENOA, id="b")
    assert store.erasure_due() is None
    store.delete(Filter(ids=["a"]))
    assert store.erasure_due() is None
    store.delete(Filter(ids=["a"]), erase=True)  # deleted before, without erasing
    first = store.erasure_due()
    store.delete(Filter(ids=["b"]), erase=True)
    store.erased(first)
    second = store.erasure_due()
    assert None is not second != first
    store.erased(second)
    assert store.erasure_due() is None


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
        store.traces(removed)
        said = subprocess.run(
            [sys.executable, "-c", OTHERS_TURN, file], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == "database is locked"
        writer.execute("ROLLBACK")


# -- the folder ----------------------------------------------------------------------------------


def test_settings_and_generation_are_recorded(store):
    """Empty at first; replaced as a whole."""
    assert (store.settings(), store.generation()) == ({}, None)
    store.set_settings({"keep": 0.5, "model": "m"})
    store.set_settings({"keep": 0.25})
    assert store.settings() == {"keep": 0.25}
    row = Generation(3, "index-3.hnsw", "ab", 8, "cosine", 0, 120)
    assert store.set_generation(replace(row, number=2))
    assert store.set_generation(row)
    assert store.generation() == row
    assert store.set_generation(None)
    assert store.generation() is None


def test_an_index_file_with_dead_vectors_is_not_trusted(store):
    """The check and the record are one transaction; vectors of later labels do not matter."""
    put(store, GENOA, id="a")
    save_all(store)
    file = Generation(1, "index-1.hnsw", "ab", 8, "cosine", 2, store.changes().gained)
    put(store, id="b")
    save_all(store)
    assert store.set_generation(file)
    store.delete(Filter(ids=["a"]))
    assert not store.set_generation(replace(file, number=2))
    assert store.generation() == file


def test_stats_count(store):
    """Documents, versions, passages, bytes: what the folder holds."""
    empty = store.stats()
    assert (empty.documents, empty.versions, empty.passages, empty.tokens, empty.text_bytes) == (
        0,
        0,
        0,
        0,
        0,
    )
    document = put(store, "Ää. B b.")
    stats = store.stats()
    assert (stats.documents, stats.versions, stats.passages, stats.pending, stats.tokens) == (
        1,
        1,
        2,
        2,
        3,
    )
    assert stats.text_bytes == 10
    save_all(store)
    store.replace(document.id, {"text": "C."}, spans("C."))
    stats = store.stats()
    assert (stats.documents, stats.versions, stats.passages, stats.pending, stats.cold) == (
        1,
        2,
        1,
        1,
        0,
    )
    assert stats.file_bytes >= 4096


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


def test_reopening_finds_everything(tmp_path, clock):
    """After a proper end and without one; closing twice does nothing."""
    first = SQLiteStore(tmp_path / "notes", clock=clock)
    document = put(first)
    second = SQLiteStore(tmp_path / "notes", create=False, clock=clock)
    assert second.history(document.id) == [document]
    first.close()
    first.close()
    second.close()
    third = SQLiteStore(tmp_path / "notes", create=False, clock=clock)
    assert third.history(document.id) == [document]
    third.close()


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
    assert store.traces([])[0]
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
        StorageNewer, match=r"schema 99, this release of cmt-sdk knows up to 6: update cmt-sdk"
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
        db.execute("DROP INDEX by_any_content")
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


def run_together(*jobs) -> list[BaseException]:
    """Run jobs in a thread each; what they raised."""
    raised: list[BaseException] = []
    gate = threading.Barrier(len(jobs))

    def run(job) -> None:
        gate.wait()
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - told to the test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_many_threads_write_and_read_at_once(store):
    """More threads than connections in a pool; each sees its own writes, and nothing is lost."""

    def job(n: int):
        def work() -> None:
            document = put(store, f"Fact {n}.", id=str(n))
            passage = store.passages_of(document.id)[0]
            store.save({passage.id: encoded(n)}, FINGERPRINT)
            assert store.load([passage.id], FINGERPRINT)[passage.id].arrays["bytes"][0] == n
            assert found(store, f"{n}") == [f"Fact {n}."]
            store.replace(document.id, {"text": f"Fact {n} again."}, [])

        return work

    assert run_together(*(job(n) for n in range(18))) == []
    assert store.stats().versions == 36


def test_the_same_text_from_many_threads_is_one_document(store):
    """The check and the insert are one transaction."""
    made: list[str] = []
    assert (
        run_together(*[lambda: made.append(store.add(Document(LISBON), spans(LISBON))[1])] * 8)
        == []
    )
    assert sorted(made) == ["added"] + ["unchanged"] * 7
    assert store.count(Filter()) == 1


def test_adding_and_deleting_at_once_never_trips(store):
    """A document that is deleted the moment it is stored was stored all the same."""

    def add() -> None:
        for n in range(20):
            assert put(store, f"Fact {n}.").text == f"Fact {n}."

    def delete() -> None:
        for _ in range(20):
            store.delete(Filter())

    assert run_together(add, delete) == []


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
