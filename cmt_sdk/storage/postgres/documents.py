"""The rows of documents and passages in Postgres, where they differ from SQLite's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, text

from cmt_sdk.errors import InvalidDocument
from cmt_sdk.storage.connection import chunks
from cmt_sdk.storage.histories import Histories
from cmt_sdk.storage.postgres.connection import LONGEST_KEY, Server
from cmt_sdk.storage.postgres.words import indexed_rows
from cmt_sdk.storage.rows import ALIVE, READY
from cmt_sdk.types import Document, Span, tail_of


class PostgresDocuments(Histories, Server):
    """The documents of one database."""

    def _row(self, document: Document, hashed: str | None = None) -> dict[str, Any]:
        row = super()._row(document, hashed)
        for name in ("doc_id", "scope"):
            if len(row[name]) > LONGEST_KEY:
                raise InvalidDocument(
                    f"{name.removeprefix('doc_')} {row[name]!r:.60}… has {len(row[name]):,}"
                    f" characters, the limit in Postgres is {LONGEST_KEY}: shorten it"
                )
        return row

    def _insert_passages(
        self, db: Connection, key: int, body: str, spans: Iterable[tuple[int, Span]]
    ) -> None:
        given = list(spans)
        if not given:
            return
        scope = text("SELECT scope FROM documents WHERE key = :key")
        own = {"key": key, "scope": db.execute(scope, {"key": key}).scalar_one()}
        words = indexed_rows(db, [f"{s.heading}\n{body[s.start : s.end]}" for _, s in given])
        sql = """WITH made AS (INSERT INTO passages (document_key, scope, ordinal, start, "end",
                tokens, heading, words, word_count, form_count)
            VALUES (:key, :scope, :ordinal, :start, :stop, :tokens, :heading,
                CAST(:words AS tsvector), :word_count, :form_count) RETURNING id)
            INSERT INTO waiting (passage_id) SELECT id FROM made"""
        rows = [
            own
            | {"ordinal": ordinal, "start": span.start, "stop": span.end}
            | {"tokens": span.tokens, "heading": span.heading}
            | {"words": found.words, "word_count": found.count, "form_count": found.forms}
            for (ordinal, span), found in zip(given, words, strict=True)
        ]
        db.execute(text(sql), rows)

    def _drop_passages(self, db: Connection, ids: Sequence[int]) -> None:
        """Delete passages; what belongs to them goes with them."""
        for some in chunks(ids):
            db.exec_driver_sql(f"DELETE FROM passages WHERE id IN ({some})")

    def related(self, versions: Sequence[Document]) -> list[Document]:
        """Return current documents that may be an archive's document under another id, as SQLite's
        store does.
        """
        last = versions[-1]
        sql = f"""SELECT d.*, {READY} FROM documents d WHERE d.key IN (
            SELECT d.key FROM documents o JOIN documents d ON d.doc_id = o.doc_id AND d.current
            WHERE o.content_hash IN (SELECT jsonb_array_elements_text(CAST(:hashes AS jsonb)))
            AND {ALIVE} AND d.scope = :scope
            AND (o.current OR d.source IS NOT DISTINCT FROM CAST(:source AS text)
                OR right(d.source, length(:tail)) = :tail)
            ) ORDER BY d.key"""
        values = {
            "scope": self._stored_scope(last.scope),
            "source": last.source,
            "tail": tail_of(last.source),
            "hashes": json.dumps(
                sorted({self._row(version)["content_hash"] for version in versions})
            ),
            "now": self.now().timestamp(),
        }
        with self._read() as db:
            return [self._document(row) for row in db.execute(text(sql), values)]
