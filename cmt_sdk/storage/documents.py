"""Documents and their versions in the database. Knows nothing of memories and vectors but that they go with a passage."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, text

from cmt_sdk.errors import AlreadyExists, DocumentNotFound, InvalidInput
from cmt_sdk.storage.connection import FILE, Database, chunks, translated
from cmt_sdk.storage.filters import conditions
from cmt_sdk.storage.forgetting import erase, traces_of
from cmt_sdk.storage.rows import ALIVE, READY, document_of, metadata_text, time_of
from cmt_sdk.types import Document, Filter, Page, Span


class Documents(Database):
    """The documents of a folder; see ports.DocumentStore."""

    def add(self, document: Document, spans: Sequence[Span]) -> tuple[Document, bool]:
        """See ports.DocumentStore."""
        new = replace(document, id=document.id or uuid.uuid4().hex, version=1, current=True)
        row = self._row(new)
        with self._write() as db:
            same = self._same(db, row)
            if same is not None and document.id in ("", same.id):
                return same, False
            self._check_free(db, new.id)
            self._insert(db, row, document.text, spans)
        return self.history(new.id)[-1], True

    def restore(self, versions: Sequence[Document], spans: Sequence[Span]) -> tuple[Document, bool]:
        """See ports.DocumentStore."""
        current = versions[-1]
        with self._write() as db:
            same = self._same(db, self._row(current))
            if same is not None:
                return same, False
            self._check_free(db, current.id)
            for version in versions:
                updated = (version.updated_at or self.now()).timestamp()
                last = version is current
                self._insert(db, self._row(version) | {"updated_at": updated}, version.text, spans if last else (), last)
        return self.history(current.id)[-1], True

    def _same(self, db: Connection, row: Mapping[str, Any]) -> Document | None:
        """The living document with this row's text in its scope."""
        sql = f"SELECT d.*, {READY} FROM documents d WHERE content_hash = :content_hash AND scope = :scope AND {ALIVE}"
        found = db.execute(text(sql), {**row, "now": self.now().timestamp()}).first()
        return None if found is None else document_of(found)

    @staticmethod
    def _check_free(db: Connection, document_id: str) -> None:
        if db.execute(text("SELECT 1 FROM documents WHERE doc_id = :id"), {"id": document_id}).first():
            raise AlreadyExists(f"the id {document_id!r} is taken by another text: change that one with update")

    def find(self, scope: str, source: str) -> Document | None:
        """See ports.DocumentStore."""
        sql = f"SELECT d.*, {READY} FROM documents d WHERE d.current AND scope = :scope AND source = :source ORDER BY key DESC"
        with self._read() as db:
            row = db.execute(text(sql), {"scope": scope, "source": source}).first()
        return None if row is None else document_of(row)

    def replace(self, document: Document, spans: Sequence[Span] | None) -> Document:
        """See ports.DocumentStore."""
        with self._write() as db:
            known = db.execute(text("SELECT * FROM documents WHERE doc_id = :id AND current"), {"id": document.id}).first()
            if known is None:
                raise DocumentNotFound(f"no document has the id {document.id!r}; `list` shows those there are")
            created = time_of(known.created_at)
            row = self._row(replace(document, created_at=created, version=known.version + (spans is not None)))
            if spans is None:
                db.execute(
                    text(
                        "UPDATE documents SET source = :source, scope = :scope, metadata = :metadata, "
                        "updated_at = :updated_at, expires_at = :expires_at WHERE key = :key"
                    ),
                    row | {"key": known.key},
                )
            else:
                self._drop_passages(db, [known.key])
                db.execute(text("UPDATE documents SET current = 0 WHERE key = :key"), {"key": known.key})
                self._insert(db, row, document.text, spans)
        return self.history(document.id)[-1]

    def _row(self, document: Document) -> dict[str, Any]:
        now = self.now().timestamp()
        return {
            "doc_id": document.id,
            "version": document.version,
            "text": document.text,
            "content_hash": hashlib.sha256(document.text.encode()).hexdigest(),
            "source": document.source,
            "scope": document.scope,
            "metadata": metadata_text(document),
            "created_at": document.created_at.timestamp() if document.created_at else now,
            "updated_at": now,
            "expires_at": document.expires_at.timestamp() if document.expires_at else None,
        }

    @staticmethod
    def _insert(db: Connection, row: Mapping[str, Any], body: str, spans: Sequence[Span], current: bool = True) -> None:
        key = db.execute(
            text(
                "INSERT INTO documents (doc_id, version, current, text, content_hash, source, scope, metadata, created_at, "
                "updated_at, expires_at) VALUES (:doc_id, :version, :current, :text, :content_hash, :source, :scope, :metadata, "
                ":created_at, :updated_at, :expires_at) RETURNING key"
            ),
            {**row, "current": current},
        ).scalar_one()
        for ordinal, span in enumerate(spans):
            passage = db.execute(
                text(
                    'INSERT INTO passages (document_key, ordinal, start, "end", tokens, heading) '
                    "VALUES (:key, :ordinal, :start, :stop, :tokens, :heading) RETURNING id"
                ),
                {"key": key, "ordinal": ordinal, "start": span.start, "stop": span.end, "tokens": span.tokens}
                | {"heading": span.heading},
            ).scalar_one()
            words = f"{span.heading}\n{body[span.start : span.end]}"
            db.execute(text("INSERT INTO passage_text (rowid, body) VALUES (:id, :body)"), {"id": passage, "body": words})

    def _drop_passages(self, db: Connection, keys: Sequence[int]) -> None:
        for some in chunks(keys):
            inside = f"(SELECT id FROM passages WHERE document_key IN ({some}))"
            db.exec_driver_sql(f"DELETE FROM passage_text WHERE rowid IN {inside}")
            db.exec_driver_sql(f"DELETE FROM passages WHERE document_key IN ({some})")
        self._changed(db)

    def history(self, document_id: str) -> list[Document]:
        """See ports.DocumentStore."""
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id ORDER BY version"
        with self._read() as db:
            return [document_of(row) for row in db.execute(text(sql), {"id": document_id})]

    def page(self, chosen: Filter, limit: int, cursor: str | None) -> Page:
        """See ports.DocumentStore."""
        if limit < 1:
            raise InvalidInput(f"limit={limit}: ask for at least one document a page")
        where, values = conditions(chosen, self.now().timestamp())
        after = _cursor(cursor)
        sql = (
            f"SELECT d.*, {READY} FROM documents d WHERE {where} AND (d.created_at, d.key) > (:time, :key) "
            "ORDER BY d.created_at, d.key LIMIT :limit"
        )
        with self._read() as db:
            rows = db.execute(text(sql), values | after | {"limit": limit + 1}).all()
        more = len(rows) > limit
        rows = rows[:limit]
        return Page([document_of(r) for r in rows], f"{rows[-1].created_at!r}/{rows[-1].key}" if more else None)

    def ids(self, prefix: str) -> Sequence[str]:
        """See ports.DocumentStore."""
        sql = f"SELECT d.doc_id FROM documents d WHERE {ALIVE} AND substr(d.doc_id, 1, :length) = :prefix ORDER BY d.doc_id"
        with self._read() as db:
            values = {"prefix": prefix, "length": len(prefix), "now": self.now().timestamp()}
            return list(db.execute(text(sql), values).scalars())

    def count(self, chosen: Filter) -> int:
        """See ports.DocumentStore."""
        where, values = conditions(chosen, self.now().timestamp())
        with self._read() as db:
            return int(db.execute(text(f"SELECT count(*) FROM documents d WHERE {where}"), values).scalar_one())

    def delete(self, chosen: Filter) -> list[Document]:
        """See ports.DocumentStore."""
        where, values = conditions(chosen, -math.inf)
        sql = f"SELECT a.*, 1 AS ready FROM documents a WHERE doc_id IN (SELECT d.doc_id FROM documents d WHERE {where})"
        with self._write() as db:
            rows = db.execute(text(sql), values).all()
            self._drop_passages(db, [r.key for r in rows])
            for some in chunks([r.key for r in rows]):
                db.exec_driver_sql(f"DELETE FROM documents WHERE key IN ({some})")
        return [document_of(r) for r in rows]

    def scrub(self, removed: Sequence[Document]) -> tuple[list[str], int]:
        """See ports.DocumentStore."""
        with translated(self._folder):
            self._engine.dispose()
            erase(self._folder / FILE)
            return traces_of(removed, self._folder)


def _cursor(cursor: str | None) -> dict[str, float]:
    if cursor is None:
        return {"time": -math.inf, "key": 0}
    try:
        time, _, key = cursor.partition("/")
        return {"time": float(time), "key": int(key)}
    except ValueError as error:
        raise InvalidInput(f"cursor {cursor!r}: give the next_cursor of an earlier page") from error
