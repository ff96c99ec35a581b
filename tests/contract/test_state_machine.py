"""The store against a plain dict: any sequence of calls, in any order, with a clock that jumps and
a folder that is reopened.
"""

import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cmt_sdk.errors import AlreadyExists, DocumentNotFound
from cmt_sdk.storage.index import EmbeddingIndex
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import CompressedPassage, Document, Encoded, Filter, Span
from tests import postgres

WORDS = ("apple", "boat", "cloud", "dune", "elm")
POOR = 0.5
FIDELITIES = {"apple": POOR, "boat": 0.95}  # of the words that are measured
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(
    lambda words: " ".join(words) + "."
)
scopes = st.sampled_from(["", "u", "u/ann", "u/ann/s", "u/anna"])
names = st.sampled_from(["a", "b", "c", "d"])
numbers = st.integers(0, 3)
sources = st.sampled_from([None, "s", "t"])
lives = st.sampled_from([None, None, None, 5, 50])


def under(scope: str, asked: str | None) -> bool:
    """Whether a scope is the one asked for or beneath it."""
    return not asked or scope == asked or scope.startswith(f"{asked}/")


def pieces(text: str, heading: str = "") -> list[Span]:
    """A span a word."""
    return [Span(m.start(), m.end(), 1, heading) for m in re.finditer(r"\w+", text)]


@dataclass
class Piece:
    """A passage in the model: what its memory is made of, whether it was encoded, and whether its
    compressed form is there; one that was encoded and has none is cold.
    """

    heading: str
    word: str
    ready: bool = False
    held: bool = False


def cut_again(before: list[Piece], text: str, heading: str) -> list[Piece]:
    """The pieces of a text; each of the same content, in order, brings along whether it is
    ready and held.
    """
    left, after = list(before), []
    for word in re.findall(r"\w+", text):
        same = next((p for p in left if (p.heading, p.word) == (heading, word)), None)
        if same is not None:
            left.remove(same)
        after.append(Piece(heading, word) if same is None else replace(same))
    return after


def key_of(text: str) -> np.ndarray:
    """A vector that tells words apart."""
    return np.eye(len(WORDS), dtype=np.float32)[WORDS.index(text)]


