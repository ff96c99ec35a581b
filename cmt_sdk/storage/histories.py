"""Documents that come from another machine: matching them with those here, and adding their later
versions. Knows no archive.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from cmt_sdk.errors import DocumentNotFound
from cmt_sdk.storage.documents import Documents
from cmt_sdk.storage.rows import ALIVE, READY, document_of, stamp_of
from cmt_sdk.types import Document, Span, tail_of


class Histories(Documents):
    """Documents that share a history with those of another folder."""

    def related(self, versions: Sequence[Document]) -> list[Document]:
        """Return current documents that may be an archive's document under another id.

        They are in the scope of its last version, and either their text is that of one of
        `versions`, or one of their versions has such a text and their source is the same or ends in
        the same two names.

        Args:
            versions: the archive's document, oldest version first.
        """
        last = versions[-1]
        tail = tail_of(last.source)
        sql = f"""SELECT d.*, {READY} FROM documents d WHERE d.key IN (
            SELECT d.key FROM json_each(:hashes)
            CROSS JOIN documents o ON o.content_hash = value
            CROSS JOIN documents d ON d.doc_id = o.doc_id AND d.current
            WHERE {ALIVE} AND d.scope = :scope
            AND (o.current OR d.source IS :source OR substr(d.source, -length(:tail)) = :tail)
            ) ORDER BY d.key"""
        values = {
            "scope": last.scope,
            "source": last.source,
            "tail": tail,
            "hashes": json.dumps(
                sorted({self._row(version)["content_hash"] for version in versions})
            ),
            "now": self.now().timestamp(),
        }
        with self._read() as db:
            return [document_of(row) for row in db.execute(text(sql), values)]

    def extend_history(
        self, document_id: str, versions: Sequence[Document], spans: Sequence[Span] | None
    ) -> Document:
        """Append versions from an archive to a document; the last becomes the current one.

        The present version becomes an earlier one, unless the given last version has its number and
        text: then its fields change in place. Numbers and times are kept as given.

        Args:
            document_id: the document here.
            versions: oldest first; their numbers and times come after those here.
            spans: the passages of the last version; None keeps those of the current text.

        Raises:
            DocumentNotFound: no document has the id.
        """
        *earlier, last = (replace(version, id=document_id) for version in versions)
        with self._write() as db:
            sql = text("SELECT * FROM documents d WHERE doc_id = :id AND d.current")
            before = db.execute(sql, {"id": document_id}).first()
            if before is None:
                raise DocumentNotFound.of(document_id)
            known = self._current(db, document_id)
            if last.text != known.text:
                # this keeps `before` as a version
                self._replaced(db, known, {"text": last.text}, spans)
            elif last.version != known.version:
                self._overwrite(db, self._dated(replace(last, id=document_id)), before)
                self._insert(db, before._asdict(), False)
            if last.text == known.text and spans is not None:
                self._update_passages(db, before.key, known.text, last.text, spans)
            self._overwrite(db, self._dated(last), db.execute(sql, {"id": document_id}).one())
            for version in earlier:
                self._insert(db, self._dated(version), False)
            return self._current(db, document_id)

    def _dated(self, version: Document) -> dict[str, Any]:
        """Return the row of a version with its own time of update."""
        return self._row(version) | {"updated_at": stamp_of(version.updated_at or self.now())}
