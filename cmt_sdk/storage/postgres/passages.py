"""Passages with their compressed forms and embeddings in Postgres, where they differ from SQLite's.

Embeddings are stored as float32 (`vector`), so that archives carry them unchanged; an index over
them has half the precision (index.py).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from cmt_sdk.storage.blob import pack
from cmt_sdk.storage.passages import Passages
from cmt_sdk.storage.postgres.connection import Server
from cmt_sdk.types import MIN_FIDELITY, Encoded, Filter, Fingerprint, Vector
from cmt_sdk.types.vectors import Embeddings

LEASE_S = 300  # seconds that a claim lasts where its process has died
MAKING = 0x636D7403  # the number of the lock on the fingerprints
JOINED = "passages p JOIN documents d ON d.key = p.document_key"


def vector_text(vector: Vector) -> str:
    """Return a vector, float32 [dimension], as pgvector reads it; no bit is lost."""
    return f"[{','.join(repr(float(value)) for value in vector)}]"


def vector_of(sent: bytes) -> Vector:
    """Return the vector of pgvector's binary form: two 16-bit numbers, then float32, big-endian."""
    return np.frombuffer(sent, ">f4", offset=4).astype(np.float32)


class Chosen(Collection[int]):
    """The ids of the passages that fit a filter, as the filter: they are read when they are asked
    for, and the index joins them inside the database.

    Attributes:
        where: a condition on documents `d`.
        values: the values bound in it.
    """

    def __init__(self, server: Server, where: str, values: Mapping[str, Any]) -> None:
        self._server = server
        self.where = where
        self.values = values

    def _ids(self) -> list[int]:
        with self._server._read() as db:
            sql = f"SELECT p.id FROM {JOINED} WHERE {self.where} ORDER BY p.id"
            return list(db.execute(text(sql), self.values).scalars())

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids())

    def __len__(self) -> int:
        return len(self._ids())

    def __contains__(self, passage: object) -> bool:
        return passage in self._ids()


