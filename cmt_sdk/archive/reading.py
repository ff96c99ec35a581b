"""Reading an archive into a store. All of it is checked before anything is stored; nothing is
unpacked to the disk.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from cmt_sdk.archive.contents import Contents, StoredMemory, opened
from cmt_sdk.archive.files import disk_errors
from cmt_sdk.archive.histories import (
    NAMED,
    Choice,
    Comparison,
    State,
    compare,
    gone_on,
    kinship,
    told,
    with_fields,
)
from cmt_sdk.archive.layout import digest
from cmt_sdk.archive.seals import Seal
from cmt_sdk.errors import AlreadyExists
from cmt_sdk.ports import Store
from cmt_sdk.types import Document, Encoded, Filter, Fingerprint, Progress, Span

log = logging.getLogger(__name__)

FIRST: tuple[State, ...] = ("same", "ahead", "behind", "diverged")  # of several that it may be


@dataclass(frozen=True, slots=True)
class ArchiveImport:
    """What a memory says about what comes in.

    check: raises InvalidDocument for a text that cannot be stored. cut: the passages of a document.
    accepts: whether the open model reads a memory made by this fingerprint. longest: the most UTF-8
    bytes that a text may have. seal: proves memories; None proves none. trust: take them unproven,
    on the user's word.
    """

    check: Callable[[Document], None]
    split: Callable[[Document], Sequence[Span]]
    accepts: Callable[[Fingerprint, Encoded], bool]
    longest: int
    seal: Seal | None = None
    trust: bool = False

    def proven(self, memory: StoredMemory) -> bool:
        """Whether a memory may be believed to be of the text that it names."""
        if self.trust or self.seal is None:
            return self.trust
        return self.seal.fits(memory.seal, memory.content, memory.fingerprint.id, memory.encoded)


def read(
    store: Store, path: Path, rules: ArchiveImport, diverged: Choice | None = None
) -> Iterator[Progress]:
    """Add an archive's documents with their ids, histories and times, and those of its memories
    that are proven.

    A memory is proven by a seal of the user's own key, else taken only with `trust`: whoever writes
    an archive could lay the memory of another text beside a text, and answers would come from what
    no source shows.

    Yields how far it is, after each document and each shard. A document that is here already, by
    its id, or by its source and a common text, goes on with the versions that are not here; where
    the one here went on, it stays as it is. Two documents of one text stay two. Nothing is taken
    out. What has no memory afterwards waits for compression.

    Args:
        store: Where the documents go.
        path: The archive.
        rules: The memory's rules.
        diverged: Which text becomes current of a document that went on here and in the archive;
            None refuses the archive.

    Raises:
        AlreadyExists: Documents went on here and in the archive. Nothing is stored.
        StorageDamaged, StorageNewer, InvalidDocument, NotFound: Nothing is stored.
    """
    progress, found = Progress(), _Found(store, diverged)
    with disk_errors(path), opened(path, rules.longest) as contents:
        _check(contents, found, rules)
        for versions in contents.documents():
            progress = _restore(found, versions, rules, progress)
            yield progress
        if found.behind:
            log.warning("%s", found.said_of_behind())
        for shard in range(contents.manifest.shards):
            progress = progress.plus(**_take_over(found, contents.memories(shard), rules))
            yield progress


@dataclass
class _Found:
    """What the store has of an archive's documents.

    `names` are the ids here of those that have another one in the archive: each document here is
    one of the archive's at most, so that two there stay two. `behind` are those that the archive
    has older.
    """

    store: Store
    choice: Choice | None
    names: dict[str, str] = field(default_factory=dict)
    behind: list[Document] = field(default_factory=list)

    def match(self, documents: Iterable[Sequence[Document]]) -> None:
        """Find the documents here that are the archive's under other ids; the surest pairs
        first.
        """
        ids: set[str] = set()
        pairs: list[tuple[int, int, int, str, str]] = []
        for number, theirs in enumerate(documents):
            ids.add(theirs[-1].id)
            pairs += [
                (kin, state, number, theirs[-1].id, mine)
                for kin, state, mine in self._alike(theirs)
            ]
        taken: set[str] = set()
        for *_, name, mine in sorted(pairs):
            if name not in self.names and mine not in taken and mine not in ids:
                self.names[name] = mine
                taken.add(mine)

    def _alike(self, theirs: Sequence[Document]) -> Iterator[tuple[int, int, str]]:
        """The documents here that may be an archive's under another id, with how surely and how
        their histories are.
        """
        last, alive = theirs[-1], self._alive(theirs[-1].id)
        if alive and compare(self.store.history(last.id), theirs).state != "diverged":
            return
        for mine in self.store.related(theirs):
            kin = kinship(mine, theirs)
            # where its id is taken here, its text may have become a document of its own before
            if kin is not None and mine.id != last.id and (not alive or mine.text == last.text):
                yield kin, FIRST.index(compare(self.store.history(mine.id), theirs).state), mine.id

    def of(self, theirs: Sequence[Document]) -> tuple[Document, Comparison] | None:
        """The document here that an archive's is, and what its history is to that one's; None for a
        new one.

        One that has expired here makes room.
        """
        name = theirs[-1].id
        mine = self._alive(self.names.get(name, name))
        return (mine, compare(self.store.history(mine.id), theirs)) if mine else None

    def _alive(self, name: str) -> Document | None:
        return next(iter(self.store.page(Filter(ids=[name]), 1, None).documents), None)

    def said_of_behind(self) -> str:
        """One line about the documents that went on here alone."""
        first, count = self.behind[0], len(self.behind)
        name = first.source or first.id
        rest = f" and {count - 1:,} more" if count > 1 else ""
        return f"the archive has older versions of {name:.200}{rest}: what is here stays"


def _check(contents: Contents, found: _Found, rules: ArchiveImport) -> None:
    """Read everything once, so that an archive is taken whole or not at all."""
    named: list[tuple[Document, Document, Comparison]] = []
    count = 0
    found.match(contents.documents())
    for versions in contents.documents():
        for version in versions:
            rules.check(version)
        known = found.of(versions)
        if known and known[1].state == "diverged" and found.choice is None:
            count += 1
            if len(named) < NAMED:
                named.append((known[0], versions[-1], known[1]))
    if count:
        raise AlreadyExists(told(named, count))
    contents.check_memories()


def _restore(
    found: _Found, versions: Sequence[Document], rules: ArchiveImport, progress: Progress
) -> Progress:
    """Take one document of an archive."""
    known = found.of(versions)
    apart = known and known[1].state == "diverged" and found.choice == "both"
    if known is None or apart:
        return _add(
            found, versions, rules, progress, name=uuid.uuid4().hex if apart else versions[-1].id
        )
    mine, comparison = known
    return _go_on(found, mine, versions[-1], comparison, rules, progress)


def _add(
    found: _Found,
    versions: Sequence[Document],
    rules: ArchiveImport,
    progress: Progress,
    *,
    name: str,
) -> Progress:
    """Store a document that is not here under an id."""
    spans = rules.split(versions[-1])
    _, is_new = found.store.restore([replace(version, id=name) for version in versions], spans)
    found.names[versions[-1].id] = name
    return progress.plus(added=1, passages=len(spans)) if is_new else progress.plus(unchanged=1)


def _go_on(
    found: _Found,
    mine: Document,
    last: Document,
    comparison: Comparison,
    rules: ArchiveImport,
    progress: Progress,
) -> Progress:
    """Let a document here go on as the archive's did, where it did."""
    if comparison.state == "behind":
        found.behind.append(mine)
        return progress.plus(unchanged=1)
    same_id, now = mine.id == last.id, found.store.now()
    if comparison.state == "same":
        changed = with_fields(mine, last, now, same_id=same_id)
        if changed is mine:
            return progress.plus(unchanged=1)
        found.store.extend_history(
            mine.id, [changed], rules.split(changed)
        )  # its source and metadata name it
        return progress.plus(updated=1)
    choice = found.choice if comparison.state == "diverged" else "theirs"
    if choice is None:  # since the check another process changed it
        raise AlreadyExists(told([(mine, last, comparison)], 1))
    versions = gone_on(mine, comparison, choice, now, same_id=same_id)
    spans = None if choice == "ours" else rules.split(versions[-1])
    found.store.extend_history(mine.id, versions, spans)
    return (
        progress.plus(unchanged=1)
        if spans is None
        else progress.plus(updated=1, passages=len(spans))
    )


