"""SQLiteStore: documents, passages, memories and key vectors of one folder, in SQLite. No torch, no index, no splitting."""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, text

from cmt_sdk.errors import AlreadyExists, DocumentNotFound, InvalidDocument, InvalidInput
from cmt_sdk.storage.blob import pack, unpack
from cmt_sdk.storage.connection import FILE, open_database, translated
from cmt_sdk.storage.filters import conditions
from cmt_sdk.storage.forgetting import erase, traces_of
from cmt_sdk.storage.schema import migrate
from cmt_sdk.types import (
    Document,
    Encoded,
    Filter,
    Fingerprint,
    Generation,
    Hit,
    PackedMemory,
    Page,
    Passage,
    Span,
    Stats,
    Vector,
)

MANY = 500  # values bound in one statement
READ_AGAIN = 60.0  # seconds before the time of reading is written again: a question should not cost a write

PASSAGE = """p.id, p.ordinal, p.start, p."end" AS stop, p.tokens, p.heading, d.*, EXISTS
    (SELECT 1 FROM vectors v WHERE v.passage_id = p.id) AS ready FROM passages p JOIN documents d ON d.key = p.document_key"""
READY = """NOT EXISTS (SELECT 1 FROM passages p LEFT JOIN vectors v ON v.passage_id = p.id
    WHERE p.document_key = d.key AND v.label IS NULL) AS ready"""


def utc_now() -> datetime:
    """The clock that stamps documents."""
    return datetime.now(UTC)


