"""The stores that the contract suite runs over, and helpers for its tests.

To run the suite over another implementation of ports.Store, add a function to STORES that opens it.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.ports import Store
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.types import CompressedPassage, Document, Encoded, Filter, Fingerprint, Span
from tests import postgres

HOSTILE = "te'nant%/\"; --_\\é🙂 :x"
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


def spans(text: str, heading: str = "") -> list[Span]:
    """A span a sentence."""
    ends = [i + 1 for i, c in enumerate(text) if c == "."] or [len(text)]
    starts = [0, *(e + 1 for e in ends[:-1])]
    return [Span(a, b, len(text[a:b].split()), heading) for a, b in zip(starts, ends, strict=True)]


def put(store: Store, text: str = LISBON, **fields: object) -> Document:
    """Store a document and return it."""
    return store.add(Document(text, **fields), spans(text))[0]


def encoded(seed: int = 1, size: int = 64) -> Encoded:
    """A memory of `size` bytes and an embedding of 8 values."""
    key = np.random.default_rng(seed).standard_normal(8).astype(np.float32)
    return Encoded(
        CompressedPassage("fake", 3, {"bytes": np.full(size, seed, np.uint8)}),
        key / np.linalg.norm(key),
    )


def save_all(store: Store, fingerprint: Fingerprint = FINGERPRINT) -> list[int]:
    """Encode whatever waits; its passage ids."""
    ids = [p.id for p in store.pending(1_000)]
    store.save({i: encoded(i) for i in ids}, fingerprint)
    return ids


def drop_objects(db: sqlite3.Connection) -> None:
    """Take out of a database what schema 9 has added."""
    named = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'object%'"
    for (name,) in db.execute(named).fetchall():
        db.execute(f"DROP TRIGGER {name}")
    db.execute("DROP TABLE objects")


def found(store: Store, query: str, **conditions: object) -> list[str]:
    """Texts of the passages that a full-text search finds, best first."""
    hits = [h.passage_id for h in store.search_text(query, 10, Filter(**conditions))]
    texts = {i: p.text for i, (p, _) in store.passages(hits).items()}
    return [texts[h] for h in hits]


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


@dataclass
class OpenStore:
    """Opens a store; a second call opens the same data again. Closes all of them in the end."""

    opener: Callable[[Path, Clock], Store]
    folder: Path
    clock: Clock
    opened: list[Store] = field(default_factory=list)

    def __call__(self) -> Store:
        """A store over the data of this test."""
        self.opened.append(self.opener(self.folder, self.clock))
        return self.opened[-1]

    def close(self) -> None:
        """Close every store; closing one twice does nothing."""
        for store in self.opened:
            store.close()


def open_sqlite(folder: Path, clock: Clock) -> Store:
    """A store in a folder."""
    return SQLiteStore(folder, clock=clock)


def open_encrypted(folder: Path, clock: Clock) -> Store:
    """A store in a folder, encrypted with the key in CMT_KEY."""
    pytest.importorskip("sqlcipher3")
    store = SQLiteStore(folder, encrypt=True, clock=clock)
    assert store.encrypted
    return store


_homes: dict[DatabaseAddress, Path] = {}  # the test that a database serves now, by its address


def open_postgres(folder: Path, clock: Clock) -> Store:
    """A store in a database that serves one test after another."""
    made = postgres.shared()
    if _homes.get(made.address) != folder:
        made.empty()
        _homes[made.address] = folder
    from cmt_sdk.storage.postgres.store import PostgresStore

    return PostgresStore(made.address, clock=clock)


def open_postgres_scope(folder: Path, clock: Clock) -> Store:
    """A store in a scope of such a database, whose name is hostile; another scope has the same
    texts.
    """
    is_new = _homes.get((made := postgres.shared()).address) != folder
    open_postgres(folder, clock).close()
    from cmt_sdk.storage.postgres.store import PostgresStore

    if is_new:
        for scope in ("", f"{HOSTILE}x", "u"):
            with closing(PostgresStore(made.address, scope=scope, clock=Clock())) as other:
                put(other)
                put(other, GENOA, source="trip.md")
    return PostgresStore(made.address, scope=HOSTILE, clock=clock)


STORES: dict[str, Callable[[Path, Clock], Store]] = {
    "sqlite": open_sqlite,
    "encrypted": open_encrypted,
    "postgres": open_postgres,
    "postgres_scope": open_postgres_scope,
}
