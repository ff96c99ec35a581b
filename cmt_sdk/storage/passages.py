"""Passages with their compressed forms and embeddings in the database. Knows no index file."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, text

from cmt_sdk.errors import (
    InvalidDocument,
    ModelMismatch,
    StorageDamaged,
    StorageDenied,
    StorageFull,
    StorageLocked,
)
from cmt_sdk.storage.blob import pack, unpack
from cmt_sdk.storage.connection import chunks
from cmt_sdk.storage.objects import Objects
from cmt_sdk.storage.rows import (
    ALIVE,
    PASSAGE,
    READY,
    fingerprint_of,
    passage_of,
    sound_text,
)
from cmt_sdk.types import (
    MIN_FIDELITY,
    CompressedPassage,
    Document,
    Encoded,
    Filter,
    Fingerprint,
    Passage,
    Vector,
)
from cmt_sdk.types.vectors import Embeddings

# seconds before the time of reading is written again: a question should not cost a write each time
LAST_READ_RESOLUTION_S = 60.0

log = logging.getLogger(__name__)


class Passages(Objects):
    """The passages of one memory, with their compressed forms and embeddings."""

    _passage = PASSAGE  # the columns of a passage

    def pending(self, limit: int, *, of: Collection[str] | None = None) -> list[Passage]:
        """Return passages of current documents that have no embedding yet, oldest first.

        Args:
            limit: how many at most.
            of: ids of the documents to look at; None: all.
        """
        some = None if of is None else list(of)
        where, values = self._conditions(Filter(ids=some), self.now().timestamp())
        sql = f"""SELECT {self._passage} JOIN waiting w ON w.passage_id = p.id
            WHERE {where} ORDER BY w.passage_id LIMIT :limit"""
        with self._read() as db:
            rows = db.execute(text(sql), values | {"limit": limit}).all()
            return [passage for passage, _ in self._with_documents(db, rows)]

    def _with_documents(
        self, db: Connection, rows: Sequence[Row[Any]]
    ) -> list[tuple[Passage, Document]]:
        """Return rows of PASSAGE as passages with their documents. Each document is read once: one
        of megabytes has thousands of passages.
        """
        documents = {}
        for some in chunks(sorted({r.document_key for r in rows})):
            for row in db.execute(
                text(f"SELECT d.*, {READY} FROM documents d WHERE d.key IN ({some})")
            ):
                documents[row.key] = self._document(row)
        return [(passage_of(r, documents[r.document_key]), documents[r.document_key]) for r in rows]

    def save(self, encoded: Mapping[int, Encoded], fingerprint: Fingerprint) -> None:
        """Store compressed passages and embeddings by passage id in one transaction; ids of deleted
        passages are skipped. Of a cold one the embedding alone is stored.

        Raises:
            ModelMismatch: another model made stored compressed passages; nothing is stored.
        """
        packed = {i: pack(made.compressed) for i, made in encoded.items() if not made.cold}
        put = self._put_objects(packed)
        with self._write() as db:
            self._check_maker(db, fingerprint)
            data = self._row_data(db, put, packed)
            body = {"id": fingerprint.id, "body": json.dumps(asdict(fingerprint))}
            db.execute(
                text("INSERT INTO fingerprints VALUES (:id, :body) ON CONFLICT DO NOTHING"), body
            )
            values = {"now": self.now().timestamp()}
            replaced = 0
            for passage, made in encoded.items():
                if not db.execute(
                    text("SELECT 1 FROM passages WHERE id = :id"), {"id": passage}
                ).first():
                    continue
                if passage in packed:
                    row = {"id": passage, "bytes": len(packed[passage]), "data": data[passage]}
                    db.execute(text(SAVING), values | row | {"fidelity": made.fidelity})
                replaced += self._save_embedding(db, passage, made.embedding, fingerprint)
            if replaced:
                self._bump_change_counter(db)
        if put:
            self._delete_left_over()

    @staticmethod
    def _check_maker(db: Connection, fingerprint: Fingerprint, *, reads: bool = False) -> None:
        """Raise ModelMismatch where another model made stored memories: each model would misread
        the other's. One with a codec reads those without; with `reads`, the fingerprint is that of
        a model that is to read all.
        """
        for theirs in _makers(db):
            differences = theirs.differences(fingerprint)
            if differences and (reads or fingerprint.differences(theirs)):
                raise ModelMismatch(
                    f"another process encoded with {theirs.model} meanwhile"
                    f" ({'; '.join(differences)}): open the memory again",
                    differences=differences,
                )

    @staticmethod
    def _save_embedding(
        db: Connection, passage: int, embedding: Vector, fingerprint: Fingerprint
    ) -> bool:
        """Store an embedding under a new label unless the same one is stored; return whether it
        replaced another one.
        """
        data = np.ascontiguousarray(embedding, "<f4").tobytes()
        values = {"id": passage, "by": fingerprint.id, "key": data}
        sql = "DELETE FROM vectors WHERE passage_id = :id AND (key <> :key OR fingerprint <> :by)"
        lost = bool(db.execute(text(sql), values).rowcount)
        db.execute(text("DELETE FROM waiting WHERE passage_id = :id"), values)
        if not db.execute(text("SELECT 1 FROM vectors WHERE passage_id = :id"), values).first():
            db.execute(
                text("INSERT INTO vectors (passage_id, fingerprint, key) VALUES (:id, :by, :key)"),
                values,
            )
        return lost

    def load(self, passage_ids: Sequence[int], reader: Fingerprint) -> dict[int, CompressedPassage]:
        """Return stored compressed passages by passage id; a passage without one is missing.

        Records the time of reading, for `evict`, with a resolution of LAST_READ_RESOLUTION_S.

        Raises:
            ModelMismatch: another model than `reader` made stored compressed passages.
        """
        now = self.now().timestamp()
        rows: list[Row[Any]] = []
        with self._read() as db:
            self._check_maker(db, reader, reads=True)
            for some in chunks(passage_ids):
                sql = (
                    f"SELECT passage_id, last_read, data FROM memories WHERE passage_id IN ({some})"
                )
                rows += db.exec_driver_sql(sql)
        bodies = self._bodies({row.passage_id: row.data for row in rows})
        made = {passage: memory_of(passage, body) for passage, body in bodies.items()}
        found = {passage: memory for passage, memory in made.items() if memory is not None}
        last = ((row.passage_id, row.last_read) for row in rows)
        old = [i for i, at in last if i in found and now - at > LAST_READ_RESOLUTION_S]
        self._note_reading(old, now)
        return found

    def _note_reading(self, passage_ids: Sequence[int], now: float) -> None:
        if not passage_ids:
            return
        try:
            with self._write_if_free() as db:
                for some in chunks(passage_ids):
                    db.execute(
                        text(f"UPDATE memories SET last_read = :now WHERE passage_id IN ({some})"),
                        {"now": now},
                    )
        except (StorageFull, StorageLocked, StorageDenied) as error:
            # a full disk still answers questions
            log.info("the time of reading was not recorded: %s", error)

    def encodings(
        self, passage_ids: Sequence[int], *, cold: bool = False
    ) -> dict[int, tuple[Encoded, Fingerprint]]:
        """Return stored compressed passages with their embeddings and the fingerprints that made
        them, for an archive or another store.

        Does not count as a reading. A pending passage is missing; one without a compressed form is
        too, unless `cold`.
        """
        sql = """SELECT v.passage_id, v.key, f.body, m.data, m.fidelity, p.tokens FROM vectors v
            JOIN passages p ON p.id = v.passage_id
            LEFT JOIN memories m ON m.passage_id = v.passage_id
                JOIN fingerprints f ON f.id = v.fingerprint WHERE v.passage_id IN"""
        rows: list[Row[Any]] = []
        with self._read() as db:
            for some in chunks(passage_ids):
                rows += db.exec_driver_sql(f"{sql} ({some})")
        vectors = [np.frombuffer(row.key, "<f4").astype(np.float32) for row in rows]
        return self._encodings(rows, vectors, cold=cold)

    def _encodings(
        self, rows: Sequence[Row[Any]], embeddings: Sequence[Vector], *, cold: bool
    ) -> dict[int, tuple[Encoded, Fingerprint]]:
        """Return what rows of vectors with their memories hold, by passage id."""
        stored = {row.passage_id: row.data for row in rows if row.data is not None}
        bodies = self._bodies(stored)
        found = {}
        for row, embedding in zip(rows, embeddings, strict=True):
            made = encoded_of(row, bodies.get(row.passage_id), embedding)
            if cold or not made.cold:
                found[row.passage_id] = (made, fingerprint_of(row.body))
        return found

    def passages(self, passage_ids: Sequence[int]) -> dict[int, tuple[Passage, Document]]:
        """Return passages with their documents, by id; superseded, deleted and expired ones are
        missing.
        """
        rows: list[Row[Any]] = []
        now = {"now": self.now().timestamp()}
        with self._read() as db:
            for some in chunks(passage_ids):
                rows += db.execute(
                    text(f"SELECT {self._passage} WHERE p.id IN ({some}) AND {ALIVE}"), now
                )
            return {
                passage.id: (passage, document)
                for passage, document in self._with_documents(db, rows)
            }

    def passages_of(self, document_id: str) -> list[Passage]:
        """Return the passages of a document's current version, in order."""
        sql = f"SELECT {self._passage} WHERE d.doc_id = :id AND d.current ORDER BY p.ordinal"
        with self._read() as db:
            rows = db.execute(
                text(sql), {"id": sound_text("id", document_id, InvalidDocument)}
            ).all()
            return [passage for passage, _ in self._with_documents(db, rows)]

    def choose(self, filter: Filter) -> Collection[int]:
        """Return the ids of the passages of current documents that fit a filter."""
        where, values = self._conditions(replace(filter, history=False), self.now().timestamp())
        # as one value: a row of Python a passage takes longer than finding it
        sql = (
            "SELECT group_concat(p.id) FROM passages p JOIN documents d ON d.key = p.document_key"
            f" WHERE {where}"
        )
        with self._read() as db:
            ids = db.execute(text(sql), values).scalar_one()
        return set(map(int, ids.split(","))) if ids else set()

    def embeddings(self, filter: Filter) -> Embeddings:
        """Return the embeddings of the passages of current documents that fit a filter, oldest
        first.
        """
        where, values = self._conditions(replace(filter, history=False), self.now().timestamp())
        sql = f"""SELECT v.passage_id, v.key FROM vectors v JOIN passages p ON p.id = v.passage_id
            JOIN documents d ON d.key = p.document_key WHERE {where} ORDER BY v.passage_id"""
        with self._read() as db:
            rows = db.execute(text(sql), values).all()
        matrix = (
            np.frombuffer(b"".join(r.key for r in rows), "<f4")
            .astype(np.float32)
            .reshape(len(rows), -1 if rows else 0)
        )
        return Embeddings([r.passage_id for r in rows], matrix)

    def fingerprints(self) -> list[Fingerprint]:
        """Return the fingerprints of the stored compressed passages."""
        with self._read() as db:
            return _makers(db)

    def forget_encodings(self, keep: Fingerprint | None) -> int:
        """Make every passage pending again that `keep` did not encode; return how many."""
        by = {"keep": keep.id if keep else ""}
        with self._write() as db:
            db.execute(
                text(
                    "DELETE FROM memories WHERE passage_id IN (SELECT passage_id FROM vectors WHERE"
                    " fingerprint <> :keep)"
                ),
                by,
            )
            gone = db.execute(text("DELETE FROM vectors WHERE fingerprint <> :keep"), by).rowcount
            db.execute(text("DELETE FROM fingerprints WHERE id <> :keep"), by)
            self._bump_change_counter(db)
        return int(gone)

    def evict(self, budget_bytes: int) -> int:
        """Delete compressed passages until the rest fits `budget_bytes`; embeddings stay. Return
        how many were deleted.

        Those that were measured and found poor go first, then those that were read longest ago.
        """
        size = text("SELECT sum(bytes) FROM memories")
        poor = """passage_id IN (SELECT passage_id FROM memories
            WHERE fidelity IS NOT NULL AND fidelity < :poor)"""  # read from the index by_fidelity
        gone = []
        with self._write() as db:
            over = (db.execute(size).scalar() or 0) - budget_bytes
            for which in (poor, f"NOT ({poor})"):
                sql = f"""SELECT passage_id, bytes FROM memories WHERE {which}
                    ORDER BY last_read, passage_id"""
                for row in db.execute(text(sql), {"poor": MIN_FIDELITY}):
                    if over <= 0:
                        break
                    gone.append(row.passage_id)
                    over -= row.bytes
            for some in chunks(gone):
                db.exec_driver_sql(f"DELETE FROM memories WHERE passage_id IN ({some})")
        return len(gone)