class Store(RuleBasedStateMachine):
    """`self.known` maps ids to their versions, newest last, in order of creation; `self.pieces` to
    their passages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.known: dict[str, list[Document]] = {}
        self.pieces: dict[str, list[Piece]] = {}

    @initialize()
    def open(self) -> None:
        """A new folder."""
        self.store, self.index = self.parts()

    def parts(self) -> tuple:
        """A store over the folder, and its index."""
        store = SQLiteStore(self.folder, clock=lambda: self.time)
        return store, EmbeddingIndex(store, self.folder, 10**6)

    def teardown(self) -> None:
        """The folder goes."""
        self.store.close()
        shutil.rmtree(self.folder)

    def alive(self, scope: str | None = None, number: int | None = None) -> dict[str, Document]:
        """Current documents that fit."""
        current = {name: versions[-1] for name, versions in self.known.items()}
        return {
            name: d
            for name, d in current.items()
            if (d.expires_at is None or d.expires_at > self.time)
            and under(d.scope, scope)
            and (number is None or d.metadata.get("n") == number)
        }

    @rule(
        text=texts,
        scope=scopes,
        name=st.just("") | names,
        source=sources,
        number=numbers,
        life=lives,
    )
    def add(self, text, scope, name, source, number, life) -> None:
        """A new document, the same one again, or an id that is taken."""
        expiry = self.time + timedelta(seconds=life) if life else None
        given = Document(text, name, source, scope, {"n": number}, expires_at=expiry)
        same = [d for d in self.alive().values() if (d.text, d.scope) == (text, scope)]
        try:
            stored, outcome = self.store.add(given, pieces(text))
        except AlreadyExists:
            assert name in self.alive()
            assert name not in [d.id for d in same]
            return
        if outcome != "added":
            assert stored.id in [d.id for d in same]
            assert name in ("", stored.id)
            old = self.known[stored.id][-1]
            self.say(
                old,
                outcome,
                replace(given, source=old.source or source, expires_at=expiry or old.expires_at),
            )
            return
        assert name in ("", stored.id)
        assert not same or name not in ["", *(d.id for d in same)]
        self.begin(stored.id, given)

    @rule(
        text=texts,
        scope=scopes,
        name=st.just("") | names,
        source=sources.filter(bool),
        number=numbers,
    )
    def put(self, text, scope, name, source, number) -> None:
        """A file's text: that of the document of the id, else of the source, else of the text that
        has no source yet.
        """
        given = Document(text, name, source, scope, {"n": number})
        here = [d for d in self.alive().values() if d.scope == scope]
        of_source = [d for d in here if d.source == source]
        newest = max(of_source, key=lambda d: d.updated_at.timestamp(), default=None)
        tied = [d for d in of_source if newest and d.updated_at == newest.updated_at]
        of_text = [d for d in here if d.text == text and d.source is None]
        meant = [d for d in here if d.id == name] if name else tied or of_text
        if not meant and name in self.alive():  # in another scope
            try:
                self.store.add(given, pieces(text), by_source=True)
            except AlreadyExists:
                return
            raise AssertionError(name)
        stored, outcome = self.store.add(given, pieces(text), by_source=True)
        if outcome == "added":
            assert not meant
            self.begin(stored.id, given)
            return
        assert stored.id in [d.id for d in meant]
        old = self.known[stored.id][-1]
        said = replace(given, expires_at=old.expires_at)
        if text == old.text:
            self.say(old, outcome, said)
            return
        self.pieces[stored.id] = cut_again(self.pieces[stored.id], text, "")
        new = replace(
            old,
            text=text,
            source=source,
            metadata=said.metadata,
            version=old.version + 1,
            updated_at=self.time,
        )
        self.known[stored.id][-1] = replace(old, current=False)
        self.known[stored.id].append(new)
        self.pieces[stored.id] = cut_again(self.pieces[stored.id], text, "")

    def say(self, old: Document, outcome: str, said: Document) -> None:
        """Fields of a document that is given again, in place."""
        new = replace(old, source=said.source, metadata=said.metadata, expires_at=said.expires_at)
        assert (outcome == "unchanged") == (new == old)
        self.known[old.id][-1] = old if new == old else replace(new, updated_at=self.time)

    def begin(self, name: str, given: Document) -> None:
        """A document that is new."""
        self.forget_model(name)
        self.known[name] = [replace(given, id=name, created_at=self.time, updated_at=self.time)]
        self.pieces[name] = cut_again([], given.text, "")

    def forget_model(self, name: str) -> None:
        """Take a document out of the model."""
        self.known.pop(name, None)
        self.pieces.pop(name, None)

    @rule(name=names, text=texts)
    def update(self, name, text) -> None:
        """The next version of a living document."""
        if name not in self.alive():
            try:
                self.store.replace(name, {"text": text}, pieces(text))
            except DocumentNotFound:
                return
            raise AssertionError(name)
        old = self.known[name][-1]
        self.store.replace(name, {"text": text}, pieces(text))
        self.pieces[name] = cut_again(self.pieces[name], text, "")
        if text == old.text:
            self.known[name][-1] = replace(old, updated_at=self.time)
            return
        self.known[name][-1] = replace(old, current=False)
        self.known[name].append(
            replace(old, text=text, version=old.version + 1, updated_at=self.time)
        )

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), scope=scopes, number=numbers, life=lives)
    def change_fields(self, data, scope, number, life) -> None:
        """Scope, metadata and expiry in place."""
        old = self.known[data.draw(st.sampled_from(list(self.alive())))][-1]
        expiry = self.time + timedelta(seconds=life) if life else None
        changes = {"scope": scope, "metadata": {"n": number}, "expires_at": expiry}
        self.store.replace(old.id, changes)
        self.known[old.id][-1] = replace(old, **changes, updated_at=self.time)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), heading=st.sampled_from(["", "North", "South"]), by_change=st.booleans())
    def cut_under_another_heading(self, data, heading, by_change) -> None:
        """The same text under another heading, with a change of its source or without."""
        old = self.known[data.draw(st.sampled_from(list(self.alive())))][-1]
        if by_change:
            source = f"{heading}.md"
            self.store.replace(
                old.id, {"source": source}, split=lambda _, new: pieces(new.text, heading)
            )
            self.known[old.id][-1] = replace(old, source=source, updated_at=self.time)
        else:
            assert self.store.replace_passages(old, pieces(old.text, heading))
        self.pieces[old.id] = cut_again(self.pieces[old.id], old.text, heading)

    @rule(scope=scopes.filter(bool), number=st.none() | numbers, scrub=st.booleans())
    def delete(self, scope, number, scrub) -> None:
        """Whatever fits, expired or not, with all its versions, and single versions that fit;
        sometimes out of the files too.
        """
        where = {} if number is None else {"n": number}

        def fits(d: Document) -> bool:
            return under(d.scope, scope) and (number is None or d.metadata["n"] == number)

        gone = [
            d for versions in self.known.values() for d in versions if fits(d) or fits(versions[-1])
        ]
        removed = self.store.delete(Filter(scope=scope, where=where), erase=scrub).versions
        assert sorted((d.id, d.version) for d in removed) == sorted((d.id, d.version) for d in gone)
        for name in list(self.known):
            left = [d for d in self.known[name] if d not in gone]
            if left:
                self.known[name] = left
            else:
                self.forget_model(name)
        if scrub:
            assert self.store.erase(0)
            assert self.store.find_traces(removed)[1] == 0

    @rule(limit=st.integers(1, 4))
    def save(self, limit) -> None:
        """Some of what waits is encoded."""
        batch = self.store.pending(limit)
        memory = CompressedPassage("fake", 1, {"bytes": np.zeros(3, np.uint8)})
        made = {p.id: Encoded(memory, key_of(p.text), FIDELITIES.get(p.text)) for p in batch}
        self.store.save(made, FINGERPRINT)
        for passage in batch:
            piece = self.pieces[passage.document_id][passage.ordinal]
            piece.ready = piece.held = True

    @rule(most=st.integers(0, 4))
    def evict(self, most) -> None:
        """As many compressed forms stay as fit; poor ones go first."""
        held = [p for pieces in self.pieces.values() for p in pieces if p.held]
        size = self.store.stats().memory_bytes // max(1, len(held))
        gone = self.store.evict(most * size)
        assert gone == max(0, len(held) - most)
        places = {
            passage.id: piece
            for name, pieces in self.pieces.items()
            for passage, piece in zip(self.store.passages_of(name), pieces, strict=True)
        }
        left = self.store.load(list(places), FINGERPRINT)
        for number, piece in places.items():
            assert piece.held or number not in left
            piece.held = number in left
        poor = [p for p in held if FIDELITIES.get(p.word) == POOR]
        assert sum(not p.held for p in poor) == min(gone, len(poor))

    @precondition(lambda self: any(p.ready for pieces in self.pieces.values() for p in pieces))
    @rule(data=st.data())
    def compress_again(self, data) -> None:
        """A cold passage, or one that is not, is stored once more."""
        name = data.draw(
            st.sampled_from(
                [n for n, pieces in self.pieces.items() if any(p.ready for p in pieces)]
            )
        )
        passages = zip(self.store.passages_of(name), self.pieces[name], strict=True)
        passage, piece = next((p, piece) for p, piece in passages if piece.ready)
        memory = CompressedPassage("fake", 1, {"bytes": np.zeros(3, np.uint8)})
        made = Encoded(memory, key_of(passage.text), FIDELITIES.get(passage.text))
        self.store.save({passage.id: made}, FINGERPRINT)
        piece.held = True

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds) -> None:
        """Time passes, documents expire."""
        self.time += timedelta(seconds=seconds)

    @rule()
    def reopen(self) -> None:
        """Another process goes on."""
        self.store.close()
        self.open()

    @rule(word=st.sampled_from(WORDS), scope=scopes)
    def search(self, word, scope) -> None:
        """Words and meanings find the same passages: those of living documents."""
        hits = self.store.search_text(word.upper(), 1_000, Filter(scope=scope))
        found = self.store.passages([h.passage_id for h in hits])
        expected = sorted(
            d.id
            for d in self.alive(scope).values()
            for w in re.findall(r"\w+", d.text)
            if w == word
        )
        assert sorted(d.id for _, d in found.values()) == expected
        assert {p.text for p, _ in found.values()} <= {word}
        waiting = {p.id for p in self.store.pending(1_000)}
        near = self.index.search(key_of(word), 1_000, self.store.choose(Filter(scope=scope)))
        assert {h.passage_id for h in near if h.score > 0.9} == set(found) - waiting

    @rule(scope=scopes, number=st.none() | numbers, limit=st.integers(1, 3))
    def page(self, scope, number, limit) -> None:
        """Page by page, every document that fits once, in order of creation."""
        chosen = Filter(scope=scope, where={} if number is None else {"n": number})
        listed, cursor = [], None
        while True:
            page = self.store.page(chosen, limit, cursor)
            listed += [d.id for d in page.documents]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert listed == list(self.alive(scope, number))
        assert self.store.count(chosen) == len(listed)

    @invariant()
    def everything_is_there(self) -> None:
        """Every version of every document, as the model has it."""
        if not hasattr(self, "store"):
            return
        for name, versions in self.known.items():
            ready = all(p.ready for p in self.pieces[name])
            assert self.store.history(name) == [
                replace(d, ready=d.current and ready) for d in versions
            ]
            held = [(p.heading, p.text, p.ready) for p in self.store.passages_of(name)]
            assert held == [(p.heading, p.word, p.ready) for p in self.pieces[name]]
        stats = self.store.stats()
        assert (stats.documents, stats.versions) == (
            len(self.alive()),
            sum(map(len, self.known.values())),
        )
        every = [p for pieces in self.pieces.values() for p in pieces]
        assert (stats.compressed, stats.cold) == (
            sum(p.held for p in every),
            sum(p.ready and not p.held for p in every),
        )


class InPostgres(Store):
    """The same calls over a scope of a database."""

    def __init__(self) -> None:
        super().__init__()
        self.database = postgres.shared()
        self.database.empty()

    def parts(self) -> tuple:
        """A store over the scope, and its index."""
        from cmt_sdk.storage.postgres.index import PostgresIndex
        from cmt_sdk.storage.postgres.store import PostgresStore

        store = PostgresStore(self.database.address, scope="team/a", clock=lambda: self.time)
        return store, PostgresIndex(store, 10**6)


FEW = settings(
    max_examples=6,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
Store.TestCase.settings = FEW
TestStore = Store.TestCase
InPostgres.TestCase.settings = settings(FEW, max_examples=2)
TestInPostgres = InPostgres.TestCase


@pytest.mark.slow
@pytest.mark.parametrize("machine", [Store, InPostgres])
def test_the_store_does_as_its_model_for_long(machine) -> None:
    """The long form."""
    run_state_machine_as_test(machine, settings=settings(FEW, max_examples=100))