class SQLiteStore:
    """The store of one folder; see ports.Store and ports.VectorStore. Safe from several threads and processes."""

    def __init__(self, folder: Path, *, create: bool = True, clock: Callable[[], datetime] = utc_now) -> None:
        self._folder = folder
        self._clock = clock
        self._engine = open_database(folder, create=create)
        with self._write() as db:
            migrate(db)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with translated(self._folder), self._engine.connect() as db:
            db.exec_driver_sql("BEGIN")
            try:
                yield db
            finally:
                db.exec_driver_sql("ROLLBACK")

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with translated(self._folder), self._engine.connect() as db:
            db.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield db
                db.exec_driver_sql("COMMIT")
            except BaseException:
                if db.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
                    db.exec_driver_sql("ROLLBACK")
                raise

    def now(self) -> datetime:
        """The clock that stamps and expires documents, UTC."""
        return self._clock()

    def close(self) -> None:
        """Release the files; calling it twice does nothing."""
        self._engine.dispose()

    # -- settings -----------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """The settings that the memory was made with; empty for a new one."""
        with self._read() as db:
            found = db.execute(text("SELECT value FROM settings WHERE name = 'settings'")).scalar()
        return json.loads(found) if found else {}

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Record settings in place of those before."""
        with self._write() as db:
            self._set(db, "settings", json.dumps(dict(settings)))

    @staticmethod
    def _set(db: Connection, name: str, value: str) -> None:
        db.execute(text("INSERT OR REPLACE INTO settings VALUES (:name, :value)"), {"name": name, "value": value})

    # -- documents ----------------------------------------------------------------------------------------------

    def add(self, document: Document, spans: Sequence[Span]) -> tuple[Document, bool]:
        """See ports.DocumentStore."""
        new = replace(document, id=document.id or uuid.uuid4().hex, version=1, current=True)
        row = self._row(new)
        with self._write() as db:
            alive = "d.current AND (d.expires_at IS NULL OR d.expires_at > :now)"
            same = db.execute(
                text(f"SELECT d.*, {READY} FROM documents d WHERE content_hash = :content_hash AND scope = :scope AND {alive}"),
                row | {"now": self.now().timestamp()},
            ).first()
            if same is not None and document.id in ("", same.doc_id):
                return _document(same), False
            taken = {"id": new.id}
            if document.id and db.execute(text("SELECT 1 FROM documents WHERE doc_id = :id"), taken).first():
                raise AlreadyExists(f"the id {document.id!r} is taken by another text: change that one with update")
            self._insert(db, row, document.text, spans)
        return self.history(new.id)[-1], True

    def find(self, scope: str, source: str) -> Document | None:
        """See ports.DocumentStore."""
        sql = f"SELECT d.*, {READY} FROM documents d WHERE d.current AND scope = :scope AND source = :source ORDER BY key DESC"
        with self._read() as db:
            row = db.execute(text(sql), {"scope": scope, "source": source}).first()
        return None if row is None else _document(row)

    def replace(self, document: Document, spans: Sequence[Span] | None) -> Document:
        """See ports.DocumentStore."""
        with self._write() as db:
            known = db.execute(
                text("SELECT * FROM documents WHERE doc_id = :id AND current"), {"id": document.id}
            ).first()
            if known is None:
                raise DocumentNotFound(f"no document has the id {document.id!r}; `list` shows those there are")
            created = _time(known.created_at)
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
            "metadata": _metadata(document),
            "created_at": document.created_at.timestamp() if document.created_at else now,
            "updated_at": now,
            "expires_at": document.expires_at.timestamp() if document.expires_at else None,
        }

    @staticmethod
    def _insert(db: Connection, row: Mapping[str, Any], body: str, spans: Sequence[Span]) -> None:
        key = db.execute(
            text(
                "INSERT INTO documents (doc_id, version, current, text, content_hash, source, scope, metadata, created_at, "
                "updated_at, expires_at) VALUES (:doc_id, :version, 1, :text, :content_hash, :source, :scope, :metadata, "
                ":created_at, :updated_at, :expires_at) RETURNING key"
            ),
            row,
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
        for some in _chunks(keys):
            listed = ", ".join(str(int(k)) for k in some)
            inside = f"(SELECT id FROM passages WHERE document_key IN ({listed}))"
            db.exec_driver_sql(f"DELETE FROM passage_text WHERE rowid IN {inside}")
            db.exec_driver_sql(f"DELETE FROM passages WHERE document_key IN ({listed})")
        self._changed(db)

    @staticmethod
    def _changed(db: Connection) -> None:
        db.exec_driver_sql("UPDATE settings SET value = CAST(value AS INTEGER) + 1 WHERE name = 'changes'")

    def history(self, document_id: str) -> list[Document]:
        """See ports.DocumentStore."""
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id ORDER BY version"
        with self._read() as db:
            return [_document(row) for row in db.execute(text(sql), {"id": document_id})]

    def list(self, chosen: Filter, limit: int, cursor: str | None) -> Page:
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
        return Page([_document(r) for r in rows], f"{rows[-1].created_at!r}/{rows[-1].key}" if more else None)

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
            for some in _chunks([r.key for r in rows]):
                db.exec_driver_sql(f"DELETE FROM documents WHERE key IN ({', '.join(map(str, some))})")
        return [_document(r) for r in rows]

    def scrub(self, removed: Sequence[Document]) -> tuple[list[str], int]:
        """See ports.DocumentStore."""
        with translated(self._folder):
            self._engine.dispose()
            erase(self._folder / FILE)
            return traces_of(removed, self._folder)

    # -- passages -----------------------------------------------------------------------------------------------

    def pending(self, limit: int) -> list[Passage]:
        """See ports.PassageStore."""
        sql = f"""SELECT {PASSAGE} LEFT JOIN vectors w ON w.passage_id = p.id WHERE w.label IS NULL AND d.current
            AND (d.expires_at IS NULL OR d.expires_at > :now) ORDER BY p.id LIMIT :limit"""
        with self._read() as db:
            rows = db.execute(text(sql), {"limit": limit, "now": self.now().timestamp()}).all()
        return [_passage(r) for r in rows]

    def save(self, encoded: Mapping[int, Encoded], fingerprint: Fingerprint) -> None:
        """See ports.PassageStore."""
        now = self.now().timestamp()
        with self._write() as db:
            body = {"id": fingerprint.id, "body": json.dumps(asdict(fingerprint))}
            db.execute(text("INSERT OR IGNORE INTO fingerprints VALUES (:id, :body)"), body)
            for passage, made in encoded.items():
                if not db.execute(text("SELECT 1 FROM passages WHERE id = :id"), {"id": passage}).first():
                    continue
                data = pack(made.memory)
                key = np.ascontiguousarray(made.key, "<f4").tobytes()
                values = {"id": passage, "now": now, "bytes": len(data), "data": data, "key": key, "by": fingerprint.id}
                db.execute(text("INSERT OR REPLACE INTO memories VALUES (:id, :now, :bytes, :data)"), values)
                db.execute(
                    text("INSERT OR REPLACE INTO vectors (passage_id, fingerprint, key) VALUES (:id, :by, :key)"), values
                )
            self._changed(db)

    def load(self, passage_ids: Sequence[int]) -> dict[int, PackedMemory]:
        """See ports.PassageStore."""
        found: dict[int, PackedMemory] = {}
        now, old = self.now().timestamp(), []
        with self._read() as db:
            for some in _chunks(passage_ids):
                sql = f"SELECT passage_id, last_read, data FROM memories WHERE passage_id IN ({_ints(some)})"
                for row in db.exec_driver_sql(sql):
                    found[row.passage_id] = unpack(row.data)
                    if now - row.last_read > READ_AGAIN:
                        old.append(row.passage_id)
        if old:
            with self._write() as db:
                sql = f"UPDATE memories SET last_read = :now WHERE passage_id IN ({_ints(old)})"
                db.execute(text(sql), {"now": now})
        return found

    def passages(self, passage_ids: Sequence[int]) -> dict[int, tuple[Passage, Document]]:
        """See ports.PassageStore."""
        found = {}
        now = {"now": self.now().timestamp()}
        with self._read() as db:
            for some in _chunks(passage_ids):
                sql = f"""SELECT {PASSAGE} WHERE p.id IN ({_ints(some)}) AND d.current
                    AND (d.expires_at IS NULL OR d.expires_at > :now)"""
                for row in db.execute(text(sql), now):
                    found[row.id] = (_passage(row), _document(row))
        return found

    def passages_of(self, document_id: str) -> list[Passage]:
        """See ports.PassageStore."""
        sql = f"SELECT {PASSAGE} WHERE d.doc_id = :id AND d.current ORDER BY p.ordinal"
        with self._read() as db:
            return [_passage(r) for r in db.execute(text(sql), {"id": document_id})]

    def choose(self, chosen: Filter) -> Collection[int]:
        """See ports.PassageStore."""
        where, values = conditions(replace(chosen, history=False), self.now().timestamp())
        sql = f"SELECT p.id FROM passages p JOIN documents d ON d.key = p.document_key WHERE {where}"
        with self._read() as db:
            return {row.id for row in db.execute(text(sql), values)}

    def search_text(self, query: str, limit: int, chosen: Filter) -> list[Hit]:
        """See ports.PassageStore. The words are quoted, so that none is taken for FTS5's own syntax."""
        words = dict.fromkeys(w.lower() for w in re.findall(r"\w+", query))
        if not words:
            return []
        where, values = conditions(replace(chosen, history=False), self.now().timestamp())
        asked = " OR ".join(f'"{w}"' for w in words)
        sql = f"""SELECT passage_text.rowid AS id, bm25(passage_text) AS score FROM passage_text
            JOIN passages p ON p.id = passage_text.rowid JOIN documents d ON d.key = p.document_key
            WHERE passage_text MATCH :asked AND {where} ORDER BY score, passage_text.rowid LIMIT :limit"""
        with self._read() as db:
            rows = db.execute(text(sql), values | {"asked": asked, "limit": limit}).all()
        return [Hit(r.id, -r.score) for r in rows]

    def fingerprints(self) -> list[Fingerprint]:
        """See ports.PassageStore."""
        sql = "SELECT f.body FROM fingerprints f JOIN vectors v ON v.fingerprint = f.id GROUP BY f.id ORDER BY count(*) DESC"
        with self._read() as db:
            return [Fingerprint(**json.loads(row.body)) for row in db.execute(text(sql))]

    def forget_encodings(self, keep: Fingerprint | None) -> int:
        """See ports.PassageStore."""
        by = {"keep": keep.id if keep else ""}
        with self._write() as db:
            db.execute(
                text(
                    "DELETE FROM memories WHERE passage_id IN (SELECT passage_id FROM vectors WHERE fingerprint <> :keep)"
                ),
                by,
            )
            gone = db.execute(text("DELETE FROM vectors WHERE fingerprint <> :keep"), by).rowcount
            db.execute(text("DELETE FROM fingerprints WHERE id <> :keep"), by)
            self._changed(db)
        return int(gone)

    def evict(self, budget_bytes: int) -> int:
        """See ports.PassageStore."""
        gone = []
        with self._write() as db:
            over = (db.execute(text("SELECT sum(bytes) FROM memories")).scalar() or 0) - budget_bytes
            for row in db.execute(text("SELECT passage_id, bytes FROM memories ORDER BY last_read, passage_id")):
                if over <= 0:
                    break
                gone.append(row.passage_id)
                over -= row.bytes
            for some in _chunks(gone):
                db.exec_driver_sql(f"DELETE FROM memories WHERE passage_id IN ({_ints(some)})")
        return len(gone)

    def stats(self) -> Stats:
        """See ports.DocumentStore."""
        sql = """SELECT (SELECT count(*) FROM documents WHERE current) AS documents,
            (SELECT count(*) FROM documents) AS versions, (SELECT count(*) FROM passages) AS passages,
            (SELECT count(*) FROM passages p WHERE NOT EXISTS (SELECT 1 FROM vectors v WHERE v.passage_id = p.id)) AS pending,
            (SELECT count(*) FROM vectors v WHERE NOT EXISTS
                (SELECT 1 FROM memories m WHERE m.passage_id = v.passage_id)) AS cold,
            (SELECT coalesce(sum(tokens), 0) FROM passages) AS tokens,
            (SELECT coalesce(sum(length(CAST(text AS BLOB))), 0) FROM documents WHERE current) AS text_bytes,
            (SELECT coalesce(sum(bytes), 0) FROM memories) AS memory_bytes"""
        with self._read() as db:
            row = db.execute(text(sql)).one()
        files = sum(f.stat().st_size for f in self._folder.iterdir() if f.is_file())
        return Stats(**row._mapping, file_bytes=files, index="", model="")

    # -- vectors ------------------------------------------------------------------------------------------------

    def vectors(self, after: int) -> tuple[list[int], list[int], Vector]:
        """See ports.VectorStore."""
        sql = "SELECT label, passage_id, key FROM vectors WHERE label > :after ORDER BY label"
        with self._read() as db:
            rows = db.execute(text(sql), {"after": after}).all()
        keys = [np.frombuffer(r.key, "<f4") for r in rows]
        matrix = np.stack(keys).astype(np.float32) if keys else np.zeros((0, 0), np.float32)
        return [r.label for r in rows], [r.passage_id for r in rows], matrix

    def live(self) -> tuple[int, Collection[int]]:
        """See ports.VectorStore."""
        with self._read() as db:
            return self._changes(db), {r.label for r in db.execute(text("SELECT label FROM vectors"))}

    def changes(self) -> int:
        """A number that changes with every change of the vectors, by whatever process."""
        with self._read() as db:
            return self._changes(db)

    @staticmethod
    def _changes(db: Connection) -> int:
        return int(db.execute(text("SELECT value FROM settings WHERE name = 'changes'")).scalar_one())

    def generation(self) -> Generation | None:
        """See ports.VectorStore."""
        sql = "SELECT number, file, sha256, dimension, space, count, last_label FROM generation"
        with self._read() as db:
            row = db.execute(text(sql)).first()
        return None if row is None else Generation(**row._mapping)

    def set_generation(self, generation: Generation) -> None:
        """See ports.VectorStore."""
        sql = "INSERT OR REPLACE INTO generation VALUES (1, :number, :file, :sha256, :dimension, :space, :count, :last_label)"
        with self._write() as db:
            db.execute(text(sql), asdict(generation))


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[i : i + MANY] for i in range(0, len(ids), MANY))


