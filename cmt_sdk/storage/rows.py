"""Rows of the database as documents and passages, and back. Knows the columns, no connection."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from cmt_sdk.errors import InvalidDocument
from cmt_sdk.types import Document, Passage

READY = """NOT EXISTS (SELECT 1 FROM passages p LEFT JOIN vectors v ON v.passage_id = p.id
    WHERE p.document_key = d.key AND v.label IS NULL) AS ready"""
PASSAGE = """p.id, p.ordinal, p.start, p."end" AS stop, p.tokens, p.heading, d.*,
    EXISTS (SELECT 1 FROM vectors v WHERE v.passage_id = p.id) AS ready
    FROM passages p JOIN documents d ON d.key = p.document_key"""
ALIVE = "d.current AND (d.expires_at IS NULL OR d.expires_at > :now)"


def time_of(stamp: float | None) -> datetime | None:
    """A stored time stamp, UTC."""
    return None if stamp is None else datetime.fromtimestamp(stamp, UTC)


def document_of(row: Row[Any]) -> Document:
    """The document of a row `d.*, ready`."""
    return Document(
        text=row.text,
        id=row.doc_id,
        source=row.source,
        scope=row.scope,
        metadata=json.loads(row.metadata),
        created_at=time_of(row.created_at),
        updated_at=time_of(row.updated_at),
        expires_at=time_of(row.expires_at),
        version=row.version,
        current=bool(row.current),
        ready=bool(row.ready and row.current),
    )


def passage_of(row: Row[Any]) -> Passage:
    """The passage of a row of PASSAGE."""
    body = row.text[row.start : row.stop]
    return Passage(row.id, row.doc_id, row.version, row.ordinal, row.start, row.stop, row.tokens, body, row.heading)


def metadata_text(document: Document) -> str:
    """Metadata as JSON. Raises InvalidDocument for what is no plain value."""
    for key, value in document.metadata.items():
        if not isinstance(key, str) or "\0" in key:
            raise InvalidDocument(f"metadata key {key!r}: a key is text without NUL")
        finite = not isinstance(value, float) or math.isfinite(value)
        if not (value is None or isinstance(value, str | int | float | bool)) or not finite:
            raise InvalidDocument(f"metadata {key}={value!r}: a value is text, a finite number, a truth value or None")
    return json.dumps(dict(document.metadata), ensure_ascii=False)
