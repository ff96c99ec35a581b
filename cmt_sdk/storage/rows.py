"""Converts database rows to documents and passages, and back. Knows columns, no connection."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from cmt_sdk.errors import InvalidDocument, InvalidInput, StorageDamaged
from cmt_sdk.text.characters import REMEDY, is_text
from cmt_sdk.types import Document, Fingerprint, Passage

READY = """NOT EXISTS (SELECT 1 FROM passages p LEFT JOIN vectors v ON v.passage_id = p.id
    WHERE p.document_key = d.key AND v.passage_id IS NULL) AS ready"""
PASSAGE = """p.id, p.ordinal, p.start, p."end" AS stop, p.tokens, p.heading, p.document_key,
    EXISTS (SELECT 1 FROM vectors v WHERE v.passage_id = p.id) AS ready,
    (SELECT m.fidelity FROM memories m INDEXED BY by_fidelity
        WHERE m.passage_id = p.id AND m.fidelity IS NOT NULL) AS fidelity
    FROM passages p JOIN documents d ON d.key = p.document_key"""
ALIVE = "d.current AND (d.expires_at IS NULL OR d.expires_at > :now)"

# The columns that the record hash covers. The content hash covers `text`; a unique index and the
# order of versions cover `current`.
RECORD = (
    "doc_id",
    "version",
    "content_hash",
    "source",
    "scope",
    "metadata",
    "created_at",
    "updated_at",
    "expires_at",
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, tzinfo=UTC)
WIDEST = 2**63
# bytes of JSON; with the names it fits an archive's line (archive.layout.LARGEST_ROW)
LARGEST_METADATA = 2**19
LONGEST_NAME = 2**14  # characters of an id, a scope, a source


def stamp_of(moment: datetime) -> float:
    """Return a moment as it is stored: seconds since 1970, UTC, at most 31 December 9999."""
    return min(moment.timestamp(), LATEST.timestamp())


def time_of(stamp: float | None) -> datetime | None:
    """Return a stored time stamp as a time, UTC."""
    return None if stamp is None else EPOCH + timedelta(seconds=stamp)


def record_hash(row: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the RECORD columns as they are stored, 64 hexadecimal digits.

    JSON gives values of different types different forms.
    """
    # bytes, which only damage puts there, become numbers
    body = json.dumps([row[column] for column in RECORD], default=list)
    return hashlib.sha256(body.encode()).hexdigest()


def document_of(row: Row[Any]) -> Document:
    """Return the document of a row `d.*, ready`. Raises StorageDamaged where it is none."""
    try:
        return Document(
            text=row.text,
            id=row.doc_id,
            source=row.source,
            scope=row.scope,
            metadata=dict(json.loads(row.metadata)),
            created_at=time_of(row.created_at),
            updated_at=time_of(row.updated_at),
            expires_at=time_of(row.expires_at),
            version=row.version,
            current=bool(row.current),
            ready=bool(row.ready and row.current),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise StorageDamaged(
            f"document {row.doc_id!r:.60} is damaged ({error}): run `cmt check`"
        ) from error


def gone_of(row: Row[Any]) -> Document:
    """Return the document of a deleted row, even a damaged one: damage must not prevent forgetting
    it.
    """
    try:
        return document_of(row)
    except StorageDamaged:
        return Document(
            row.text,
            row.doc_id,
            row.source,
            row.scope,
            {"metadata": row.metadata},
            version=row.version,
        )


def passage_of(row: Row[Any], of: Document) -> Passage:
    """Return the passage of a row of PASSAGE. Raises StorageDamaged where it is none."""
    try:
        body = of.text[row.start : row.stop]
        where = (row.id, of.id, of.version, row.ordinal, row.start, row.stop)
        return Passage(*where, row.tokens, body, row.heading, bool(row.ready), row.fidelity)
    except TypeError as error:
        raise StorageDamaged(f"passage {row.id} is damaged ({error}): run `cmt check`") from error


def fingerprint_of(body: str) -> Fingerprint:
    """Return a stored fingerprint. Raises StorageDamaged where it cannot be read."""
    try:
        return Fingerprint(**json.loads(body))
    except (ValueError, TypeError) as error:
        raise StorageDamaged(f"a fingerprint is damaged ({error}): run `cmt check`") from error


def metadata_text(document: Document) -> str:
    """Return metadata as JSON.

    Raises:
        InvalidDocument: a value that is not plain, or more than LARGEST_METADATA bytes: every
            search reads the metadata with its document.
    """
    for key, value in document.metadata.items():
        if not isinstance(key, str) or fault_of(key):
            raise InvalidDocument(f"metadata key {key!r:.60}: {fault_of(key) or 'a key is text'}")
        if fault := fault_of(value):
            raise InvalidDocument(f"metadata {key!r:.60}: {fault}")
    body = json.dumps(dict(document.metadata), ensure_ascii=False)
    if (size := len(body.encode())) > LARGEST_METADATA:
        raise InvalidDocument(
            f"metadata has {size:,} bytes as JSON, the limit is {LARGEST_METADATA:,}: put it into"
            " the text"
        )
    return body


def sound_name(name: str, value: str) -> None:
    """Raise InvalidDocument for an id, scope or source that a database or an archive cannot
    hold.
    """
    if len(sound_text(name, value, InvalidDocument)) > LONGEST_NAME:
        raise InvalidDocument(
            f"{name} {value!r:.60}… has {len(value):,} characters, the limit is {LONGEST_NAME:,}:"
            " shorten it"
        )


def sound_text(name: str, value: str, error: type[InvalidInput]) -> str:
    """Return the value where it is text that a database can hold; else raise `error`."""
    fault = fault_of(value) if isinstance(value, str) else "give text"
    if fault:
        raise error(f"{name} {value!r:.60}: {fault}")
    return value


def fault_of(value: object) -> str:
    """Return why a value can neither be stored nor searched; empty where it can."""
    if isinstance(value, str) and not is_text(value):
        return f"NUL and lone surrogates are no text: {REMEDY}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no finite number"
    if isinstance(value, int) and not -WIDEST <= value < WIDEST:
        return "whole numbers reach from -2**63 to 2**63 - 1: give larger ones as text"
    if value is not None and not isinstance(value, str | float | int):
        return f"{value!r:.60} is no text, number, truth value or None"
    return ""
