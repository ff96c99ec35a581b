"""Merges the records of an archive, or of another store, into a store. All of an archive is checked
before anything is stored; nothing is unpacked to the disk.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from cmt_sdk.archive.contents import opened
from cmt_sdk.archive.files import disk_errors
from cmt_sdk.archive.histories import (
    NAMED,
    Choice,
    Comparison,
    State,
    compare,
    divergence_message,
    match_rank,
    versions_to_append,
    with_fields,
)
from cmt_sdk.archive.layout import digest
from cmt_sdk.archive.records import ArchivedPassage, Records
from cmt_sdk.archive.seals import Seal
from cmt_sdk.errors import AlreadyExists
from cmt_sdk.ports import Store
from cmt_sdk.types import Document, Encoded, Filter, Fingerprint, Progress, Span

log = logging.getLogger(__name__)

PREFERENCE: tuple[State, ...] = ("same", "ahead", "behind", "diverged")  # between candidates


@dataclass(frozen=True, slots=True)
class ArchiveImport:
    """A memory's rules for what comes from elsewhere.

    Attributes:
        check: raises InvalidDocument for a text that cannot be stored.
        split: returns the passages of a document whose records have none.
        accepts: returns whether the open model can use a passage with this fingerprint.
        longest: UTF-8 bytes that a text has at most.
        seal: proves compressed passages; None proves none.
        trust: accept compressed passages without proof.
        leaves_out: returns whether a document that is not here stays out.
    """

    check: Callable[[Document], None]
    split: Callable[[Document], Sequence[Span]]
    accepts: Callable[[Fingerprint, Encoded], bool]
    longest: int
    seal: Seal | None = None
    trust: bool = False
    leaves_out: Callable[[Document], bool] = lambda _: False

    def proven(self, passage: ArchivedPassage) -> bool:
        """Return whether a compressed passage is accepted as made of the text that it names."""
        if self.trust or self.seal is None:
            return self.trust
        return self.seal.fits(
            passage.seal, passage.content, passage.fingerprint.id, passage.encoded
        )


def read(
    store: Store, path: Path, rules: ArchiveImport, diverged: Choice | None = None
) -> Iterator[Progress]:
    """Add an archive's documents and its proven compressed passages; see `merge`.

    A seal of the user's own key proves a compressed passage; others are accepted only with `trust`.
    Without proof the author of an archive could put the compressed form of another text next to a
    text, and answers would come from content that no source shows.

    Args:
        store: Where the documents go.
        path: The archive.
        rules: The memory's rules.
        diverged: Which text becomes current of a document that changed here and in the archive;
            None refuses the archive.

    Raises:
        AlreadyExists: Documents changed here and in the archive. Nothing is stored.
        StorageDamaged, StorageNewer, InvalidDocument, NotFound: Nothing is stored.
    """
    with disk_errors(path), opened(path, rules.longest) as contents:
        yield from merge(Matches(store, diverged), contents, rules)


def merge(found: Matches, records: Records, rules: ArchiveImport) -> Iterator[Progress]:
    """Add documents with their ids, histories and times, and their compressed passages.

    Yields the progress after each document and each shard. A document that is here already, by its
    id, or by its source and a common text, gets the versions that are missing here; where only the
    one here has changed, it stays as it is. Two documents of one text stay two. Nothing is deleted.
    Passages without a compressed form are pending afterwards. What is here already is not stored
    again, so that a merge that was interrupted is finished by another one.

    Args:
        found: the store that they are added to.
        records: the documents and compressed passages.
        rules: the memory's rules.

    Raises:
        AlreadyExists, StorageDamaged, InvalidDocument: as `read` does; nothing is stored.
    """
    progress = Progress()
    _check(records, found, rules)
    for versions in records.documents():
        progress = _restore(found, records, versions, rules, progress)
        yield progress
    if found.behind:
        log.warning("%s", found.behind_message())
    for shard in records.shards(lambda name: _pending(found.store, found.names.get(name, name))):
        progress = progress.plus(**_store_compressed(found, shard, rules))
        yield progress


@dataclass
class Matches:
    """The documents here that are an archive's documents.

    Attributes:
        names: ids here, by the archive's id, of documents that have another id there. Each document
            here is at most one of the archive's, so that two there stay two.
        behind: documents of which the archive has only earlier versions.
        left_out: ids of documents that are not here and stay out.
        there: what the documents come from, for messages.
    """

    store: Store
    choice: Choice | None = None
    there: str = "the archive"
    names: dict[str, str] = field(default_factory=dict)
    behind: list[Document] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def match(self, documents: Iterable[Sequence[Document]]) -> None:
        """Match the documents here that have another id in the archive, surest pairs first."""
        ids: set[str] = set()
        pairs: list[tuple[int, int, int, str, str]] = []
        for number, theirs in enumerate(documents):
            ids.add(theirs[-1].id)
            pairs += [
                (rank, state, number, theirs[-1].id, mine)
                for rank, state, mine in self._alike(theirs)
            ]
        taken: set[str] = set()
        for *_, name, mine in sorted(pairs):
            if name not in self.names and mine not in taken and mine not in ids:
                self.names[name] = mine
                taken.add(mine)

    def _alike(self, theirs: Sequence[Document]) -> Iterator[tuple[int, int, str]]:
        """Yield the documents here that may have another id in the archive: the rank of the match,
        the preference of its state, and the id here.
        """
        last = theirs[-1]
        alive = self._alive(last.id)
        if alive and compare(self.store.history(last.id), theirs).state != "diverged":
            return
        for mine in self.store.related(theirs):
            rank = match_rank(mine, theirs)
            # where its id is taken here, an earlier import may have stored it under another one
            if rank is not None and mine.id != last.id and (not alive or mine.text == last.text):
                yield (
                    rank,
                    PREFERENCE.index(compare(self.store.history(mine.id), theirs).state),
                    mine.id,
                )

    def of(self, theirs: Sequence[Document]) -> tuple[Document, Comparison] | None:
        """Return the document here that an archive's is, and how their histories compare; None for
        a new one. An expired document here does not count.
        """
        name = theirs[-1].id
        mine = self._alive(self.names.get(name, name))
        return (mine, compare(self.store.history(mine.id), theirs)) if mine else None

    def _alive(self, name: str) -> Document | None:
        return next(iter(self.store.page(Filter(ids=[name]), 1, None).documents), None)

    def behind_message(self) -> str:
        """Return a line about the documents that changed only here."""
        first = self.behind[0]
        count = len(self.behind)
        name = first.source or first.id
        rest = f" and {count - 1:,} more" if count > 1 else ""
        return f"{self.there} has older versions of {name:.200}{rest}: what is here stays"


def _check(records: Records, found: Matches, rules: ArchiveImport) -> None:
    """Read everything once, so that an archive is imported completely or not at all."""
    named: list[tuple[Document, Document, Comparison]] = []
    count = 0
    found.match(records.documents())
    for versions in records.documents():
        for version in versions:
            rules.check(version)
        known = found.of(versions)
        if known and known[1].state == "diverged" and found.choice is None:
            count += 1
            if len(named) < NAMED:
                named.append((known[0], versions[-1], known[1]))
    if count:
        raise AlreadyExists(divergence_message(named, count, found.there))
    records.check()


def _restore(
    found: Matches,
    records: Records,
    versions: Sequence[Document],
    rules: ArchiveImport,
    progress: Progress,
) -> Progress:
    """Add one document."""
    known = found.of(versions)
    last = versions[-1]
    if known is None and rules.leaves_out(last):
        found.left_out.append(last.id)
        return progress

    def split(document: Document) -> Sequence[Span]:
        spans = records.spans(last)
        return rules.split(document) if spans is None else spans

    apart = known and known[1].state == "diverged" and found.choice == "both"
    if known is None or apart:
        return _add(found, versions, split, progress, name=uuid.uuid4().hex if apart else last.id)
    mine, comparison = known
    return _extend(found, mine, last, comparison, split, progress)


def _add(
    found: Matches,
    versions: Sequence[Document],
    split: Callable[[Document], Sequence[Span]],
    progress: Progress,
    *,
    name: str,
) -> Progress:
    """Store a document that is not here under an id."""
    spans = split(versions[-1])
    _, is_new = found.store.restore([replace(version, id=name) for version in versions], spans)
    found.names[versions[-1].id] = name
    return progress.plus(added=1, passages=len(spans)) if is_new else progress.plus(unchanged=1)


def _extend(
    found: Matches,
    mine: Document,
    last: Document,
    comparison: Comparison,
    split: Callable[[Document], Sequence[Span]],
    progress: Progress,
) -> Progress:
    """Give a document here the versions that the archive has and it lacks."""
    if comparison.state == "behind":
        found.behind.append(mine)
        return progress.plus(unchanged=1)
    same_id = mine.id == last.id
    now = found.store.now()
    if comparison.state == "same":
        changed = with_fields(mine, last, now, same_id=same_id)
        if changed is mine:
            return progress.plus(unchanged=1)
        found.store.extend_history(mine.id, [changed], split(changed))  # its title may change
        return progress.plus(updated=1)
    choice = found.choice if comparison.state == "diverged" else "theirs"
    if choice is None:  # another process changed it since the check
        raise AlreadyExists(divergence_message([(mine, last, comparison)], 1, found.there))
    versions = versions_to_append(mine, comparison, choice, now, same_id=same_id)
    spans = None if choice == "ours" else split(versions[-1])
    found.store.extend_history(mine.id, versions, spans)
    return (
        progress.plus(unchanged=1)
        if spans is None
        else progress.plus(updated=1, passages=len(spans))
    )


def _store_compressed(
    found: Matches, archived: Iterable[ArchivedPassage], rules: ArchiveImport
) -> dict[str, int]:
    """Store those compressed passages of a shard that pending passages need, that the model can
    use, and that are proven; return the steps of progress: how many were stored, and how many
    lacked a proof.
    """
    fitting: dict[Fingerprint, dict[int, Encoded]] = {}
    unproven = 0
    for document, group in groupby(archived, key=lambda passage: passage.document):
        pending = _pending(found.store, found.names.get(document, document))
        for passage in group:
            ids = pending.get(passage.content, [])
            if not ids or not rules.accepts(passage.fingerprint, passage.encoded):
                continue
            if not rules.proven(passage):
                unproven += len(ids)
            else:
                fitting.setdefault(passage.fingerprint, {}).update(
                    dict.fromkeys(ids, passage.encoded)
                )
    for fingerprint, encoded in fitting.items():
        found.store.save(encoded, fingerprint)
    taken = sum(map(len, fitting.values()))
    return {"compressed": taken, "taken": taken, "unproven": unproven}


def _pending(store: Store, document_id: str) -> dict[str, list[int]]:
    """Return the ids of a document's pending passages by content hash."""
    found = store.page(Filter(ids=[document_id]), 1, None).documents
    ids: dict[str, list[int]] = {}
    if found and not found[0].ready:
        for passage in store.passages_of(document_id):
            if passage.ready:
                continue
            ids.setdefault(digest(passage), []).append(passage.id)
    return ids
