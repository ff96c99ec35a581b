"""The contract of ports.Store: every test runs over each of STORES; those of ports.VectorStore run
over the ones with an index in a file.

test_sqlite_store.py tests the database file itself.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cmt_sdk.errors import (
    AlreadyExists,
    DocumentNotFound,
    InvalidDocument,
    InvalidFilter,
    InvalidInput,
    ModelMismatch,
)
from cmt_sdk.ports import Known, Store, VectorStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import MIN_FIDELITY, Document, Filter, Removed, Span
from cmt_sdk.types.vectors import ChangeCounters, Generation
from tests.contract.stores import (
    GENOA,
    LISBON,
    MORE,
    OTHER,
    START,
    STORES,
    OpenStore,
    encoded,
    found,
    put,
    run_together,
    save_all,
    spans,
)


@pytest.fixture(params=STORES)
def open_store(request, tmp_path, clock, monkeypatch) -> Iterator[OpenStore]:
    """Opens a store; a second call opens the same data again."""
    monkeypatch.setenv("CMT_KEY", "a5" * 32)
    opener = OpenStore(STORES[request.param], tmp_path / "notes", clock)
    yield opener
    opener.close()


@pytest.fixture
def store(open_store) -> Store:
    return open_store()


@pytest.fixture
def vector_store(store) -> VectorStore:
    if not hasattr(store, "change_counters"):
        pytest.skip("its index is inside the database: it needs no ports.VectorStore")
    return store


def stored_embeddings(store: Store) -> list[list[float]]:
    """What an index would find."""
    return store.embeddings(Filter()).matrix.tolist()


def test_the_store_obeys_its_port(store):
    """The type checker sees to the signatures in cmt_sdk; here the names are all there."""
    names = [n for n in dir(Store) if not n.startswith("_")]
    assert [n for n in names if not hasattr(store, n)] == []
    assert [n for n in names if not callable(getattr(store, n))] == ["read_only"]


def test_a_store_with_an_index_file_obeys_its_port(vector_store):
    """Every method is there."""
    names = [n for n in dir(VectorStore) if not n.startswith("_")]
    assert [n for n in names if not callable(getattr(vector_store, n, None))] == []


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
    before = stored_embeddings(store)
    longer = f"{GENOA}{LISBON}"
    cut = [*spans(GENOA), Span(len(GENOA), len(longer), 7)]
    assert store.replace(first.id, {"text": longer}, cut).ready is False
    assert [p.id for p in store.passages_of(first.id)][:2] == kept
    assert [p.text for p in store.pending(10)] == [LISBON]
    assert stored_embeddings(store) == before
    assert store.load(kept, FINGERPRINT).keys() == set(kept)
    assert found(store, "lighthouse") == ["Its lighthouse is old."]
    store.replace(first.id, {"text": LISBON}, spans(LISBON))
    assert [p.text for p in store.passages_of(first.id)] == [LISBON]
    assert stored_embeddings(store) == []
    assert found(store, "lighthouse") == []


def test_an_index_is_told_of_what_it_loses_alone(vector_store):
    """A sentence appended costs the index nothing; another text takes passages out of it."""
    first = put(vector_store, GENOA)
    save_all(vector_store)
    before = vector_store.change_counters()
    longer = f"{GENOA}{LISBON}"
    cut = [*spans(GENOA), Span(len(GENOA), len(longer), 7)]
    vector_store.replace(first.id, {"text": longer}, cut)
    assert vector_store.change_counters() == before
    vector_store.replace(first.id, {"text": LISBON}, spans(LISBON))
    assert vector_store.change_counters().lost > before.lost
    vector_store.delete(Filter())
    assert vector_store.vectors(before).live == set()


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
    assert store.find_known(Document(LISBON)).document == known
    assert store.find_known(Document(LISBON, id="b")).document is None
    assert store.find_known(Document(GENOA)).document is None
    assert store.stats().versions == 1


def test_match_shows_what_adding_makes_of_a_known_document(store):
    """The document that a given one stands for, and the same one after the addition; nothing is
    stored.
    """
    assert store.find_known(Document(LISBON)) == Known(hashlib.sha256(LISBON.encode()).hexdigest())
    first = put(store, source="trip.md", metadata={"a": 1})
    before = store.stats()
    more = Document(LISBON, source="b.md", metadata={"b": 2})
    found = store.find_known(more)
    assert (found.document, found.merged) == (first, replace(first, metadata={"a": 1, "b": 2}))
    longer = Document(GENOA, source="trip.md")
    found = store.find_known(longer, by_source=True)
    assert (found.document, found.merged) == (first, replace(first, text=GENOA))
    assert found.content_hash == store.find_known(Document(GENOA)).content_hash
    assert store.stats() == before
    stored, outcome = store.add(longer, spans(GENOA), by_source=True, known=found)
    assert (stored.text, stored.metadata, outcome) == (GENOA, {"a": 1}, "updated")


def test_a_document_that_changes_after_the_match_is_matched_again(store):
    """What another process stores or deletes between `match` and `add` counts."""
    new = Document(LISBON, metadata={"b": 2})
    found = store.find_known(new)
    put(store, metadata={"a": 1})
    stored, outcome = store.add(new, split=lambda *_: None, known=found)
    assert (dict(stored.metadata), outcome) == ({"a": 1, "b": 2}, "updated")
    found = store.find_known(new)
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
        return store.find_known(Document("?", source=source, scope=scope), by_source=True).document

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


def test_delete_takes_all_versions_and_what_belongs_to_them(store):
    """Returns every removed version; passages, words, memories and vectors go too; others stay."""
    first = put(store, scope="u/ann")
    save_all(store)
    second = store.replace(first.id, {"text": GENOA}, spans(GENOA))
    save_all(store)
    kept = put(store, scope="u/anna")
    removed = store.delete(Filter(scope="u/ann"))
    assert removed == Removed([replace(first, current=False), replace(second, ready=False)], 2)
    assert store.page(Filter(history=True), 10, None).documents == [kept]
    assert found(store, "museum lighthouse") == [LISBON]
    assert stored_embeddings(store) == []
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


def test_delete_takes_expired_documents_too(store, clock):
    """What a user wants forgotten must not hide behind its expiry."""
    put(store, id="a", expires_at=clock.time + timedelta(minutes=1))
    clock.time += timedelta(minutes=2)
    assert [d.id for d in store.delete(Filter(ids=["a"])).versions] == ["a"]


# -- pages ---------------------------------------------------------------------------------------


def walk(store: Store, filter: Filter, limit: int) -> list[str]:
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


def test_fidelity_is_kept_with_its_memory(open_store):
    """Told with the passage and to archives, also after reopening; a memory made again brings its
    own, or none.
    """
    store = open_store()
    document = put(store, GENOA)
    a, b = save_all(store)
    assert [p.fidelity for p in store.passages_of(document.id)] == [None, None]
    store.save(
        {a: replace(encoded(), fidelity=0.75), b: replace(encoded(), fidelity=0.0)}, FINGERPRINT
    )
    again = open_store()
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
        stored_embeddings(store),
        store.stats().memory_bytes,
    ) == ({}, [], 0)


def test_labels_never_return(vector_store):
    """Each vector has a label of its own, above all earlier ones, even where the last one was
    deleted.
    """
    store = vector_store
    put(store, id="a")
    save_all(store)
    first = store.vectors(ChangeCounters())
    store.delete(Filter(ids=["a"]))
    put(store)
    save_all(store)
    rows = store.vectors(first.changes)
    assert rows.live == set(rows.labels)
    assert rows.labels[0] > first.labels[0]
    assert rows.matrix.dtype == np.float32
    assert rows.matrix.tolist() == [encoded(rows.passage_ids[0]).embedding.tolist()]
    assert store.vectors(ChangeCounters()).labels == rows.labels
    nothing = store.vectors(rows.changes)
    assert (nothing.changes, nothing.labels, nothing.passage_ids, nothing.live) == (
        rows.changes,
        [],
        [],
        None,
    )
    assert nothing.matrix.shape == (0, 0)


def test_changes_are_seen_where_the_vectors_change(vector_store):
    """A new vector, another, one superseded or deleted; other fields, and a memory made again,
    leave the index as it is.
    """
    store = vector_store
    document = put(store)
    seen = [store.change_counters()]
    (passage,) = save_all(store)
    seen.append(store.change_counters())
    assert seen[1].lost == seen[0].lost
    store.save({passage: encoded(passage)}, FINGERPRINT)
    assert store.change_counters() == seen[-1]
    store.save({passage: encoded(77)}, FINGERPRINT)
    seen.append(store.change_counters())
    assert seen[2].gained > seen[1].gained
    assert store.vectors(seen[1]).live == {seen[2].gained}
    store.replace(document.id, {"source": "b"})
    assert store.change_counters() == seen[-1]
    store.replace(document.id, {"text": GENOA}, spans(GENOA))
    seen.append(store.change_counters())
    store.delete(Filter())
    seen.append(store.change_counters())
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
    assert store.embeddings(Filter()).matrix.shape == (2, 16)


def test_memories_of_another_model_are_not_read(store):
    """Also where another process made them anew between the search and the reading."""
    put(store)
    (a,) = save_all(store)
    assert store.load([a], MORE).keys() == {a}
    with pytest.raises(ModelMismatch, match="open the memory again"):
        store.load([a], OTHER)


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
    assert (store.stats().cold, len(stored_embeddings(store)), store.pending(9)) == (1, 3, [])
    assert store.evict(0) == 2
    assert store.stats().memory_bytes == 0


def test_evict_drops_the_poor_memories_first(store, clock):
    """However lately one was read; one that was not measured is none of them."""
    put(store)
    put(store, GENOA)
    ids = [p.id for p in store.pending(9)]
    for number, fidelity in zip(ids, (MIN_FIDELITY, None, MIN_FIDELITY - 0.01), strict=True):
        store.save({number: replace(encoded(number), fidelity=fidelity)}, FINGERPRINT)
        clock.time += timedelta(minutes=5)
    size = store.stats().memory_bytes // 3
    assert store.evict(2 * size) == 1
    assert list(store.load(ids, FINGERPRINT)) == ids[:2]
    assert store.evict(size) == 1
    assert len(store.load(ids, FINGERPRINT)) == 1
    assert (store.stats().compressed, store.stats().cold) == (1, 2)


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


# -- the folder ----------------------------------------------------------------------------------


def test_settings_are_recorded(store):
    """Empty at first; replaced as a whole."""
    assert store.settings() == {}
    store.set_settings({"keep": 0.5, "model": "m"})
    store.set_settings({"keep": 0.25})
    assert store.settings() == {"keep": 0.25}


def test_the_trusted_index_file_is_recorded(vector_store):
    """None at first; replaced as a whole."""
    store = vector_store
    assert store.generation() is None
    row = Generation(3, "index-3.hnsw", "ab", 8, "cosine", 0, 120)
    assert store.set_generation(replace(row, number=2))
    assert store.set_generation(row)
    assert store.generation() == row
    assert store.set_generation(None)
    assert store.generation() is None


def test_an_index_file_with_dead_vectors_is_not_trusted(vector_store):
    """The check and the record are one transaction; vectors of later labels do not matter."""
    store = vector_store
    put(store, GENOA, id="a")
    save_all(store)
    file = Generation(1, "index-1.hnsw", "ab", 8, "cosine", 2, store.change_counters().gained)
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


def test_reopening_finds_everything(open_store):
    """After a proper end and without one; closing twice does nothing."""
    first = open_store()
    document = put(first)
    second = open_store()
    assert second.history(document.id) == [document]
    first.close()
    first.close()
    second.close()
    third = open_store()
    assert third.history(document.id) == [document]
    third.close()


# -- threads -------------------------------------------------------------------------------------


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
