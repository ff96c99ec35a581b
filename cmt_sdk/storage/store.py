"""SQLiteStore: one folder's documents, passages and key vectors, in SQLite. No torch, no index, no splitting."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from cmt_sdk.storage.checkup import findings
from cmt_sdk.storage.documents import Documents
from cmt_sdk.storage.passages import Passages
from cmt_sdk.types import Finding, Generation, Stats, Vector


class SQLiteStore(Documents, Passages):
    """The store of one folder; see ports.Store and ports.VectorStore. Safe from several threads and processes."""

    def check(self) -> Sequence[Finding]:
        """See ports.Store."""
        with self._read() as db:
            return list(findings(db, self._folder))

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