def _take_over(
    found: _Found, memories: Iterable[StoredMemory], rules: ArchiveImport
) -> dict[str, int]:
    """Save those memories of a shard that passages wait for, that are proven, and that the model
    reads; returns the steps of progress: how many were taken, and how many were not for want of a
    proof.
    """
    fitting: dict[Fingerprint, dict[int, Encoded]] = {}
    unproven = 0
    for document, group in groupby(memories, key=lambda m: m.document):
        waiting = _waiting(found.store, found.names.get(document, document))
        for memory in group:
            ids = waiting.get(memory.content, [])
            if not ids or not rules.accepts(memory.fingerprint, memory.encoded):
                continue
            if not rules.proven(memory):
                unproven += len(ids)
            else:
                fitting.setdefault(memory.fingerprint, {}).update(
                    dict.fromkeys(ids, memory.encoded)
                )
    for fingerprint, encoded in fitting.items():
        found.store.save(encoded, fingerprint)
    taken = sum(map(len, fitting.values()))
    return {"compressed": taken, "taken": taken, "unproven": unproven}


def _waiting(store: Store, document_id: str) -> dict[str, list[int]]:
    """The ids of a document's passages by what they contain, where some still wait for a memory."""
    found = store.page(Filter(ids=[document_id]), 1, None).documents
    ids: dict[str, list[int]] = {}
    if found and not found[0].ready:
        for passage in store.passages_of(document_id):
            ids.setdefault(digest(passage), []).append(passage.id)
    return ids
