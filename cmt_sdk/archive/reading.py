"""Reading an archive into a store. All of it is checked before anything is stored; nothing is unpacked to the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from cmt_sdk.archive.contents import Contents, StoredMemory, opened
from cmt_sdk.archive.files import disk_errors
from cmt_sdk.archive.layout import digest
from cmt_sdk.errors import AlreadyExists
from cmt_sdk.ports import Store
from cmt_sdk.types import Document, Encoded, Filter, Fingerprint, Progress, Span


@dataclass(frozen=True, slots=True)
class Intake:
    """What a memory says about what comes in.

    check: raises InvalidDocument for a text that cannot be stored. cut: the passages of a document. accepts: whether the
    open model reads a memory made by this fingerprint. longest: the most UTF-8 bytes that a text may have.
    """

    check: Callable[[Document], None]
    cut: Callable[[Document], Sequence[Span]]
    accepts: Callable[[Fingerprint, Encoded], bool]
    longest: int


def read(store: Store, path: Path, intake: Intake) -> Iterator[Progress]:
    """Add an archive's documents with their ids, histories and times, and those of its memories that can be read here.

    Yields how far it is, after each document and each shard. A document whose text is here already, as a version of the
    same id or under another id of its scope, is unchanged. What has no memory afterwards waits for compression.
    Raises, before anything is stored: StorageDamaged, StorageNewer, AlreadyExists (an id stands for another text here),
    InvalidDocument, NotFound.
    """
    progress = Progress()
    with disk_errors(path), opened(path, intake.longest) as contents:
        _check(contents, store, intake)
        for versions in contents.documents():
            progress = _restore(store, versions, intake, progress)
            yield progress
        for shard in range(contents.manifest.shards):
            progress = progress.plus(compressed=_take_over(store, contents.memories(shard), intake))
            yield progress


def _check(contents: Contents, store: Store, intake: Intake) -> None:
    """Read everything once, so that an archive is taken whole or not at all."""
    for versions in contents.documents():
        for version in versions:
            intake.check(version)
        _is_here(store, versions)
    contents.check_memories()


def _is_here(store: Store, versions: Sequence[Document]) -> bool:
    """True when the store has this document, perhaps in a later version; AlreadyExists for another text.

    One that has expired here makes room.
    """
    alive = store.page(Filter(ids=[versions[-1].id]), 1, None).documents
    known = store.history(versions[-1].id) if alive else []
    if known and all(k.text != versions[-1].text for k in known):
        raise AlreadyExists(
            f"the archive's document {known[0].id!r} has another text than the one here; nothing was imported. "
            "Delete it first, or import into another memory"
        )
    return bool(known)


def _restore(store: Store, versions: Sequence[Document], intake: Intake, progress: Progress) -> Progress:
    if _is_here(store, versions):
        return progress.plus(unchanged=1)
    spans = intake.cut(versions[-1])
    _, is_new = store.restore(versions, spans)
    return progress.plus(added=1, passages=len(spans)) if is_new else progress.plus(unchanged=1)


def _take_over(store: Store, memories: Iterable[StoredMemory], intake: Intake) -> int:
    """Save those memories of a shard that passages wait for and the model reads; returns how many."""
    fitting: dict[Fingerprint, dict[int, Encoded]] = {}
    for document, group in groupby(memories, key=lambda m: m.document):
        waiting = _waiting(store, document)
        for memory in group:
            ids = waiting.get(memory.content, [])
            if ids and intake.accepts(memory.fingerprint, memory.encoded):
                fitting.setdefault(memory.fingerprint, {}).update(dict.fromkeys(ids, memory.encoded))
    for fingerprint, encoded in fitting.items():
        store.save(encoded, fingerprint)
    return sum(map(len, fitting.values()))


def _waiting(store: Store, document_id: str) -> dict[str, list[int]]:
    """The ids of a document's passages by what they contain, where some still wait for a memory."""
    found = store.page(Filter(ids=[document_id]), 1, None).documents
    ids: dict[str, list[int]] = {}
    if found and not found[0].ready:
        for passage in store.passages_of(document_id):
            ids.setdefault(digest(passage), []).append(passage.id)
    return ids
