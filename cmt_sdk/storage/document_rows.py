"""DocumentRows: finds and writes the rows of documents and their passages inside a transaction.

Opens no transaction itself: `Documents` does. Knows of compressed passages and vectors only that
they are deleted with their passage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, text

from cmt_sdk.errors import AlreadyExists, InvalidDocument
from cmt_sdk.ports import Split
from cmt_sdk.storage.connection import chunks
from cmt_sdk.storage.recorded import Recorded
from cmt_sdk.storage.resplitting import matched
from cmt_sdk.storage.rows import (
    ALIVE,
    READY,
    RECORD,
    metadata_text,
    record_hash,
    sound_name,
    sound_text,
    stamp_of,
)
from cmt_sdk.storage.schema import WORD_TABLES, insert_words
from cmt_sdk.types import Document, Span

COLUMNS = (
    "doc_id",
    "version",
    "text",
    "content_hash",
    "source",
    "scope",
    "metadata",
    "created_at",
    "updated_at",
    "expires_at",
    "record_hash",
)


def content_hash(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


class DocumentRows(Recorded):
    """The tables `documents` and `passages` of one memory.

    A document keeps its row, and so its key, through all versions: a listing is not reordered by an
    update. An earlier version moves to a row of its own.
    """

    def _known(
        self, db: Connection, document: Document, hashed: str, by_source: bool
    ) -> Document | None:
        """Find the living document that a given one stands for.

        With `by_source`, that is the document of the given id, else the one of the same scope and
        source, else one of the same text that has no source yet. Without, it is a document of the
        same text in the same scope.

        `hashed` is the content hash of the given document's text.
        """
        if not by_source or not document.source:
            same = self._same(db, document, hashed)
            return same if same is not None and document.id in ("", same.id) else None
        if document.id:
            return self._named(db, document.scope, document.id)
        found = self._found(db, document.scope, document.source)
        return found or self._same(db, document, hashed, extra="AND source IS NULL")

    def _same(
        self, db: Connection, document: Document, hashed: str, extra: str = ""
    ) -> Document | None:
        """Find a living document with this text and scope, preferably the one with this id."""
        sql = f"""SELECT d.*, {READY} FROM documents d WHERE content_hash = :content_hash
            AND scope = :scope AND {ALIVE}
            {extra} ORDER BY doc_id <> :doc_id, key"""
        values = {
            "content_hash": hashed,
            "scope": self._stored_scope(document.scope),
            "doc_id": document.id,
            "now": self.now().timestamp(),
        }
        found = db.execute(text(sql), values).first()
        return None if found is None else self._document(found)

    def _named(self, db: Connection, scope: str, document_id: str) -> Document | None:
        sql = (
            f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id AND scope = :scope AND"
            f" {ALIVE}"
        )
        values = {
            "id": document_id,
            "scope": self._stored_scope(scope),
            "now": self.now().timestamp(),
        }
        row = db.execute(text(sql), values).first()
        return None if row is None else self._document(row)

    def _found(self, db: Connection, scope: str, source: str) -> Document | None:
        sql = f"""SELECT d.*, {READY} FROM documents d WHERE scope = :scope AND source = :source
            AND {ALIVE}
            ORDER BY updated_at DESC, key DESC"""
        values = {
            "scope": self._stored_scope(sound_text("scope", scope, InvalidDocument)),
            "source": sound_text("source", source, InvalidDocument),
            "now": self.now().timestamp(),
        }
        row = db.execute(text(sql), values).first()
        return None if row is None else self._document(row)

    def _current(self, db: Connection, document_id: str) -> Document:
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id AND d.current"
        return self._document(db.execute(text(sql), {"id": document_id}).one())

    def _make_free(self, db: Connection, document_id: str) -> None:
        """Delete an expired document of this id. Raises AlreadyExists where a living one has it."""
        sql = (
            "SELECT key, current AND expires_at <= :now AS expired FROM documents WHERE doc_id ="
            " :id ORDER BY current"
        )
        rows = db.execute(text(sql), {"id": document_id, "now": self.now().timestamp()}).all()
        if rows and not rows[-1].expired:
            raise AlreadyExists(
                f"the id {document_id!r} is taken by another text: change that one with update"
            )
        self._remove(db, [r.key for r in rows])

    def _row(self, document: Document, hashed: str | None = None) -> dict[str, Any]:
        """Return the columns of a document, without its record hash.

        Args:
            document: the document; its text is hashed unless `hashed` is given.
            hashed: the content hash of its text.

        Raises:
            InvalidDocument: a field that the database cannot hold.
        """
        sound_text("text", document.text, InvalidDocument)
        sound_name("id", document.id)
        sound_name("scope", document.scope)
        sound_name("source", document.source or "")
        now = self.now().timestamp()
        return {
            "doc_id": document.id,
            "version": document.version,
            "text": document.text,
            "content_hash": hashed or content_hash(document.text),
            "source": document.source,
            "scope": self._stored_scope(document.scope),
            "metadata": metadata_text(document),
            "created_at": stamp_of(document.created_at) if document.created_at else now,
            "updated_at": now,
            "expires_at": stamp_of(document.expires_at) if document.expires_at else None,
        }

    @staticmethod
    def _insert(db: Connection, row: Mapping[str, Any], current: bool) -> int:
        """Insert a row of a document; return its key."""
        names = ", ".join(COLUMNS)
        values = ", ".join(f":{c}" for c in COLUMNS)
        sql = f"INSERT INTO documents (current, {names}) VALUES (:current, {values}) RETURNING key"
        filled = {"record_hash": record_hash(row), **row, "current": current}
        return int(db.execute(text(sql), filled).scalar_one())

    def _insert_document(
        self, db: Connection, row: Mapping[str, Any], spans: Sequence[Span]
    ) -> None:
        """Insert a current document and its passages."""
        self._insert_passages(db, self._insert(db, row, True), row["text"], enumerate(spans))

    def _replaced(
        self,
        db: Connection,
        known: Document,
        changes: Mapping[str, Any],
        spans: Sequence[Span] | None = None,
        split: Split | None = None,
        hashed: str | None = None,
    ) -> Document:
        """Change fields of a current document; another text becomes its next version.

        `changes` are its new values by field name. Its passages are those of `split`, else `spans`,
        else those it has. `hashed` is the content hash of the text that it has afterwards.
        """
        new = replace(known, **changes)
        if split is not None:
            spans = split(known, new)
        current = text("SELECT * FROM documents WHERE doc_id = :id AND current")
        before = db.execute(current, {"id": known.id}).one()
        if new.text == known.text:
            self._overwrite(db, self._row(new, hashed), before)
        else:
            assert spans is not None  # noqa: S101 - the port says so
            row = self._row(replace(new, version=known.version + 1), hashed)
            self._overwrite(db, row, before)
            self._insert(db, before._asdict(), False)
        if spans is not None:
            self._update_passages(db, before.key, known.text, new.text, spans)
        return self._current(db, known.id)

    @staticmethod
    def _overwrite(db: Connection, row: Mapping[str, Any], before: Row[Any]) -> None:
        """Overwrite the current version in place; its time of creation stays.

        A row that was damaged before gets no record hash, so that the damage stays visible.
        """
        row = {**row, "created_at": before.created_at}
        sound = record_hash(before._asdict()) == before.record_hash
        row["record_hash"] = record_hash(row) if sound else None
        columns = ", ".join(f"{c} = :{c}" for c in COLUMNS)
        db.execute(text(f"UPDATE documents SET {columns} WHERE doc_id = :doc_id AND current"), row)

    @staticmethod
    def _seal(db: Connection, document_id: str) -> None:
        """Recompute the record hashes of a document's versions, so that their present contents
        count as right.
        """
        rows = text(
            f"SELECT {', '.join(RECORD)}, key, record_hash FROM documents WHERE doc_id = :id"
        )
        sql = text("UPDATE documents SET record_hash = :hash WHERE key = :key")
        for row in db.execute(rows, {"id": document_id}).all():
            if (sealed := record_hash(row._asdict())) != row.record_hash:
                db.execute(sql, {"hash": sealed, "key": row.key})

    def _update_passages(
        self, db: Connection, key: int, old: str, new: str, spans: Sequence[Span]
    ) -> None:
        """Give a document the passages of `spans`. A passage whose content it has already keeps its
        row, its compressed form and its embedding.

        `old` is the text that its stored passages belong to, `new` the text of `spans`.
        """
        rows = """SELECT id, ordinal, start, "end" AS stop, tokens, heading FROM passages
            WHERE document_key = :key ORDER BY ordinal"""
        found = matched(db.execute(text(rows), {"key": key}).all(), old, new, spans)
        move = text(
            'UPDATE passages SET ordinal = :ordinal, start = :start, "end" = :stop,'
            " tokens = :tokens WHERE id = :id"
        )
        for passage, ordinal, span in found.moved:
            at = {"id": passage, "ordinal": ordinal, "tokens": span.tokens}
            db.execute(move, at | {"start": span.start, "stop": span.end})
        self._insert_passages(db, key, new, found.new)
        if found.gone:
            self._drop_passages(db, found.gone)
            self._bump_change_counter(db)

    def _insert_passages(
        self, db: Connection, key: int, body: str, spans: Iterable[tuple[int, Span]]
    ) -> None:
        """Insert passages of a document, given with their ordinals, and their rows of the full-text
        index.
        """
        passage = (
            'INSERT INTO passages (document_key, ordinal, start, "end", tokens, heading) VALUES (?,'
            " ?, ?, ?, ?, ?)"
        )
        for ordinal, span in spans:
            row = (key, ordinal, span.start, span.end, span.tokens, span.heading)
            made = db.exec_driver_sql(passage, row).lastrowid
            insert_words(db.exec_driver_sql, made, f"{span.heading}\n{body[span.start : span.end]}")

    def _drop_passages(self, db: Connection, ids: Sequence[int]) -> None:
        """Delete passages with their rows of the full-text index, compressed passages and
        embeddings.
        """
        for some in chunks(ids):
            for table in WORD_TABLES:
                db.exec_driver_sql(f"DELETE FROM {table} WHERE rowid IN ({some})")
            db.exec_driver_sql(f"DELETE FROM passages WHERE id IN ({some})")

    def _remove(self, db: Connection, keys: Sequence[int]) -> None:
        """Delete the rows of documents with these keys, and their passages."""
        if keys:
            for some in chunks(keys):
                inside = f"SELECT id FROM passages WHERE document_key IN ({some})"
                self._drop_passages(db, list(db.exec_driver_sql(inside).scalars()))
                db.exec_driver_sql(f"DELETE FROM documents WHERE key IN ({some})")
            self._bump_change_counter(db)
