"""PostgresIndex: nearest embeddings by cosine, inside the database (pgvector).

Where at most `exact_limit` embeddings fit, which is the normal case of a scope, each is compared:
the result is exact. Above, an HNSW graph over half-precision copies chooses candidates, which are
then scored exactly. Its scan goes on past those that do not fit (`hnsw.iterative_scan`), and where
it still stops short, the search is exact after all: never fewer hits than there are.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from cmt_sdk.errors import InvalidInput, StorageError
from cmt_sdk.storage.postgres.passages import Chosen, vector_of, vector_text
from cmt_sdk.storage.postgres.schema import SCHEMA
from cmt_sdk.storage.postgres.store import PostgresStore
from cmt_sdk.types import Filter, Hit, Vector

log = logging.getLogger(__name__)

JOINED = """vectors v JOIN passages p ON p.id = v.passage_id
    JOIN documents d ON d.key = p.document_key"""
LARGEST_DIMENSION = 4_000  # of a half-precision graph
MOST_CANDIDATES = 1_000  # pgvector's limit of hnsw.ef_search
FEWEST_CANDIDATES = 64
BUILDING = 0x636D7404  # the number of the lock that one builder of a graph holds


class PostgresIndex:
    """The index of one database. Safe to use from several threads."""

    def __init__(self, store: PostgresStore, exact_limit: int) -> None:
        self._store = store
        self._exact_limit = exact_limit

    def search(self, vector: Vector, limit: int, allowed: Collection[int] | None) -> list[Hit]:
        """Return the nearest passages by cosine, best first.

        Args:
            vector: float32 [dimension], of length 1.
            limit: hits at most.
            allowed: ids of the passages to search; None: all.

        Raises:
            InvalidInput: a vector of another dimension.
        """
        where, values = self._condition(allowed)
        bound = dict(values) | {"vector": vector_text(vector), "limit": limit}
        few = f"""SELECT count(*), (SELECT vector_dims(embedding) FROM vectors LIMIT 1)
            FROM (SELECT 1 FROM {JOINED} WHERE {where} LIMIT :most) AS fitting"""
        with self._store._read() as db:
            most = {"most": self._exact_limit + 1}
            count, dimension = db.execute(text(few), dict(values) | most).one()
            if not count:
                return []
            if vector.shape != (dimension,):
                raise InvalidInput(
                    f"a vector of shape {vector.shape} in an index of {dimension} values each"
                )
            if count > self._exact_limit and _graph(db, dimension) is not None:
                hits = _by_graph(db, dimension, where, bound)
                if len(hits) == limit:
                    return hits
            return _exact(db, where, bound)

    def _condition(self, allowed: Collection[int] | None) -> tuple[str, Mapping[str, Any]]:
        """Return the condition that passages are allowed, and its bound values."""
        if isinstance(allowed, Chosen):
            return allowed.where, allowed.values
        where, values = self._store._conditions(Filter(), self._store.now().timestamp())
        if allowed is None:
            return where, values
        return f"{where} AND p.id = ANY(:allowed)", values | {"allowed": list(allowed)}

    def vectors(self, passage_ids: Collection[int]) -> dict[int, Vector]:
        """Return the embeddings of these passages by id; a passage without one is missing."""
        sql = """SELECT passage_id, vector_send(embedding) AS embedding FROM vectors
            WHERE passage_id = ANY(:ids)"""
        with self._store._read() as db:
            rows = db.execute(text(sql), {"ids": list(passage_ids)}).all()
        return {row.passage_id: _normalised(vector_of(row.embedding)) for row in rows}

    def maintain(self) -> None:
        """Build the graph where there are more embeddings than exact search is meant for, and none
        is there. Search stays exact where that fails.
        """
        if self._store.read_only:
            return
        with self._store._read() as db:
            dimension = self._dimension_of_many(db)
            if dimension is None or _graph(db, dimension) is not None:
                return
        try:
            self._build(dimension)
        except StorageError as error:
            log.warning("searching exactly, because the index could not be built: %s", error)

    def rebuild(self) -> None:
        """Build the graph again, without deleted embeddings; remove it where there are few.

        Raises:
            StorageDenied: the role does not own the tables.
        """
        with self._store._read() as db:
            dimension = self._dimension_of_many(db)
            graphs = db.execute(text(GRAPHS)).scalars().all()
        for name in graphs:
            self._store._alone([f"DROP INDEX CONCURRENTLY IF EXISTS {SCHEMA}.{name}"])
        if dimension is not None:
            self._build(dimension)

    def _dimension_of_many(self, db: Connection) -> int | None:
        """Return the dimension of the embeddings where a graph is meant for so many, else None."""
        sql = """SELECT count(*), (SELECT vector_dims(embedding) FROM vectors LIMIT 1)
            FROM (SELECT 1 FROM vectors LIMIT :most) AS counted"""
        count, dimension = db.execute(text(sql), {"most": self._exact_limit + 1}).one()
        many = count > self._exact_limit and dimension <= LARGEST_DIMENSION
        return int(dimension) if many else None

    def _build(self, dimension: int) -> None:
        """Build the graph while others write, unless another process is building it. What a build
        that was cut off has left is removed first.
        """
        build = f"""CREATE INDEX CONCURRENTLY IF NOT EXISTS {_name(dimension)} ON {SCHEMA}.vectors
            USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops)
            WHERE vector_dims(embedding) = {dimension}"""
        name = _name(dimension)
        with self._store._read() as db:
            is_left = name in db.execute(text(GRAPHS)).scalars().all() and not _graph(db, dimension)
        drop = [f"DROP INDEX CONCURRENTLY IF EXISTS {SCHEMA}.{name}"] if is_left else []
        self._store._alone([*drop, build], lock=BUILDING)

    def erase(self) -> None:
        """Do nothing: the store's own erasure clears the graph of deleted embeddings too."""

    def describe(self) -> str:
        """Return the kind of search in use and its size, in words."""
        with self._store._read() as db:
            where, values = self._condition(None)
            sql = f"SELECT count(*) FROM {JOINED} WHERE {where}"
            count = db.execute(text(sql), values).scalar_one()
            graphs = db.execute(text(f"{GRAPHS} AND i.indisvalid")).scalars().all()
        is_used = count > self._exact_limit and graphs
        return f"{'pgvector hnsw' if is_used else 'pgvector, exact'}, {count} vectors"

    def at_work(self) -> bool:
        """Return False: there is no lock that a forked child would miss."""
        return False

    def leave(self) -> None:
        """Do nothing: there is no lock to replace."""