def _makers(db: Connection) -> list[Fingerprint]:
    """Return the fingerprints that the stored compressed passages have."""
    sql = (
        "SELECT body FROM fingerprints f WHERE EXISTS (SELECT 1 FROM vectors v WHERE v.fingerprint"
        " = f.id)"
    )
    return [fingerprint_of(row.body) for row in db.execute(text(sql))]


# no "OR REPLACE": SQLite runs no trigger for a row that it replaces
SAVING = """INSERT INTO memories (passage_id, last_read, bytes, data, fidelity)
    VALUES (:id, :now, :bytes, :data, :fidelity)
    ON CONFLICT (passage_id) DO UPDATE SET last_read = excluded.last_read, bytes = excluded.bytes,
        data = excluded.data, fidelity = excluded.fidelity"""


def encoded_of(row: Row[Any], body: bytes | None, embedding: Vector) -> Encoded:
    """Return what is stored of a passage; a cold one where its compressed form is missing or
    damaged.
    """
    memory = None if body is None else memory_of(row.passage_id, body)
    if memory is None:
        return Encoded(CompressedPassage("", row.tokens, {}), embedding)
    return Encoded(memory, embedding, row.fidelity)


def memory_of(passage: int, data: bytes) -> CompressedPassage | None:
    """Return a stored compressed passage; None for a damaged one, which is then made again from the
    text like a missing one.
    """
    try:
        return unpack(data)
    except StorageDamaged as error:
        log.warning(
            "the compressed form of passage %d is damaged and will be made again: %s",
            passage,
            error,
        )
        return None
