"""Find the document of a file that was moved or renamed.

A file without a document may belong to a document whose own file is missing: `same_text` and
`same_file` find unchanged files, `edited` finds files that were also edited. Changes nothing.
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
from cmt_cli.sources import (
    FileState,
    common_suffix_length,
    file_state,
    has_no_files,
    is_file,
    is_inside,
    normalized_path,
    parts_of,
)
from cmt_sdk.errors import DocumentNotFound

Prefix = tuple[str, ...]

SHINGLE_CHARS = 6  # overlapping pieces of this length are compared; works in every language
SKETCH_SIZE = 200  # hashes that represent a text
MAX_COMPARED_CHARS = 200_000  # of the beginning of a text
# Minimum resemblance for files of the same and of another name; unrelated notes reach 0.03.
SAME_NAME = 0.15
OTHER_NAME = 0.5
# This many unchanged files show where a folder went; its edited files then need no resemblance.
CERTAIN_ROUTE = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A document that came from a file; `digest` is the hash of its text."""

    id: str
    source: str
    digest: bytes
    updated: datetime | None


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()


@dataclass
class KnownFiles:
    """The documents of one scope that came from files, read once.

    Attributes:
        followed: Ids of documents that were moved, with their new sources.
        routes: How many files went from one folder to another.
    """

    memory: cmt_sdk.Memory
    scope: str
    entries: Sequence[Entry]
    followed: dict[str, str] = field(default_factory=dict)
    _inside: dict[tuple[Path, ...], Sequence[str]] = field(default_factory=dict)
    routes: Counter[tuple[Prefix, Prefix]] = field(default_factory=Counter)

    @classmethod
    def of(cls, memory: cmt_sdk.Memory, scope: str) -> KnownFiles:
        """Read the documents of exactly this scope; scopes below it belong to others."""
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
        """Return the newest document of each source."""
        return {
            entry.source: entry
            for entry in sorted(
                self.entries, key=lambda e: e.updated.timestamp() if e.updated else 0
            )
        }

    @cached_property
    def places(self) -> Mapping[str, FileState]:
        """Return the state of each document's file, by the document's id."""
        return {entry.id: file_state(entry.source) for entry in self.entries}

    @cached_property
    def missing(self) -> dict[str, Entry]:
        """Return the documents whose files are missing and were not found elsewhere, by id."""
        return {
            e.id: e for e in self.entries if self.places[e.id].missing and e.id not in self.followed
        }

    def is_alone(self, entry: Entry) -> bool:
        """Return whether a document's file exists and belongs to no other document.

        The document then holds the complete text of the file.
        """
        return self.places[entry.id] is FileState.HERE and self._count[entry.source] == 1

    @cached_property
    def _count(self) -> Counter[str]:
        return Counter(entry.source for entry in self.entries)

    def follow(self, entry: Entry, source: str) -> None:
        """Record that a document belongs to another file from now on."""
        was_missing = self.missing.pop(entry.id, None) is not None
        self.followed[entry.id] = source
        if (common := common_suffix_length(entry.source, source)) and was_missing:
            self.routes[parts_of(entry.source)[:-common], parts_of(source)[:-common]] += 1

    def came_from(self, entry: Entry, prefixes: Collection[Prefix]) -> bool:
        """Return whether a document's file was in one of these folders."""
        parts = parts_of(entry.source)
        return any(parts[: len(prefix)] == prefix for prefix in prefixes)

    def same_file(self, source: str, roots: Sequence[Path]) -> Entry | None:
        """Return the document of the same file under another name.

        That is another spelling of the path, or the target of a link that leads out of the roots.
        """
        for entry in self._by_key.get(normalized_path(source), ()):
            if entry.id in self.missing or (
                entry.id not in self.followed and _is_same(entry.source, source)
            ):
                return entry
        target = Path(os.path.realpath(source))
        if not os.path.islink(source) or not is_inside(source, roots) or is_inside(target, roots):  # noqa: PTH114 - Path's raises in a closed folder
            return None
        return self.by_source.get(target.as_posix())

    @cached_property
    def _by_key(self) -> Mapping[str, Sequence[Entry]]:
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            found[normalized_path(entry.source)].append(entry)
        return found

    def same_text(self, document: cmt_sdk.Document) -> Entry | None:
        """Return the document with this text whose file is missing.

        Of several, one whose folder still has files is preferred, then the most similar path.
        """
        alike = [
            e for e in self._by_digest.get(digest_of(document.text), ()) if e.id in self.missing
        ]
        if len(alike) < 2:
            return next(iter(alike), None)
        return max(
            alike,
            key=lambda e: (self._is_seen(e), common_suffix_length(e.source, document.source or "")),
        )

    def _is_seen(self, entry: Entry) -> bool:
        """Return whether a file is gone from a folder with other files: it was moved or deleted."""
        return self.places[entry.id] is FileState.GONE and not has_no_files(
            Path(entry.source).parent
        )

    @cached_property
    def _by_digest(self) -> Mapping[bytes, Sequence[Entry]]:
        found: defaultdict[bytes, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            found[entry.digest].append(entry)
        return found

    def may_be_edited(self, document: cmt_sdk.Document, near: Sequence[Path]) -> bool:
        """Return whether the file may be a moved and edited one; decided after all are read."""
        if any(name in self.missing for name in self._beneath(tuple(near))):
            return True
        return name_of(document.source or "") in self._missing_names

    @cached_property
    def _missing_names(self) -> frozenset[str]:
        return frozenset(name_of(entry.source) for entry in self.missing.values())

    def _near(self, near: Sequence[Path]) -> Mapping[str, Entry]:
        """Return the missing documents whose files were in these folders."""
        return {
            name: self.missing[name] for name in self._beneath(tuple(near)) if name in self.missing
        }

    def _beneath(self, folders: tuple[Path, ...]) -> Sequence[str]:
        """Return the ids of documents whose files are or were in these folders; cached."""
        if folders not in self._inside:
            found = (
                [e.id for e in self.entries if is_inside(e.source, folders)] if self.missing else []
            )
            self._inside[folders] = found
        return self._inside[folders]

    def edited(
        self, documents: Sequence[cmt_sdk.Document], near: Sequence[Path]
    ) -> Iterator[tuple[int, Entry]]:
        """Match read files to documents whose files were both moved and edited.

        A file counts as the same if its text is similar and it has the same name or comes from the
        folders `near`, or if its neighbours went the same way.

        Args:
            documents: Documents read from files that no known document names.
            near: Folders that are synchronised.

        Yields:
            The index into `documents` with the known document, most likely pairs first.
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
        matched: set[int] = set()
        for _, number, entry in pairs:
            if number not in matched and entry.id in choice:
                del choice[entry.id]
                matched.add(number)
                yield number, entry

    def _pairs(
        self,
        documents: Sequence[cmt_sdk.Document],
        choice: Mapping[str, Entry],
        near: Mapping[str, Entry],
    ) -> Iterator[tuple[float, int, Entry]]:
        """Yield all pairs that may be one document, with a score of how likely that is."""
        sketches = {}
        for entry_id in choice:
            try:
                sketches[entry_id] = sketch_of(self.memory.get(entry_id).text)
            except DocumentNotFound:  # another process has deleted it
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
                if alike >= least or routed.get(entry_id, 0) >= CERTAIN_ROUTE:
                    yield (
                        alike + (entry_id in routed) + (name_of(entry.source) == name_of(source)),
                        number,
                        entry,
                    )

    def _routed(self, source: str, at: Mapping[Prefix, str]) -> Iterator[tuple[str, int]]:
        """Yield the documents of this file if it went the way of its neighbours.

        Each comes with the number of neighbours that went that way.
        """
        parts = parts_of(source)
        for (old, new), count in self.routes.items():
            if parts[: len(new)] == new and (found := at.get(old + parts[len(new) :])):
                yield found, count

    def _least(self, entry: Entry, source: str, is_routed: bool, is_near: bool) -> float:
        """Return the minimum resemblance for a file to count as that of a document."""
        if name_of(entry.source) == name_of(source):
            return (
                SAME_NAME
                if is_routed or is_near or self.places[entry.id] is FileState.GONE
                else OTHER_NAME
            )
        return OTHER_NAME if is_near and self._is_seen(entry) else math.inf


def name_of(source: str) -> str:
    """Return the file name without suffix, normalized: a note may become a letter."""
    return PurePosixPath(normalized_path(source)).stem


def sketch_of(text: str) -> frozenset[int]:
    """Return the smallest hashes of a text's overlapping pieces (MinHash).

    Texts that share many pieces share many of these hashes.
    """
    letters = " ".join(text[:MAX_COMPARED_CHARS].casefold().split())
    pieces = {
        letters[at : at + SHINGLE_CHARS] for at in range(max(1, len(letters) - SHINGLE_CHARS + 1))
    }
    return frozenset(heapq.nsmallest(SKETCH_SIZE, map(hash, pieces)))


def resemblance(one: frozenset[int], other: frozenset[int]) -> float:
    """Estimate the Jaccard similarity of two texts from their sketches, in [0, 1]."""
    smallest = heapq.nsmallest(SKETCH_SIZE, one | other)
    return sum(piece in one and piece in other for piece in smallest) / max(1, len(smallest))


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        return False
