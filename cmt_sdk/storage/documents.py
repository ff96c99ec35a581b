"""Documents and their versions in the database. Knows nothing of memories and vectors but that they
go with a passage.
"""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, text

from cmt_sdk.errors import AlreadyExists, DocumentNotFound, InvalidDocument, InvalidInput
from cmt_sdk.ports import Recut
from cmt_sdk.storage.checks import uncut
from cmt_sdk.storage.connection import Database, chunks, translated
from cmt_sdk.storage.erasure import rewrite, traces_of
from cmt_sdk.storage.filters import conditions
from cmt_sdk.storage.resplitting import matched
from cmt_sdk.storage.rows import (
    ALIVE,
    READY,
    document_of,
    gone_of,
    metadata_text,
    record_hash,
    sound_name,
    sound_text,
    stamp_of,
)
from cmt_sdk.storage.schema import WORD_TABLES, insert_words, seal
from cmt_sdk.types import Document, Filter, Outcome, Page, Removed, Span

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
LARGEST_PAGE = 2**31
# creation time and key
CURSOR = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?)/([0-9]{1,18})")


class Documents(Database):
    """The documents of a folder; see ports.DocumentStore.

    A document keeps the key of its row through all versions, so that a listing is not reordered by
    an update; what it was before goes to a row of its own.
    """

    def add(
        self,
        document: Document,
        spans: Sequence[Span],
        *,
        by_source: bool = False,
        recut: Recut | None = None,
    ) -> tuple[Document, Outcome]:
        """See ports.DocumentStore."""
        row = self._row(replace(document, id=document.id or uuid.uuid4().hex, version=1))
        with self._write() as db:
            known = self._known(db, document, by_source)
            if known is not None and known.text == document.text:
                return self._said_again(db, known, document, by_source, recut)
            if known is not None:
                changes = {**_said(known, document, by_source), "text": document.text}
                return self._replaced(db, known, changes, spans, recut), "updated"
            self._make_free(db, row["doc_id"])
            key = self._insert(db, row, True)
            self._cut(db, key, document.text, enumerate(spans))
            return self._current(db, row["doc_id"]), "added"

    def add_together(self, documents: Sequence[tuple[Document, Sequence[Span]]]) -> None:
        """See ports.DocumentStore."""
        rows = [self._row(replace(document, version=1)) for document, _ in documents]
        with self._write() as db:
            for row, (document, spans) in zip(rows, documents, strict=True):
                self._make_free(db, row["doc_id"])
                self._cut(db, self._insert(db, row, True), document.text, enumerate(spans))

    def add_again(
        self, document: Document, *, by_source: bool = False, recut: Recut | None = None
    ) -> tuple[Document, Outcome] | None:
        """See ports.DocumentStore."""
        with self._write() as db:
            known = self._known(db, document, by_source)
            if known is None or known.text != document.text:
                return None
            return self._said_again(db, known, document, by_source, recut)

    def _known(self, db: Connection, document: Document, by_source: bool) -> Document | None:
        """Find the living document that a given one stands for.

        With `by_source`, that is the document of the given id, else the one of the same scope and
        source, else one of the same text that has no source yet. Without, it is a document of the
        same text in the same scope.
        """
        if not by_source or not document.source:
            same = self._same(db, self._row(document))
            return same if same is not None and document.id in ("", same.id) else None
        if document.id:
            return self._named(db, document.scope, document.id)
        found = self._found(db, document.scope, document.source)
        return found or self._same(db, self._row(document), extra="AND source IS NULL")

    def _named(self, db: Connection, scope: str, document_id: str) -> Document | None:
        sql = (
            f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id AND scope = :scope AND"
            f" {ALIVE}"
        )
        values = {"id": document_id, "scope": scope, "now": self.now().timestamp()}
        row = db.execute(text(sql), values).first()
        return None if row is None else document_of(row)

    def _said_again(
        self, db: Connection, known: Document, given: Document, by_source: bool, recut: Recut | None
    ) -> tuple[Document, Outcome]:
        changes = _said(known, given, by_source)
        if all(getattr(known, name) == value for name, value in changes.items()):
            # what is told again is the newest of its kind; a file that is read again is as old as
            # it was
            return known if by_source else self._replaced(db, known, {}, None, None), "unchanged"
        return self._replaced(db, known, changes, None, recut), "updated"

    def restore(self, versions: Sequence[Document], spans: Sequence[Span]) -> tuple[Document, bool]:
        """See ports.DocumentStore."""
        rows = [
            self._row(v) | {"updated_at": stamp_of(v.updated_at or self.now())} for v in versions
        ]
        with self._write() as db:
            same = self._same(db, rows[-1], extra="AND doc_id = :doc_id")
            if same is not None:
                return same, False
            self._make_free(db, versions[-1].id)
            for row in rows[:-1]:
                self._insert(db, row, False)
            key = self._insert(db, rows[-1], True)
            self._cut(db, key, versions[-1].text, enumerate(spans))
            return self._current(db, versions[-1].id), True

    def _same(self, db: Connection, row: Mapping[str, Any], extra: str = "") -> Document | None:
        """The living document with this row's text in its scope, preferably the one with its id."""
        sql = f"""SELECT d.*, {READY} FROM documents d WHERE content_hash = :content_hash
            AND scope = :scope AND {ALIVE}
            {extra} ORDER BY doc_id <> :doc_id, key"""
        found = db.execute(text(sql), {**row, "now": self.now().timestamp()}).first()
        return None if found is None else document_of(found)

    def _make_free(self, db: Connection, document_id: str) -> None:
        """An id is free when no living document has it; an expired one makes room."""
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

    @staticmethod
    def _current(db: Connection, document_id: str) -> Document:
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id AND d.current"
        return document_of(db.execute(text(sql), {"id": document_id}).one())

    def find(self, scope: str, source: str) -> Document | None:
        """See ports.DocumentStore."""
        with self._read() as db:
            return self._found(db, scope, source)

    def _found(self, db: Connection, scope: str, source: str) -> Document | None:
        sql = f"""SELECT d.*, {READY} FROM documents d WHERE scope = :scope AND source = :source
            AND {ALIVE}
            ORDER BY updated_at DESC, key DESC"""
        values = {
            "scope": sound_text("scope", scope, InvalidDocument),
            "source": sound_text("source", source, InvalidDocument),
            "now": self.now().timestamp(),
        }
        row = db.execute(text(sql), values).first()
        return None if row is None else document_of(row)

    def replace(
        self,
        document_id: str,
        changes: Mapping[str, Any],
        spans: Sequence[Span] | None = None,
        *,
        recut: Recut | None = None,
    ) -> Document:
        """See ports.DocumentStore. Raises DocumentNotFound.

        Who changes a document by its id has looked at it: its versions are sealed as they then are.
        """
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id AND {ALIVE}"
        values = {
            "id": sound_text("id", document_id, InvalidDocument),
            "now": self.now().timestamp(),
        }
        with self._write() as db:
            row = db.execute(text(sql), values).first()
            if row is None:
                raise DocumentNotFound.of(document_id)
            changed = self._replaced(db, document_of(row), changes, spans, recut)
            seal(db.exec_driver_sql, "doc_id = ?", (document_id,))
        return changed

    def _replaced(
        self,
        db: Connection,
        known: Document,
        changes: Mapping[str, Any],
        spans: Sequence[Span] | None,
        recut: Recut | None,
    ) -> Document:
        new = replace(known, **changes)
        if recut is not None:
            spans = recut(known, new)
        current = text("SELECT * FROM documents WHERE doc_id = :id AND current")
        before = db.execute(current, {"id": known.id}).one()
        if new.text == known.text:
            self._overwrite(db, self._row(new), before)
        else:
            assert spans is not None  # noqa: S101 - the port says so
            self._overwrite(db, self._row(replace(new, version=known.version + 1)), before)
            self._insert(db, before._asdict(), False)
        if spans is not None:
            self._cut_again(db, before.key, known.text, new.text, spans)
        return self._current(db, known.id)

    @staticmethod
    def _overwrite(db: Connection, row: Mapping[str, Any], before: Row[Any]) -> None:
        """The current version's fields but its time of creation, in place. What was damaged before
        is not sealed by it.
        """
        row = {**row, "created_at": before.created_at}
        sound = record_hash(before._asdict()) == before.record_hash
        row["record_hash"] = record_hash(row) if sound else None
        columns = ", ".join(f"{c} = :{c}" for c in COLUMNS)
        db.execute(text(f"UPDATE documents SET {columns} WHERE doc_id = :doc_id AND current"), row)

    def _row(self, document: Document) -> dict[str, Any]:
        sound_text("text", document.text, InvalidDocument)
        for name, value in (
            ("id", document.id),
            ("scope", document.scope),
            ("source", document.source or ""),
        ):
            sound_name(name, value)
        now = self.now().timestamp()
        return {
            "doc_id": document.id,
            "version": document.version,
            "text": document.text,
            "content_hash": hashlib.sha256(document.text.encode()).hexdigest(),
            "source": document.source,
            "scope": document.scope,
            "metadata": metadata_text(document),
            "created_at": stamp_of(document.created_at) if document.created_at else now,
            "updated_at": now,
            "expires_at": stamp_of(document.expires_at) if document.expires_at else None,
        }

    def uncut(self) -> list[Document]:
        """See ports.DocumentStore."""
        with self._read() as db:
            return [self._current(db, name) for name in uncut(db)]

    def recut(self, document: Document, spans: Sequence[Span]) -> bool:
        """See ports.DocumentStore."""
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id AND d.current"
        with self._write() as db:
            row = db.execute(text(sql), {"id": document.id}).first()
            if row is None or _cut_from(document_of(row)) != _cut_from(document):
                return False
            self._cut_again(db, row.key, document.text, document.text, spans)
        return True

    @staticmethod
    def _insert(db: Connection, row: Mapping[str, Any], current: bool) -> int:
        names, values = ", ".join(COLUMNS), ", ".join(f":{c}" for c in COLUMNS)
        sql = f"INSERT INTO documents (current, {names}) VALUES (:current, {values}) RETURNING key"
        return int(
            db.execute(
                text(sql), {"record_hash": record_hash(row), **row, "current": current}
            ).scalar_one()
        )

    def _cut_again(
        self, db: Connection, key: int, old: str, new: str, spans: Sequence[Span]
    ) -> None:
        """Give a document the passages of `spans`; those of a content that it has already stay."""
        rows = """SELECT id, ordinal, start, "end" AS stop, tokens, heading FROM passages
            WHERE document_key = :key ORDER BY ordinal"""
        found = matched(db.execute(text(rows), {"key": key}).all(), old, new, spans)
        move = 'UPDATE passages SET ordinal = ?, start = ?, "end" = ?, tokens = ? WHERE id = ?'
        for passage, ordinal, span in found.moved:
            db.exec_driver_sql(move, (ordinal, span.start, span.end, span.tokens, passage))
        self._cut(db, key, new, found.new)
        if found.gone:
            self._drop_passages(db, found.gone)
            self._lost(db)

    @staticmethod
    def _cut(db: Connection, key: int, body: str, spans: Iterable[tuple[int, Span]]) -> None:
        """Store passages of a document, given with their ordinals, and their words."""
        passage = (
            'INSERT INTO passages (document_key, ordinal, start, "end", tokens, heading) VALUES (?,'
            " ?, ?, ?, ?, ?)"
        )
        for ordinal, span in spans:
            row = (key, ordinal, span.start, span.end, span.tokens, span.heading)
            made = db.exec_driver_sql(passage, row).lastrowid
            words = f"{span.heading}\n{body[span.start : span.end]}"
            insert_words(db.exec_driver_sql, made, words)

    @staticmethod
    def _drop_passages(db: Connection, ids: Sequence[int]) -> None:
        """Delete passages with their words, memories and embeddings."""
        for some in chunks(ids):
            for table in WORD_TABLES:
                db.exec_driver_sql(f"DELETE FROM {table} WHERE rowid IN ({some})")
            db.exec_driver_sql(f"DELETE FROM passages WHERE id IN ({some})")

    def _remove(self, db: Connection, keys: Sequence[int]) -> None:
        if keys:
            for some in chunks(keys):
                inside = f"SELECT id FROM passages WHERE document_key IN ({some})"
                self._drop_passages(db, list(db.exec_driver_sql(inside).scalars()))
                db.exec_driver_sql(f"DELETE FROM documents WHERE key IN ({some})")
            self._lost(db)

    def history(self, document_id: str) -> list[Document]:
        """See ports.DocumentStore."""
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id ORDER BY version"
        with self._read() as db:
            return [
                document_of(row)
                for row in db.execute(
                    text(sql), {"id": sound_text("id", document_id, InvalidDocument)}
                )
            ]

    def page(self, filter: Filter, limit: int, cursor: str | None) -> Page:
        """See ports.DocumentStore."""
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidInput(f"limit={limit}: ask for 1 to {LARGEST_PAGE:,} documents a page")
        where, values = conditions(filter, self.now().timestamp())
        sql = (
            f"SELECT d.*, {READY} FROM documents d WHERE {where} AND (d.created_at, d.key) >"
            " (:time, :key) ORDER BY d.created_at, d.key LIMIT :limit"
        )
        with self._read() as db:
            rows = db.execute(text(sql), values | _after(cursor) | {"limit": limit + 1}).all()
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(
            [document_of(r) for r in rows],
            f"{rows[-1].created_at!r}/{rows[-1].key}" if more else None,
        )

    def ids(self, prefix: str) -> list[str]:
        """See ports.DocumentStore."""
        sql = (
            f"SELECT doc_id FROM documents d WHERE doc_id >= :first AND doc_id < :last AND {ALIVE}"
            " ORDER BY doc_id"
        )
        values = {
            "first": sound_text("id", prefix, InvalidDocument),
            "last": f"{prefix}\U0010ffff",
            "now": self.now().timestamp(),
        }
        with self._read() as db:
            return [row.doc_id for row in db.execute(text(sql), values)]

    def count(self, filter: Filter) -> int:
        """See ports.DocumentStore."""
        where, values = conditions(filter, self.now().timestamp())
        with self._read() as db:
            return int(
                db.execute(
                    text(f"SELECT count(*) FROM documents d WHERE {where}"), values
                ).scalar_one()
            )

    def delete(self, filter: Filter, *, erase: bool = False) -> Removed:
        """See ports.DocumentStore."""
        where, values = conditions(replace(filter, history=True), -math.inf)
        sql = f"""SELECT a.*, 0 AS ready FROM documents a
            WHERE key IN (SELECT d.key FROM documents d WHERE {where})
            OR doc_id IN (SELECT d.doc_id FROM documents d WHERE d.current AND {where})
                ORDER BY doc_id, version"""
        with self._write() as db:
            rows = db.execute(text(sql), values).all()
            keys = [r.key for r in rows]
            counts = [
                f"SELECT count(*) FROM passages WHERE document_key IN ({some})"
                for some in chunks(keys)
            ]
            passages = sum(db.exec_driver_sql(count).scalar_one() for count in counts)
            self._remove(db, keys)
            if erase:
                db.execute(
                    text("INSERT OR REPLACE INTO settings VALUES ('erasure', :name)"),
                    {"name": uuid.uuid4().hex},
                )
        return Removed([gone_of(r) for r in rows], passages)

    def erasure_due(self) -> str | None:
        """See ports.DocumentStore."""
        with self._read() as db:
            return db.execute(text("SELECT value FROM settings WHERE name = 'erasure'")).scalar()

    def erase(self, wait: float) -> bool:
        """See ports.DocumentStore."""
        with translated(self._folder):
            return rewrite(self._file, self._key, wait)

    def erased(self, due: str) -> None:
        """See ports.DocumentStore."""
        with self._write() as db:
            db.execute(
                text("DELETE FROM settings WHERE name = 'erasure' AND value = :name"), {"name": due}
            )

    def traces(self, removed: Sequence[Document]) -> tuple[list[str], int]:
        """See ports.DocumentStore."""
        with translated(self._folder):
            return traces_of(removed, self._folder, self._key)


def _said(known: Document, given: Document, by_source: bool) -> dict[str, Any]:
    """The fields of a known document after it is given again; only with `by_source` a new source
    takes the place of its own.
    """
    return {
        "source": given.source or known.source if by_source else known.source or given.source,
        "metadata": {**known.metadata, **given.metadata},  # keys that others noted stay
        "expires_at": given.expires_at or known.expires_at,
    }


def _cut_from(document: Document) -> tuple[object, ...]:
    """What the passages of a document are made from: its text and what may name it."""
    return document.version, document.text, document.source, dict(document.metadata)


def _after(cursor: str | None) -> dict[str, float]:
    """Where a page begins. Raises InvalidInput for what `page` did not give out."""
    if cursor is None:
        return {"time": -math.inf, "key": 0}
    found = CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidInput(f"cursor {cursor!r:.60}: give the next_cursor of an earlier page")
    return {"time": float(found[1]), "key": int(found[2])}