class PostgresPassages(Passages, Server):
    """The passages of one database."""

    _passage = f"""p.id, p.ordinal, p.start, p."end" AS stop, p.tokens, p.heading, p.document_key,
        EXISTS (SELECT 1 FROM vectors v WHERE v.passage_id = p.id) AS ready,
        (SELECT m.fidelity FROM memories m WHERE m.passage_id = p.id) AS fidelity
        FROM {JOINED}"""
    _lock_rows = " FOR UPDATE"

    def _write_objects(self) -> AbstractContextManager[Connection]:
        return self._write_if_free()

    @contextmanager
    def claimed(self, passage_ids: Sequence[int], most: int) -> Iterator[list[int]]:
        """Claim the first `most` of these passages that are still pending and that no other process
        encodes.

        The claim ends with the block, or LEASE_S seconds after its process has died.
        """
        me = uuid.uuid4().hex
        # rows that another process is claiming now are left to it
        take = f"""UPDATE waiting SET taken_by = :me,
                taken_until = clock_timestamp() + interval '{LEASE_S} seconds'
            WHERE passage_id IN (SELECT w.passage_id FROM waiting w
                JOIN unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS given (id, place)
                    ON given.id = w.passage_id
                WHERE coalesce(w.taken_until < clock_timestamp(), true)
                ORDER BY given.place LIMIT :most FOR UPDATE OF w SKIP LOCKED)
            RETURNING passage_id"""
        values = {"me": me, "ids": list(passage_ids), "most": most}
        with self._write_if_free() as db:
            mine = set(db.execute(text(take), values).scalars())
        try:
            yield [i for i in passage_ids if i in mine]
        finally:
            free = "UPDATE waiting SET taken_by = NULL, taken_until = NULL WHERE taken_by = :me"
            if mine:
                with self._write_if_free() as db:
                    db.execute(text(free), {"me": me})

    def save(self, encoded: Mapping[int, Encoded], fingerprint: Fingerprint) -> None:
        """Store compressed passages and embeddings by passage id in one transaction; ids of deleted
        passages are skipped. Of a cold one the embedding alone is stored.

        Raises:
            ModelMismatch: another model made stored compressed passages; nothing is stored.
        """
        now = self.now().timestamp()
        packed = {i: b"" if made.cold else pack(made.compressed) for i, made in encoded.items()}
        put = self._put_objects(packed)
        rows = []
        for passage, made in sorted(encoded.items()):  # two that save at once lock in one order
            row: dict[str, Any] = {"id": passage, "now": now, "bytes": len(packed[passage])}
            row |= {"fidelity": made.fidelity, "by": fingerprint.id}
            rows.append(row | {"embedding": vector_text(made.embedding)})
        with self._write_if_free() as db:
            self._enter(db, fingerprint)
            if not rows:
                return
            # a passage that is being deleted is waited for, and one that stays is not deleted now
            ids = [row["id"] for row in rows]
            lock = text("SELECT id FROM passages WHERE id = ANY(:ids) ORDER BY id FOR KEY SHARE")
            here = set(db.execute(lock, {"ids": ids}).scalars())
            data = self._row_data(db, put, packed)
            left = [row | {"data": data[row["id"]]} for row in rows if row["id"] in here]
            with_data = [row for row in left if row["data"]]  # the others are cold
            for sql, some in zip(SAVING, (with_data, left, left), strict=True):
                if some:
                    db.execute(text(sql), some)
        if put:
            self._delete_left_over()

    def _enter(self, db: Connection, fingerprint: Fingerprint) -> None:
        """Record a fingerprint. Two models that begin at once wait for each other."""
        known = text("SELECT 1 FROM fingerprints WHERE id = :id")
        row = {"id": fingerprint.id, "body": json.dumps(asdict(fingerprint))}
        shared = "_shared" if db.execute(known, row).first() else ""
        db.execute(text(f"SELECT pg_advisory_xact_lock{shared}(:lock)"), {"lock": MAKING})
        self._check_maker(db, fingerprint)
        sql = "INSERT INTO fingerprints VALUES (:id, :body) ON CONFLICT DO NOTHING"
        db.execute(text(sql), row)

    def encodings(
        self, passage_ids: Sequence[int], *, cold: bool = False
    ) -> dict[int, tuple[Encoded, Fingerprint]]:
        """Return stored compressed passages with their embeddings and the fingerprints that made
        them, as SQLite's store does.
        """
        sql = """SELECT v.passage_id, vector_send(v.embedding) AS embedding, f.body, m.data,
                m.fidelity, p.tokens
            FROM vectors v JOIN passages p ON p.id = v.passage_id
            LEFT JOIN memories m ON m.passage_id = v.passage_id
            JOIN fingerprints f ON f.id = v.fingerprint WHERE v.passage_id = ANY(:ids)"""
        with self._read() as db:
            rows = db.execute(text(sql), {"ids": list(passage_ids)}).all()
        return self._encodings(rows, [vector_of(row.embedding) for row in rows], cold=cold)

    def choose(self, filter: Filter) -> Collection[int]:
        """Return the ids of the passages of current documents that fit a filter, as they are when
        they are read.
        """
        filter = replace(filter, history=False)
        return Chosen(self, *self._conditions(filter, self.now().timestamp()))

    def embeddings(self, filter: Filter) -> Embeddings:
        """Return the embeddings of the passages of current documents that fit a filter, oldest
        first.
        """
        where, values = self._conditions(replace(filter, history=False), self.now().timestamp())
        sql = f"""SELECT v.passage_id, vector_send(v.embedding) AS embedding
            FROM vectors v JOIN passages p ON p.id = v.passage_id
            JOIN documents d ON d.key = p.document_key WHERE {where} ORDER BY v.passage_id"""
        with self._read() as db:
            rows = db.execute(text(sql), values).all()
        vectors = [vector_of(row.embedding) for row in rows]
        matrix = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
        return Embeddings([row.passage_id for row in rows], matrix)

    def forget_encodings(self, keep: Fingerprint | None) -> int:
        """Make every passage pending again that `keep` did not encode; return how many."""
        by = {"keep": keep.id if keep else ""}
        others = "FROM vectors WHERE fingerprint <> :keep"
        with self._write() as db:
            db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MAKING})
            for sql in (
                f"INSERT INTO waiting SELECT passage_id {others} ON CONFLICT DO NOTHING",
                f"DELETE FROM memories WHERE passage_id IN (SELECT passage_id {others})",
            ):
                db.execute(text(sql), by)
            gone = db.execute(text(f"DELETE {others}"), by).rowcount
            # one that another scope still uses stays
            unused = """DELETE FROM fingerprints f WHERE id <> :keep
                AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.fingerprint = f.id)"""
            if not self._scope:
                db.execute(text(unused), by)
        return int(gone)

    def evict(self, budget_bytes: int) -> int:
        """Delete compressed passages until the rest fits `budget_bytes`; embeddings stay. Return
        how many were deleted.

        Those that were measured and found poor go first, then those that were read longest ago.
        """
        sql = """WITH kept AS (SELECT passage_id,
                sum(bytes) OVER (ORDER BY coalesce(fidelity < :poor, false), last_read DESC,
                    passage_id DESC) AS bytes FROM memories)
            DELETE FROM memories WHERE passage_id IN
                (SELECT passage_id FROM kept WHERE bytes > :budget)"""
        values = {"budget": budget_bytes, "poor": MIN_FIDELITY}
        with self._write_if_free() as db:
            return int(db.execute(text(sql), values).rowcount)


SAVING = (
    """INSERT INTO memories (passage_id, scope, last_read, bytes, data, fidelity)
        SELECT p.id, p.scope, :now, :bytes, :data, CAST(:fidelity AS double precision)
        FROM passages p WHERE p.id = :id
        ON CONFLICT (passage_id) DO UPDATE SET last_read = excluded.last_read,
            bytes = excluded.bytes, data = excluded.data, fidelity = excluded.fidelity""",
    """INSERT INTO vectors (passage_id, scope, fingerprint, embedding)
        SELECT p.id, p.scope, :by, CAST(:embedding AS vector) FROM passages p WHERE p.id = :id
        ON CONFLICT (passage_id) DO UPDATE SET fingerprint = excluded.fingerprint,
            embedding = excluded.embedding""",
    "DELETE FROM waiting WHERE passage_id = :id",
)
