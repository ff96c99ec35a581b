"""The layout of an archive: names of members, and conversion between values and checked JSON rows.
Opens no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from types import NoneType
from typing import Any

from cmt_sdk.errors import StorageDamaged, StorageNewer
from cmt_sdk.types import Document, Fingerprint, Passage

FORMAT = 2
MANIFEST = "manifest.json"
DOCUMENTS = "documents.jsonl"
SHARD_BYTES = 32 * 2**20  # bytes from which a shard is closed
LARGEST_SHARD = 2**30  # bytes that reading accepts: a shard can hold one very large passage
MOST = 2**31  # limit of versions and tokens
LARGEST_ROW = 2**20  # JSON bytes of a row besides a document's text

Row = Mapping[str, Any]


def shard_names(number: int) -> tuple[str, str]:
    """Return the names of a shard's two members: its rows and its arrays."""
    return f"memories/{number:05}.jsonl", f"memories/{number:05}.safetensors"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents that an archive declares.

    Attributes:
        settings: those that a memory records and that another one can have too; archives of earlier
            releases have none.
    """

    documents: int
    versions: int
    memories: int
    shards: int
    fingerprints: Mapping[str, Fingerprint]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def member_count(self) -> int:
        """The number of members."""
        return 2 + 2 * self.shards

    def members(self) -> set[str]:
        """Return the names of all members: nothing else may be in the file."""
        return {MANIFEST, DOCUMENTS}.union(*(shard_names(n) for n in range(self.shards)))

    def row(self) -> dict[str, Any]:
        """Return the manifest as JSON values."""
        has_codec = any(made.codec for made in self.fingerprints.values())
        row = {"format": FORMAT if has_codec else 1, **asdict(self)}
        if not self.settings:
            del row["settings"]
        return row


@dataclass(frozen=True, slots=True)
class CompressedRow:
    """One line of a shard.

    Attributes:
        content: SHA-256 of the text that was compressed.
        arrays: the names of the compressed passage's arrays.
        fidelity: None where it was not measured.
        seal: None where the compressed passage is not sealed.
    """

    document: str
    content: str
    fingerprint: str
    kind: str
    tokens: int
    arrays: tuple[str, ...]
    fidelity: float | None = None
    seal: str | None = None


def digest(passage: Passage) -> str:
    """Return the SHA-256 of the text that a passage is compressed from: two passages that share it
    share their compressed form.
    """
    return hashlib.sha256(passage.content.encode()).hexdigest()


def document_row(document: Document) -> dict[str, Any]:
    """Return a version of a document as JSON values, without `ready`: that depends on the memory
    that reads it.
    """
    row = {f.name: getattr(document, f.name) for f in fields(document) if f.name != "ready"}
    times = {name: value.isoformat() for name, value in row.items() if isinstance(value, datetime)}
    return row | times | {"metadata": dict(document.metadata)}


_DOCUMENT = {
    "id": (str,),
    "version": (int,),
    "current": (bool,),
    "text": (str,),
    "source": (str, NoneType),
    "scope": (str,),
    "metadata": (dict,),
    "created_at": (str, NoneType),
    "updated_at": (str, NoneType),
    "expires_at": (str, NoneType),
}
_MEMORY = {
    "document": (str,),
    "content": (str,),
    "fingerprint": (str,),
    "kind": (str,),
    "tokens": (int,),
    "arrays": (list,),
    "fidelity": (float, NoneType),
    "seal": (str, NoneType),
}
_MANIFEST = {
    "documents": (int,),
    "versions": (int,),
    "memories": (int,),
    "shards": (int,),
    "fingerprints": (dict,),
}
_SCALARS = (str, int, float, bool, NoneType)


def parse_document(row: Row, where: str) -> Document:
    """Return a version of a document. Raises StorageDamaged with the place and the field."""
    values = _shaped(row, _DOCUMENT, where)
    names = (values["id"], values["source"] or "", values["scope"], *values["metadata"])
    if not values["id"] or not 1 <= values["version"] < MOST or any("\0" in name for name in names):
        raise StorageDamaged(
            f"{where}: the id, the version, or a name with NUL in it cannot be right"
        )
    _shaped(values["metadata"], dict.fromkeys(values["metadata"], _SCALARS), f"{where}, metadata")
    if any(
        isinstance(v, int | float) and not -(2**63) <= v < 2**63
        for v in values["metadata"].values()
    ):
        raise StorageDamaged(f"{where}, metadata: a number beyond what a memory can hold")
    times = {
        name: _time(values[name], where) for name in ("created_at", "updated_at", "expires_at")
    }
    return Document(**(values | times))


def parse_compressed(row: Row, where: str) -> CompressedRow:
    """Return one line of a shard. Raises StorageDamaged with the place and the field."""
    values = _shaped(row, _MEMORY, where)
    names = values["arrays"]
    if (
        not 0 <= values["tokens"] < MOST
        or not all(type(name) is str for name in names)
        or len(set(names)) != len(names)
    ):
        raise StorageDamaged(
            f"{where}: the names of the arrays or the number of tokens cannot be right"
        )
    if values["fidelity"] is not None and not 0.0 <= values["fidelity"] <= 1.0:
        raise StorageDamaged(
            f"{where}: 'fidelity' is {values['fidelity']}, not a number from 0 to 1"
        )
    return CompressedRow(**(values | {"arrays": tuple(names)}))


def parse_manifest(row: Row, where: str) -> Manifest:
    """Return the manifest.

    Raises:
        StorageNewer: a later release wrote it.
        StorageDamaged: it cannot be right.
    """
    number = row.get("format")
    if type(number) is int and number > FORMAT:
        raise StorageNewer(
            f"{where}: archive format {number}, this release reads up to {FORMAT}; upgrade cmt-sdk"
        )
    shape = _MANIFEST | {"format": (int,), "settings": (dict,)}
    values = _shaped({"settings": {}, **row, "format": number}, shape, where)
    if min(values[n] for n in ("format", "documents", "versions", "memories", "shards")) < 0:
        raise StorageDamaged(f"{where}: a count below zero")
    prints = {name: _fingerprint(f, name, where) for name, f in values["fingerprints"].items()}
    counts = {name: values[name] for name in ("documents", "versions", "memories", "shards")}
    return Manifest(**counts, fingerprints=prints, settings=values["settings"])


def _fingerprint(row: object, name: str, where: str) -> Fingerprint:
    kinds = {"str": str, "int": int, "float": float}
    shape = {f.name: (kinds[str(f.type)],) for f in fields(Fingerprint)}
    # archives of earlier releases have none
    given = {"keep_at_least": 0, "gates": "", "codec": "", **row} if isinstance(row, dict) else {}
    values = _shaped(given, shape, f"{where}, fingerprint {name}")
    made = Fingerprint(**values)
    if made.id != name:
        raise StorageDamaged(f"{where}: the fingerprint {name} does not name itself")
    return made


def _shaped(row: Row, shape: Mapping[str, tuple[type, ...]], where: str) -> dict[str, Any]:
    """Return the named fields of a row, each of exactly one of its types: true is no number."""
    for name, types in shape.items():
        if type(row.get(name)) not in types:
            wanted = " or ".join(t.__name__ for t in types)
            raise StorageDamaged(f"{where}: {name!r} is {row.get(name)!r:.40}, not {wanted}")
    return {name: row.get(name) for name in shape}


def _time(value: str | None, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is None:
            raise StorageDamaged(f"{where}: {value!r:.40} has no time zone")
        return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise StorageDamaged(f"{where}: {value!r:.40} is not a time") from error
