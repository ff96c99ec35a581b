"""Documents and what is done with them: texts, passages, filters, pages, progress, receipts. Knows
the standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from pathlib import PurePath
from typing import Literal, TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
Metadata: TypeAlias = Mapping[str, Scalar]
Where: TypeAlias = Mapping[str, Scalar | Mapping[str, Scalar | Sequence[Scalar]]]
Outcome: TypeAlias = Literal["added", "updated", "unchanged"]
# in front matter
DATE_KEYS = ("date", "updated", "modified", "lastmod", "last_modified", "created")
ISO_DAY = re.compile(r"(?<!\d)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d)")


class Unchanged(Enum):
    """The default of a field that `Memory.update` leaves as it is; None empties one."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return self.name


UNCHANGED = Unchanged.UNCHANGED


def tail_of(source: str | None) -> str:
    """The last two names of a path or an address, each after its slash; empty for a source of fewer
    names.
    """
    names = (source or "").split("/")
    return "/" + "/".join(names[-2:]) if len(names) > 2 and all(names[-2:]) else ""


@dataclass(frozen=True, slots=True)
class Document:
    """One thing to remember. Only `text` is needed; the rest is filled in by `Memory.add`.

    `scope` is a path of names such as "user/alice" or "user/alice/session/7": asking in
    "user/alice" sees everything beneath it. Times are UTC. `ready` is False until the text has been
    compressed.
    """

    text: str
    id: str = ""
    source: str | None = None
    scope: str = ""
    metadata: Metadata = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    version: int = 1
    current: bool = True
    ready: bool = False

    @property
    def date(self) -> str | None:
        """The day that the document names, as "2026-03-04": the latest in its metadata, else the
        one in its source's name.
        """
        named = [str(self.metadata.get(key) or "") for key in DATE_KEYS]
        days = [found[0] for text in named if (found := ISO_DAY.match(text))]
        in_name = ISO_DAY.search(PurePath(self.source or "").name)
        return max(days, default=in_name[0] if in_name else None)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text: `text[start:end]`, under the heading it stands below, about `tokens`
    tokens long.
    """

    start: int
    end: int
    tokens: int
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit that is compressed, matched and read: characters `start` to `end` of one version of
    a document.

    `ready` is False until it has been compressed. `fidelity` is that of its stored memory (see
    Encoded); None: not measured.
    """

    id: int
    document_id: str
    version: int
    ordinal: int
    start: int
    end: int
    tokens: int
    text: str
    heading: str = ""
    ready: bool = False
    fidelity: float | None = None

    @property
    def content(self) -> str:
        """What the model reads: the heading, where there is one, and the passage's own text."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


@dataclass(frozen=True, slots=True)
class Filter:
    """Which documents are meant; every given condition must hold. An empty filter means all current
    documents.

    `scope` includes everything beneath it; `outside` leaves a scope out, with everything beneath
    it. `where` maps a metadata key to a value, or to one operator: {"year": {">=": 2020}}, with ==,
    !=, <, <=, >, >=, in, exists. `source` may hold the wildcard *.
    """

    ids: Sequence[str] | None = None
    scope: str | None = None
    source: str | None = None
    where: Where = field(default_factory=dict)
    history: bool = False
    outside: str | None = None

    @property
    def empty(self) -> bool:
        """True when nothing is asked for, so that every current document fits."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, iterated for its documents. `next_cursor` asks for the following page;
    None on the last.
    """

    documents: Sequence[Document]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of forgetting: what went, from which files, and what a scan of every byte of them found
    left of it.

    `complete` is False while another process reads the state before: the rest is erased at the next
    opening. `copies` are those that this product made and that are still there (backups, archives,
    what a repair laid aside): they may hold what went.
    """

    documents: Sequence[str]
    versions: int
    passages: int
    bytes_freed: int
    files_scanned: Sequence[str]
    traces_found: int
    complete: bool
    at: datetime
    copies: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """What a deletion took out: documents in all their versions, and the number of their
    passages.
    """

    versions: Sequence[Document]
    passages: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The memory in numbers. `pending` passages wait for compression; `cold` ones are encoded again
    when needed.
    """

    documents: int
    versions: int
    passages: int
    pending: int
    cold: int
    tokens: int
    text_bytes: int
    memory_bytes: int
    file_bytes: int
    index: str
    model: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is: documents stored (`added`, or `unchanged` when their content was there
    already) and compressed.

    Of an archive, `taken` of the compressed passages have the memory that it brought; `unproven`
    memories of it were not taken, because nothing proves that they are of the text beside them:
    these passages are compressed here.
    """

    added: int = 0
    unchanged: int = 0
    updated: int = 0
    passages: int = 0
    compressed: int = 0
    taken: int = 0
    unproven: int = 0

    def plus(self, **steps: int) -> Progress:
        """This progress with some counters increased."""
        return replace(self, **{name: getattr(self, name) + step for name, step in steps.items()})


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of a check-up: what was looked at, whether it is well, and what to do when it is
    not.
    """

    check: str
    ok: bool
    detail: str
    remedy: str = ""