def _ints(ids: Sequence[int]) -> str:
    return ", ".join(str(int(i)) for i in ids)


def _metadata(document: Document) -> str:
    for key, value in document.metadata.items():
        if not isinstance(key, str) or "\0" in key:
            raise InvalidDocument(f"metadata key {key!r}: a key is text without NUL")
        finite = not isinstance(value, float) or math.isfinite(value)
        if not (value is None or isinstance(value, str | int | float | bool)) or not finite:
            raise InvalidDocument(f"metadata {key}={value!r}: a value is text, a finite number, a truth value or None")
    return json.dumps(dict(document.metadata), ensure_ascii=False)


def _time(stamp: float | None) -> datetime | None:
    return None if stamp is None else datetime.fromtimestamp(stamp, UTC)


def _document(row: Row[Any]) -> Document:
    return Document(
        text=row.text,
        id=row.doc_id,
        source=row.source,
        scope=row.scope,
        metadata=json.loads(row.metadata),
        created_at=_time(row.created_at),
        updated_at=_time(row.updated_at),
        expires_at=_time(row.expires_at),
        version=row.version,
        current=bool(row.current),
        ready=bool(row.ready and row.current),
    )


def _passage(row: Row[Any]) -> Passage:
    body = row.text[row.start : row.stop]
    return Passage(row.id, row.doc_id, row.version, row.ordinal, row.start, row.stop, row.tokens, body, row.heading)


def _cursor(cursor: str | None) -> dict[str, float]:
    if cursor is None:
        return {"time": -math.inf, "key": 0}
    try:
        time, _, key = cursor.partition("/")
        return {"time": float(time), "key": int(key)}
    except ValueError as error:
        raise InvalidInput(f"cursor {cursor!r}: give the next_cursor of an earlier page") from error