GRAPHS = f"""SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = '{SCHEMA}.vectors'::regclass AND c.relname LIKE 'by\\_meaning\\_%'"""


def _name(dimension: int) -> str:
    return f"by_meaning_{dimension}"


def _graph(db: Connection, dimension: int) -> str | None:
    """Return the name of the graph where it is complete, else None."""
    sql = f"{GRAPHS} AND i.indisvalid AND c.relname = :name"
    return db.execute(text(sql), {"name": _name(dimension)}).scalar()


def _exact(db: Connection, where: str, bound: Mapping[str, Any]) -> list[Hit]:
    """Compare every embedding that fits. "+ 0" keeps the graph out of it."""
    sql = f"""SELECT v.passage_id AS id, 1 - (v.embedding <=> CAST(:vector AS vector)) AS score
        FROM {JOINED} WHERE {where}
        ORDER BY (v.embedding <=> CAST(:vector AS vector)) + 0, v.passage_id LIMIT :limit"""
    return [Hit(row.id, float(row.score)) for row in db.execute(text(sql), bound)]


def _by_graph(db: Connection, dimension: int, where: str, bound: Mapping[str, Any]) -> list[Hit]:
    """Follow the graph to candidates that fit, and score those exactly."""
    candidates = min(max(2 * bound["limit"], FEWEST_CANDIDATES), MOST_CANDIDATES)
    # for this transaction alone; without sorting, only the graph gives the order
    prepare = """SELECT set_config('hnsw.iterative_scan', 'strict_order', true),
        set_config('hnsw.ef_search', :candidates, true), set_config('enable_sort', 'off', true)"""
    db.execute(text("SELECT CAST('[0]' AS vector)"))  # the settings exist once it is loaded
    db.execute(text(prepare), {"candidates": str(candidates)})
    near = f"CAST(v.embedding AS halfvec({dimension})) <=> CAST(:vector AS halfvec({dimension}))"
    sql = f"""SELECT v.passage_id AS id, 1 - (v.embedding <=> CAST(:vector AS vector)) AS score
        FROM {JOINED} WHERE vector_dims(v.embedding) = {dimension} AND {where}
        ORDER BY {near} LIMIT :candidates"""
    rows = db.execute(text(sql), dict(bound) | {"candidates": candidates}).all()
    best: Sequence[Any] = sorted(rows, key=lambda row: (-row.score, row.id))[: bound["limit"]]
    return [Hit(row.id, float(row.score)) for row in best]


def _normalised(vector: Vector) -> Vector:
    result: Vector = vector / np.maximum(np.linalg.norm(vector), 1e-12)
    return result
