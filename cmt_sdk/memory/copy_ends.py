"""What both ends of a copy need to know of each other: models, copies, what stays out. No torch, no
SQL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmt_sdk.archive.records import Records
from cmt_sdk.config import recorded as recording
from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.errors import ModelMismatch
from cmt_sdk.memory import Memory
from cmt_sdk.types import Document, Filter, Fingerprint
from cmt_sdk.types.kept import KeptHashes

# settings that decide which model reads the compressed passages
MODEL = ("model", "adapter", "precision", "compressor", "codec")


@dataclass
class Source:
    """Where a copy comes from.

    Attributes:
        name: for messages; without a password.
        records: what is copied.
        recorded: its settings, as they are recorded.
        makers: what made its compressed passages.
        documents: how many it holds.
        memory: None for an archive.
    """

    name: str
    records: Records
    recorded: Mapping[str, Any]
    makers: Sequence[Fingerprint]
    documents: int
    memory: Memory | None = None


def check_models(source: Source, target: Memory) -> None:
    """Raise ModelMismatch where the target's model cannot use the source's compressed passages."""
    theirs = target._store.fingerprints()
    if not theirs and source.makers and not _same_model(source, target):
        theirs = [target.fingerprint]
    for mine in source.makers:
        for other in theirs:
            differences = mine.differences(other)
            if differences and other.differences(mine):
                raise ModelMismatch(
                    f"the compressed passages of {source.name} were made by {mine.model}"
                    f" ({mine.compressor}, {mine.quantization}), {target.location} has"
                    f" {other.model} ({other.compressor}, {other.quantization});"
                    f" {'; '.join(differences)}. Copy into a new memory, or give reencode=True"
                    " (`cmt`: --reencode) to compress the texts again with the target's model",
                    differences=differences,
                )


def _same_model(source: Source, target: Memory) -> bool:
    """Whether the settings of both name one model in one way; False where they are not known."""
    if not source.recorded:
        return False
    theirs = recording.asked(source.recorded, {})
    return all(getattr(theirs, name) == getattr(target.settings, name) for name in MODEL)


def note_copies(
    source: Source,
    from_: str | os.PathLike[str],
    target: Memory,
    to: str | os.PathLike[str],
) -> None:
    """Record in each memory that the other one is a copy of it, for the receipts of `forget`."""
    ends = ((source.memory, to), (target, from_))
    for memory, other in ends:
        place = str(address) if (address := DatabaseAddress.of(other)) else Path(other).absolute()
        if memory is None:
            continue
        known = memory._store.copies()  # a database names the machine before a path
        if not any(copy == str(place) or copy.endswith(f":{place}") for copy in known):
            memory._note_copy(place)


def take_kept(source: Source, target: Memory) -> None:
    """Let what stays out of the source stay out of the target too, except what it holds again."""
    if source.memory is None:
        return
    kept = source.memory._store.kept_hashes()
    if kept.hashes:
        held = {name for document in source.memory.documents() for name in _names(kept, document)}
        target._store.take_kept_hashes(KeptHashes(kept.key, kept.hashes - held))


def forgotten_by(source: Source, target: Memory) -> list[str]:
    """The ids of documents of the target that the source has forgotten."""
    if source.memory is None:
        return []
    kept = source.memory._store.kept_hashes()
    if not kept.hashes:
        return []
    gone = [name for name in target.ids() if kept.of_document(name) in kept.hashes]
    return [name for name in gone if not source.memory._store.count(Filter(ids=[name]))]


def stays_out(kept: KeptHashes, document: Document) -> bool:
    """Whether a memory has forgotten a document, or keeps its source out."""
    return not kept.hashes.isdisjoint(_names(kept, document))


def _names(kept: KeptHashes, document: Document) -> Iterator[str]:
    if kept.hashes:
        yield kept.of_document(document.id)
        if document.source:
            yield kept.of_source(document.scope, document.source)
