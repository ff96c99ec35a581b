"""Passages with their memories and key vectors in the database, full-text search among them. Knows no index file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from sqlalchemy import text

from cmt_sdk.storage.blob import pack, unpack
from cmt_sdk.storage.connection import Database, chunks
from cmt_sdk.storage.filters import conditions
from cmt_sdk.storage.rows import ALIVE, PASSAGE, document_of, passage_of
from cmt_sdk.types import Document, Encoded, Filter, Fingerprint, Hit, PackedMemory, Passage

READ_AGAIN = 60.0  # seconds before the time of reading is written again: a question should not cost a write


class Passages(Database):
    """The passages of a folder; see ports.PassageStore."""

    def pending(self, limit: int) -> list[Passage]:
        """See ports.PassageStore."""
        sql = f"""SELECT {PASSAGE} LEFT JOIN vectors w ON w.passage_id = p.id
            WHERE w.label IS NULL AND {ALIVE} ORDER BY p.id LIMIT :limit"""
        with self._read() as db:
            rows = db.execute(text(sql), {"limit": limit, "now": self.now().timestamp()}).all()
        return [passage_of(r) for r in rows]

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
                    text("INSERT OR REPLACE INTO vectors (passage_id, fingerprint, key) VALUES (:id, :by, :key)"),
                    values,
                )
            self._changed(db)

    def load(self, passage_ids: Sequence[int]) -> dict[int, PackedMemory]:
        """See ports.PassageStore."""
        found: dict[int, PackedMemory] = {}
        now, old = self.now().timestamp(), []
        with self._read() as db:
            for some in chunks(passage_ids):
                sql = f"SELECT passage_id, last_read, data FROM memories WHERE passage_id IN ({some})"
                for row in db.exec_driver_sql(sql):
                    found[row.passage_id] = unpack(row.data)
                    if now - row.last_read > READ_AGAIN:
                        old.append(row.passage_id)
        if old:
            with self._write() as db:
                for some in chunks(old):
                    db.execute(text(f"UPDATE memories SET last_read = :now WHERE passage_id IN ({some})"), {"now": now})
        return found

    def encodings(self, passage_ids: Sequence[int]) -> dict[int, tuple[Encoded, Fingerprint]]:
        """See ports.PassageStore."""
        sql = """SELECT v.passage_id, v.key, f.body, m.data FROM vectors v JOIN memories m ON m.passage_id = v.passage_id
            JOIN fingerprints f ON f.id = v.fingerprint WHERE v.passage_id IN"""
        found = {}
        with self._read() as db:
            for some in chunks(passage_ids):
                for row in db.exec_driver_sql(f"{sql} ({some})"):
                    key = np.frombuffer(row.key, "<f4").astype(np.float32)
                    found[row.passage_id] = Encoded(unpack(row.data), key), Fingerprint(**json.loads(row.body))
        return found

    def passages(self, passage_ids: Sequence[int]) -> dict[int, tuple[Passage, Document]]:
        """See ports.PassageStore."""
        found = {}
        now = {"now": self.now().timestamp()}
        with self._read() as db:
            for some in chunks(passage_ids):
                sql = f"""SELECT {PASSAGE} WHERE p.id IN ({some}) AND {ALIVE}"""
                for row in db.execute(text(sql), now):
                    found[row.id] = (passage_of(row), document_of(row))
        return found

    def passages_of(self, document_id: str) -> list[Passage]:
        """See ports.PassageStore."""
        sql = f"SELECT {PASSAGE} WHERE d.doc_id = :id AND d.current ORDER BY p.ordinal"
        with self._read() as db:
            return [passage_of(r) for r in db.execute(text(sql), {"id": document_id})]

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
                text("DELETE FROM memories WHERE passage_id IN (SELECT passage_id FROM vectors WHERE fingerprint <> :keep)"),
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
            for some in chunks(gone):
                db.exec_driver_sql(f"DELETE FROM memories WHERE passage_id IN ({some})")
        return len(gone)
