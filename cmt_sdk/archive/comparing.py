"""Compares records with a store, or with other records, hash by hash. Changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, zip_longest

from cmt_sdk.archive.layout import digest
from cmt_sdk.archive.reading import Matches
from cmt_sdk.archive.records import ArchivedPassage, Records, encodings
from cmt_sdk.types import Document

NAMED = 20  # differences that are named; the others are counted
FIELDS = ("source", "scope", "metadata", "created_at", "updated_at", "expires_at")

OnCompared = Callable[["Compared"], None]


@dataclass
class Compared:
    """What a comparison found.

    Attributes:
        documents: documents compared.
        passages: compressed passages compared.
        differences: how many differences there are.
        named: the first of them.
    """

    documents: int = 0
    passages: int = 0
    differences: int = 0
    named: list[str] = field(default_factory=list)

    def differs(self, what: str) -> None:
        """Add a difference."""
        self.differences += 1
        if len(self.named) < NAMED:
            self.named.append(what)


def compare_with_store(
    records: Records,
    found: Matches,
    leaves_out: Callable[[Document], bool],
    on_compared: OnCompared,
    *,
    with_passages: bool = True,
    may_be_cold: bool = False,
) -> Compared:
    """Compare records with the documents of a store that they were merged into.

    Each version has to be there, with its fields unless they were changed there later. Of documents
    with the same current text each compressed passage and embedding has to be the same, byte for
    byte.

    Args:
        records: the records.
        found: the store, and which document there is which.
        leaves_out: returns whether a document that is not there stays out.
        on_compared: called after each document and each passage.
        with_passages: False compares the documents alone.
        may_be_cold: the store drops compressed passages to keep a budget.
    """
    done = Compared()
    other_text = set[str]()  # documents that went on there
    for versions in records.documents():
        last = versions[-1]
        mine = found.store.history(found.names.get(last.id, last.id))
        if mine or not leaves_out(last):
            _compare_versions(versions, mine, done)
            on_compared(done)
        if not mine or not mine[-1].current or mine[-1].text != last.text:
            other_text.add(last.id)
    for shard in records.shards(lambda _: None) if with_passages else ():
        for document, group in groupby(shard, key=lambda passage: passage.document):
            if document not in other_text:
                _compare_passages(list(group), found, done, may_be_cold=may_be_cold)
                on_compared(done)
    return done


def _compare_versions(
    versions: Sequence[Document], mine: Sequence[Document], done: Compared
) -> None:
    done.documents += 1
    name = _name(versions[-1])
    if not mine:
        done.differs(f"{name} is missing")
        return
    here = {_hash(version.text): version for version in mine}
    for version in versions:
        known = here.get(_hash(version.text))
        if known is None:
            done.differs(f"the text of version {version.version} of {name} is missing")
            continue
        is_same = (known.id, known.version) == (version.id, version.version)
        if is_same and not _is_later(known, version):
            changed = [f for f in FIELDS if getattr(known, f) != getattr(version, f)]
            if changed:
                done.differs(f"{', '.join(changed)} of version {version.version} of {name} differ")


def _is_later(known: Document, version: Document) -> bool:
    """Return whether a version was changed again where it is known."""
    times = known.updated_at, version.updated_at
    return times[0] is not None and times[1] is not None and times[0] > times[1]


def _compare_passages(
    passages: Sequence[ArchivedPassage], found: Matches, done: Compared, *, may_be_cold: bool
) -> None:
    """Compare the compressed passages of one document."""
    document = passages[0].document
    wanted: dict[str, set[tuple[str, str]]] = {}
    for passage in passages:
        wanted.setdefault(passage.content, set()).add(_hashes(passage))
    done.passages += len(passages)
    name = found.names.get(document, document)
    there = [(digest(passage), passage) for passage in found.store.passages_of(name)]
    chosen = [(made_of, passage) for made_of, passage in there if made_of in wanted]
    faults = {passage.id: "is missing" for _, passage in chosen}
    for stored, made_of, (encoded, fingerprint) in encodings(found.store, chosen):
        here = _hashes(ArchivedPassage(document, made_of, fingerprint, encoded))
        faults[stored.id] = _fault(here, wanted[made_of], may_be_cold)
    named = [(made_of, faults[passage.id]) for made_of, passage in chosen]
    split = {made_of for made_of, _ in chosen}
    named += [
        (made_of, "has no passage: the text is split in another way")
        for made_of in wanted
        if made_of not in split
    ]
    for made_of, fault in named:
        if fault:
            done.differs(
                f"the compressed passage {made_of[:12]} of document {document!r:.60} {fault}"
            )


def compare(records: Records, others: Records, on_compared: OnCompared) -> Compared:
    """Compare records with those of an archive, one by one: they have to be the same, in the same
    order. Cold passages are in no archive.
    """
    done = Compared()
    for versions, theirs in zip_longest(records.documents(), others.documents()):
        done.documents += 1
        if _plain(versions) != _plain(theirs):
            done.differs(f"{_name((versions or theirs)[-1])} is missing or differs")
        on_compared(done)
    for passage, its in zip_longest(_warm(records), _warm(others)):
        done.passages += 1
        if passage is None or its is None or _identity(passage) != _identity(its):
            known = passage or its
            done.differs(
                f"the compressed passage {known.content[:12]} of document"
                f" {known.document!r:.60} is missing or differs"
            )
        on_compared(done)
    return done


def _plain(versions: Sequence[Document] | None) -> list[Document]:
    """Return versions without what depends on the memory that holds them."""
    return [replace(v, ready=False, metadata=dict(v.metadata)) for v in versions or ()]


def _warm(records: Records) -> Iterator[ArchivedPassage]:
    every = chain.from_iterable(records.shards(lambda _: None))
    return (passage for passage in every if not passage.encoded.cold)


def _identity(passage: ArchivedPassage) -> tuple[str, str, str]:
    return passage.document, passage.content, passage.hash


def _fault(here: tuple[str, str], wanted: set[tuple[str, str]], may_be_cold: bool) -> str:
    """Return what is wrong with a stored passage; "" where it is one of those that are wanted."""
    embedding, whole = here
    alike = {its for one, its in wanted if one == embedding}
    if not alike:
        return "has another embedding"
    if whole in alike or "" in alike:  # of a cold passage the embedding alone is stored
        return ""
    if not whole:
        return "" if may_be_cold else "is lost"
    return "has other bytes"


def _hashes(passage: ArchivedPassage) -> tuple[str, str]:
    """Return the hash of the embedding with what made it, and that of all; "" for a cold one."""
    made = hashlib.sha256(passage.fingerprint.id.encode())
    made.update(passage.encoded.embedding.astype("<f4", copy=False).tobytes())
    return made.hexdigest(), "" if passage.encoded.cold else passage.hash


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _name(document: Document) -> str:
    return f"document {document.source or document.id!r:.200}"
