"""Which document a file belongs to that no document names: one whose own file is missing, by its
text. Changes nothing.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath

import cmt_sdk
from cmt_cli.sources import Place, is_beneath, is_blind, is_file, key_of, parts_of, place_of, tail
from cmt_sdk.errors import DocumentNotFound

Prefix = tuple[str, ...]

SHINGLE = 6  # characters: words of no language are needed
SKETCH = 200  # hashes that stand for a text
LONGEST = 200_000  # characters of a text that are compared
SAME_NAME, OTHER_NAME = 0.15, 0.5  # the least resemblance; unrelated notes reach a few hundredths
# files with unchanged texts that show where a folder went: then its edited ones need no resemblance
CERTAIN = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A document that came from a file."""

    id: str
    source: str
    digest: bytes
    updated: datetime | None


def digest_of(text: str) -> bytes:
    """What two equal texts have in common."""
    return hashlib.sha256(text.encode()).digest()


@dataclass
class Known:
    """The documents of one scope that came from files, as they were when this was made."""

    memory: cmt_sdk.Memory
    scope: str
    entries: Sequence[Entry]
    # ids of documents with the sources they have now
    followed: dict[str, str] = field(default_factory=dict)
    _inside: dict[tuple[Path, ...], Sequence[str]] = field(default_factory=dict)
    # where whole folders went
    routes: Counter[tuple[Prefix, Prefix]] = field(default_factory=Counter)

    @classmethod
    def of(cls, memory: cmt_sdk.Memory, scope: str) -> Known:
        """Those of this very scope: what lies beneath it is somebody else's."""
        documents = (
            d
            for d in memory.documents(scope=scope or None)
            if d.scope == scope and is_file(d.source)
        )
        return cls(
            memory,
            scope,
            [Entry(d.id, d.source or "", digest_of(d.text), d.updated_at) for d in documents],
        )

    @cached_property
    def by_source(self) -> Mapping[str, Entry]:
        """The newest document of each source."""
        return {
            entry.source: entry
            for entry in sorted(
                self.entries, key=lambda e: e.updated.timestamp() if e.updated else 0
            )
        }

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Where the file of each document is, by the document's id."""
        return {entry.id: place_of(entry.source) for entry in self.entries}

    @cached_property
    def missing(self) -> dict[str, Entry]:
        """The documents whose files are missing and were not found elsewhere, by id."""
        return {
            e.id: e for e in self.entries if self.places[e.id].missing and e.id not in self.followed
        }

    def is_alone(self, entry: Entry) -> bool:
        """Whether a document's file is here, and no other document is of the same file: then it is
        the file's whole text.
        """
        return self.places[entry.id] is Place.HERE and self._count[entry.source] == 1

    @cached_property
    def _count(self) -> Counter[str]:
        return Counter(entry.source for entry in self.entries)

    def follow(self, entry: Entry, source: str) -> None:
        """Note that a document belongs to another file from now on."""
        was_missing = self.missing.pop(entry.id, None) is not None
        self.followed[entry.id] = source
        if (common := tail(entry.source, source)) and was_missing:
            self.routes[parts_of(entry.source)[:-common], parts_of(source)[:-common]] += 1

    def came_from(self, entry: Entry, prefixes: Collection[Prefix]) -> bool:
        """Whether a document's file lay in one of these folders."""
        parts = parts_of(entry.source)
        return any(parts[: len(prefix)] == prefix for prefix in prefixes)

    def same_file(self, source: str, roots: Sequence[Path]) -> Entry | None:
        """The document of this file under another name: spelled otherwise, or that of the file
        outside to which a link leads.
        """
        for entry in self._by_key.get(key_of(source), ()):
            if entry.id in self.missing or (
                entry.id not in self.followed and _is_same(entry.source, source)
            ):
                return entry
        target = Path(os.path.realpath(source))
        if not os.path.islink(source) or not is_beneath(source, roots) or is_beneath(target, roots):  # noqa: PTH114 - Path's raises in a closed folder
            return None
        return self.by_source.get(target.as_posix())

    @cached_property
    def _by_key(self) -> Mapping[str, Sequence[Entry]]:
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            found[key_of(entry.source)].append(entry)
        return found

    def same_text(self, document: cmt_sdk.Document) -> Entry | None:
        """The document with this text whose file is missing.

        Of several, one whose folder can be seen comes first, then that whose path is most alike.
        """
        alike = [
            e for e in self._by_digest.get(digest_of(document.text), ()) if e.id in self.missing
        ]
        if len(alike) < 2:
            return next(iter(alike), None)
        return max(alike, key=lambda e: (self._is_seen(e), tail(e.source, document.source or "")))

    def _is_seen(self, entry: Entry) -> bool:
        """Whether a file is gone from a folder in which there are others: then it was moved or
        deleted.
        """
        return self.places[entry.id] is Place.GONE and not is_blind(Path(entry.source).parent)

    @cached_property
    def _by_digest(self) -> Mapping[bytes, Sequence[Entry]]:
        found: defaultdict[bytes, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            found[entry.digest].append(entry)
        return found

    def may_be_edited(self, document: cmt_sdk.Document, near: Sequence[Path]) -> bool:
        """Whether a document may turn out to be one whose file was moved and edited, when all files
        are read.
        """
        if any(name in self.missing for name in self._beneath(tuple(near))):
            return True
        return name_of(document.source or "") in self._missing_names

    @cached_property
    def _missing_names(self) -> frozenset[str]:
        return frozenset(name_of(entry.source) for entry in self.missing.values())

    def _near(self, near: Sequence[Path]) -> Mapping[str, Entry]:
        """The missing documents whose files lay in these folders."""
        return {
            name: self.missing[name] for name in self._beneath(tuple(near)) if name in self.missing
        }

    def _beneath(self, folders: tuple[Path, ...]) -> Sequence[str]:
        """The ids of the documents whose files are or were in these folders; looked for once."""
        if folders not in self._inside:
            found = (
                [e.id for e in self.entries if is_beneath(e.source, folders)]
                if self.missing
                else []
            )
            self._inside[folders] = found
        return self._inside[folders]

    def edited(
        self, documents: Sequence[cmt_sdk.Document], near: Sequence[Path]
    ) -> Iterator[tuple[int, Entry]]:
        """The documents whose files were moved and edited at once: the numbers of those that were
        read, with the known ones.

        A file of the same name, or one from the folders `near`, is taken for the same when the
        texts are alike, and when its neighbours went the same way.
        """
        names = {name_of(document.source or "") for document in documents}
        near_by = self._near(near)
        choice = {
            e.id: e for e in self.missing.values() if e.id in near_by or name_of(e.source) in names
        }
        if not choice or not documents:
            return
        pairs = sorted(
            self._pairs(documents, choice, near_by), key=lambda pair: pair[0], reverse=True
        )
        taken: set[int] = set()
        for _, number, entry in pairs:
            if number not in taken and entry.id in choice:
                del choice[entry.id]
                taken.add(number)
                yield number, entry

    def _pairs(
        self,
        documents: Sequence[cmt_sdk.Document],
        choice: Mapping[str, Entry],
        near: Mapping[str, Entry],
    ) -> Iterator[tuple[float, int, Entry]]:
        """All pairs that may be one document, with how likely that is."""
        sketches = {}
        for entry_id in choice:
            try:
                sketches[entry_id] = sketch_of(self.memory.get(entry_id).text)
            except DocumentNotFound:  # another process was quicker
                continue
        holders: defaultdict[int, list[str]] = defaultdict(list)
        for entry_id, sketch in sketches.items():
            for piece in sketch:
                holders[piece].append(entry_id)
        at = {parts_of(entry.source): entry.id for entry in choice.values()} if self.routes else {}
        for number, document in enumerate(documents):
            source = document.source or ""
            mine = sketch_of(document.text)
            routed = dict(self._routed(source, at))
            alike_or_routed = {
                name for piece in mine for name in holders.get(piece, ())
            } | routed.keys()
            for entry_id in alike_or_routed & sketches.keys():
                entry = choice[entry_id]
                alike = resemblance(mine, sketches[entry_id])
                least = self._least(entry, source, entry_id in routed, entry_id in near)
                if alike >= least or routed.get(entry_id, 0) >= CERTAIN:
                    yield (
                        alike + (entry_id in routed) + (name_of(entry.source) == name_of(source)),
                        number,
                        entry,
                    )

    def _routed(self, source: str, at: Mapping[Prefix, str]) -> Iterator[tuple[str, int]]:
        """The documents that this file would be of, had it gone the way of its neighbours, with how
        many went it.
        """
        parts = parts_of(source)
        for (old, new), count in self.routes.items():
            if parts[: len(new)] == new and (found := at.get(old + parts[len(new) :])):
                yield found, count

    def _least(self, entry: Entry, source: str, is_routed: bool, is_near: bool) -> float:
        """The resemblance from which a file counts as that of a document."""
        if name_of(entry.source) == name_of(source):
            return (
                SAME_NAME
                if is_routed or is_near or self.places[entry.id] is Place.GONE
                else OTHER_NAME
            )
        return OTHER_NAME if is_near and self._is_seen(entry) else math.inf


def name_of(source: str) -> str:
    """The last part of a path without its suffix, in the spelling of `key_of`: a note may become a
    letter.
    """
    return PurePosixPath(key_of(source)).stem


def sketch_of(text: str) -> frozenset[int]:
    """The smallest hashes of a text's overlapping pieces: texts that share many of the pieces share
    many of these.
    """
    letters = " ".join(text[:LONGEST].casefold().split())
    pieces = {letters[at : at + SHINGLE] for at in range(max(1, len(letters) - SHINGLE + 1))}
    return frozenset(heapq.nsmallest(SKETCH, map(hash, pieces)))


def resemblance(one: frozenset[int], other: frozenset[int]) -> float:
    """The share of the pieces of two texts that both have, estimated."""
    smallest = heapq.nsmallest(SKETCH, one | other)
    return sum(piece in one and piece in other for piece in smallest) / max(1, len(smallest))


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        return False
