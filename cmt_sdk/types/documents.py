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
DAYS = "days"  # metadata of a statement: the days that its words mean, "yesterday: 2026-03-10"
ISO_DAY = re.compile(r"(?<!\d)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d)")


class Unchanged(Enum):
    """The default of a field that `Memory.update` leaves as it is; None empties one."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return self.name


UNCHANGED = Unchanged.UNCHANGED


def tail_of(source: str | None) -> str:
    """The last two names of a path or an address, each after its slash; "" if there are fewer."""
    names = (source or "").split("/")
    return "/" + "/".join(names[-2:]) if len(names) > 2 and all(names[-2:]) else ""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to remember. Only `text` is needed; `Memory.add` fills in the rest.

    Attributes:
        text: The text.
        id: A name for it; generated if it is empty.
        source: Where it is from, such as a path or an address.
        scope: A path of names such as "user/ann" or "user/ann/session/7": asking in "user/ann"
            reads everything beneath it.
        metadata: Names and plain values.
        created_at: When the document was added, in UTC.
        updated_at: When its text last changed, in UTC.
        expires_at: When it stops being remembered.
        version: From 1; an update of the text makes the next one.
        current: False for a version in the history.
        ready: False until the text is compressed.
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
        one in the name of its source.
        """
        named = [str(self.metadata.get(key) or "") for key in DATE_KEYS]
        days = [found[0] for text in named if (found := ISO_DAY.match(text))]
        in_name = ISO_DAY.search(PurePath(self.source or "").name)
        return max(days, default=in_name[0] if in_name else None)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text: `text[start:end]`, about `tokens` tokens long, under `heading`."""

    start: int
    end: int
    tokens: int
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit that is compressed, matched and read: a part of one version of a document.

    Attributes:
        id: Its number in the memory.
        document_id: The document.
        version: The version of the document.
        ordinal: Its place among the passages of the version, from 0.
        start: Its first character in the document's text.
        end: The character after its last.
        tokens: Its length in tokens of the model.
        text: Its text.
        heading: The title and headings that it stands under.
        ready: False until it is compressed.
        fidelity: That of its compressed form, see Encoded; None if it was not measured.
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
        """The text that the model reads: the heading, if there is one, and the passage's text."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on documents, all of which must hold. An empty filter fits every current document.

    Attributes:
        ids: Only these documents.
        scope: Only this scope, with everything beneath it.
        source: Only this source; * is a wildcard.
        where: From a metadata key to a value, or to one operator: {"year": {">=": 2020}}, with ==,
            !=, <, <=, >, >=, in, exists.
        history: Earlier versions too.
        outside: Not this scope, nor anything beneath it.
    """

    ids: Sequence[str] | None = None
    scope: str | None = None
    source: str | None = None
    where: Where = field(default_factory=dict)
    history: bool = False
    outside: str | None = None

    @property
    def empty(self) -> bool:
        """True if there is no condition, so that every current document fits."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, iterated for its documents.

    Attributes:
        documents: The documents of this page.
        next_cursor: The cursor of the following page; None on the last one.
    """

    documents: Sequence[Document]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of forgetting: what went, and what a scan of every byte of the files found left of it.

    Attributes:
        documents: The ids of the documents that were erased.
        versions: How many versions were erased.
        passages: How many passages were erased.
        bytes_freed: By how many bytes the files became smaller. A large database keeps what is
            freed for later documents, until a quarter of it is free.
        files_scanned: The files that were scanned.
        traces_found: Pieces of the erased text that the scan found; 0 if nothing is left.
        complete: False while another process reads the state before: the rest is erased at the next
            opening.
        at: When, in UTC.
        copies: Backups, archives and files set aside by a repair that still exist and may hold the
            erased text.
        objects: The objects that were deleted, by their SHA-256: compressed passages in the place
            of the setting `objects`. Without that setting there are none.
        objects_unproven: Those of them whose bytes may still be there: the place reports versions,
            and earlier ones cannot be deleted from here, or still has the object.
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
    objects: Sequence[str] = ()
    objects_unproven: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeletedObjects:
    """Objects that no passage needed any more, and that were deleted.

    Attributes:
        names: Their SHA-256, 64 hexadecimal digits each.
        unproven: Those of them whose bytes may still be there; see `Receipt`.
        left: How many are still to be deleted, since another process deletes them now.
    """

    names: Sequence[str] = ()
    unproven: Sequence[str] = ()
    left: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """The result of a deletion: documents in all their versions, the number of passages."""

    versions: Sequence[Document]
    passages: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The memory in numbers.

    Attributes:
        documents: Current documents.
        versions: Versions of all documents.
        passages: Passages of current versions.
        pending: Passages that are not compressed yet.
        compressed: Passages with a compressed form; `memory_bytes` is their size.
        cold: Passages whose compressed form was dropped for `memory_budget`; they are read from
            their text.
        tokens: Tokens of all passages.
        text_bytes: UTF-8 bytes of all texts.
        memory_bytes: Bytes of all compressed passages.
        file_bytes: Bytes of all files.
        index: The vector index, described.
        model: The model in the settings.
    """

    documents: int
    versions: int
    passages: int
    pending: int
    compressed: int
    cold: int
    tokens: int
    text_bytes: int
    memory_bytes: int
    file_bytes: int
    index: str
    model: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is.

    Attributes:
        added: Documents stored.
        unchanged: Documents whose content was stored already.
        updated: Documents that became a next version.
        passages: Passages of the stored documents.
        compressed: Passages compressed.
        taken: Of these, passages whose compressed form an archive brought.
        unproven: Compressed passages of an archive that were not taken, because no seal proves that
            they are of the text next to them; their passages are compressed here.
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
class Copied:
    """What a copy of a memory did, and what the comparison with its source found.

    Attributes:
        added: Documents stored.
        updated: Documents that got later versions or fields.
        unchanged: Documents that were there already.
        compressed: Compressed passages copied.
        reencoded: Passages compressed again, with `reencode`.
        left_out: Documents that stay out: the target forgot them, or keeps their source out.
        pending: Passages of the target that are not compressed yet.
        documents: Documents compared by their hashes.
        passages: Compressed passages compared by their hashes.
        differences: How many differences the comparison found.
        named: The first of these differences.
        forgotten: Ids of documents of the target that the source forgot: forget them there too.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    compressed: int = 0
    reencoded: int = 0
    left_out: int = 0
    pending: int = 0
    documents: int = 0
    passages: int = 0
    differences: int = 0
    named: Sequence[str] = ()
    forgotten: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether the target holds what the source holds."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of a check.

    Attributes:
        check: The name of the check.
        ok: Whether it passed.
        detail: What it found.
        remedy: What to do if it failed.
    """

    check: str
    ok: bool
    detail: str
    remedy: str = ""
