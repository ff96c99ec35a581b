"""What the tests of copying share: ends of each kind, and all that a memory holds."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cmt_sdk
from cmt_sdk.archive.layout import digest
from cmt_sdk.archive.records import encoding_hash
from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.config.recorded import portable
from cmt_sdk.memory import Memory
from cmt_sdk.memory.copying import is_archive
from cmt_sdk.testing.fakes import FakeEngine, open_fake
from cmt_sdk.types import Copied, Document

LATER = datetime(2099, 1, 1, tzinfo=UTC)
MUSEUM = "The museum moved to Lisbon in 2019."
Place = Path | DatabaseAddress


@dataclass
class Copier:
    """Copies with a fake engine that counts what it compresses."""

    engine: FakeEngine = field(default_factory=FakeEngine)

    def open(self, place: Place, **options: Any) -> Memory:
        """Open a memory as `cmt_sdk.open` does."""
        return open_fake(DatabaseAddress.of(place) or Path(place), self.engine, **options)

    def __call__(self, source: Place | str, target: Place | str, **options: Any) -> Copied:
        """Copy."""
        return cmt_sdk.copy_memory(source, target, open_with=self.open, **options)

    @property
    def compressed(self) -> list[str]:
        """The texts that were compressed."""
        return self.engine.compressor.compressed


def fill(place: Place, **settings: Any) -> None:
    """A memory with histories, scopes, metadata, times, headings, two documents of one text, and
    small passages.
    """
    with open_fake(place, passage_tokens=20, **settings) as memory:
        memory.add("Nothing is left of this.", id="gone")
        memory.forget("gone")
        memory.add(
            f"# Museums\n\n{MUSEUM}\n\n## Hours\n\nIt opens at nine.",
            source="/home/ann/trip.md",
            scope="user/ann",
            metadata={"pinned": True, "year": 2019, "share": 0.1, "none": None, "ü": "日本語🙂"},
            expires_at=LATER,
        )
        memory.update(memory.ids()[0], f"# Museums\n\n{MUSEUM}\n\n## Hours\n\nIt opens at ten.")
        memory.add_together([Document(MUSEUM, source="a.md"), Document(MUSEUM, source="b.md")])
        memory.add("Word " * 90 + "end.", id="long", source="long.txt", scope="user/ben")
        memory.add_many([f"Fact {n} about a harbour." for n in range(10)])


def contents(memory: Memory) -> dict[str, Any]:
    """All that a memory holds of each document, by its id."""
    store = memory._store
    found = {}
    for document in memory.documents():
        passages = store.passages_of(document.id)
        stored = store.encodings([p.id for p in passages], cold=True)
        found[document.id] = (
            [replace(v, metadata=dict(v.metadata)) for v in store.history(document.id)],
            [(p.start, p.end, p.tokens, p.heading, digest(p)) for p in passages],
            [encoding_hash(*stored[p.id]) if p.id in stored else "" for p in passages],
        )
    return found


def settings_of(memory: Memory) -> Mapping[str, Any]:
    """The settings that a copy has too."""
    return portable(memory._store.settings())


def held(place: Place, folder: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What a place holds; an archive is read through a folder."""
    if is_archive(place):
        Copier()(place, folder / "unpacked")
        place = folder / "unpacked"
    with open_fake(place, create=False) as memory:
        assert [found for found in memory.check() if not found.ok] == []
        return contents(memory), settings_of(memory)


def other_spelling(address: DatabaseAddress) -> str:
    """The same database under another address."""
    return os.fspath(address).replace("postgresql+psycopg://", "postgresql://", 1)
