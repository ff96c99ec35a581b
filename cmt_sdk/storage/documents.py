"""Documents and their versions in the database: adding, changing, listing, deleting, erasing."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from cmt_sdk.errors import DocumentNotFound, InvalidDocument, InvalidInput
from cmt_sdk.ports import Known, Split
from cmt_sdk.storage.checks import ids_without_passages
from cmt_sdk.storage.connection import chunks
from cmt_sdk.storage.document_rows import DocumentRows, content_hash
from cmt_sdk.storage.kept_out import KeptOut
from cmt_sdk.storage.rows import ALIVE, READY, sound_text, stamp_of
from cmt_sdk.types import Document, Filter, Outcome, Page, Removed, Span

LARGEST_PAGE = 2**31
# creation time and key
CURSOR = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?)/([0-9]{1,18})")


class Documents(DocumentRows, KeptOut):
    """The documents of one memory. Every change is durable when its call returns."""

    def find_known(self, document: Document, *, by_source: bool = False) -> Known:
        """Find the stored document that a given one stands for, and compute what `add` needs.

        Reads only: another process can change the store before `add`, which therefore looks again.

        Args:
            document: the document that is about to be added.
            by_source: as in `add`.

        Raises:
            InvalidDocument: a field that the database cannot hold.
            StorageDenied: the store is read-only, so nothing can be added.
        """
        self._refuse_read_only()
        hashed = self._row(document)["content_hash"]
        with self._read() as db:
            known = self._known(db, document, hashed, by_source)
        return Known(hashed, known, None if known is None else _merged(known, document, by_source))

    def add(
        self,
        document: Document,
        spans: Sequence[Span] | None = None,
        *,
        by_source: bool = False,
        split: Split | None = None,
        known: Known | None = None,
    ) -> tuple[Document, Outcome]:
        """Store a document in one transaction.

        A text that the same scope has already stays one document. The given fields replace its
        own, metadata key by key; its source stays. Without `by_source`, its time of update becomes
        the present even where nothing else changes.

        Args:
            document: the document; without an id it gets one.
            spans: its passages, in order. `split` takes their place where it is given.
            by_source: a document with a source is known by its id, else by its scope and source,
                whatever its text: another text becomes the next version, and a document of the
                given id takes the given source.
            split: gives the passages of a new or changed document. It runs inside the transaction;
                an exception that it raises rolls the transaction back. Passages of the same content
                keep their memory and embedding.
            known: the result of `find_known` for this document; saves hashing its text again.

        Returns:
            The document as stored, and whether it was added, updated or unchanged.

        Raises:
            AlreadyExists: another text has the id.
            InvalidDocument: a field that the database cannot hold.
        """
        hashed = content_hash(document.text) if known is None else known.content_hash
        row = self._row(replace(document, id=document.id or uuid.uuid4().hex, version=1), hashed)
        with self._write_in(document.scope) as db:
            found = self._known(db, document, hashed, by_source)
            if found is None:
                self._make_free(db, row["doc_id"])
                new = spans if split is None else split(None, document)
                assert new is not None  # noqa: S101 - a new document has passages
                self._insert_document(db, row, new)
                return self._current(db, row["doc_id"]), "added"
            merged = _merged(found, document, by_source)
            changes = {name: getattr(merged, name) for name in MERGED}
            if merged == found:
                if by_source:  # reading a file again does not change updated_at
                    return found, "unchanged"
                return self._replaced(db, found, {}, hashed=hashed), "unchanged"
            if found.text == document.text:
                spans = None
            return self._replaced(db, found, changes, spans, split, hashed), "updated"

    def add_together(self, documents: Sequence[tuple[Document, Sequence[Span]]]) -> None:
        """Store documents with ids of their own, each with its passages, in one transaction.

        A text that is stored already becomes another document.

        Raises:
            AlreadyExists: a living document has one of the ids; none is stored then.
        """
        rows = [self._row(replace(document, version=1)) for document, _ in documents]
        with self._write() as db:
            for row, (_, spans) in zip(rows, documents, strict=True):
                self._make_free(db, row["doc_id"])
                self._insert_document(db, row, spans)

    def restore(self, versions: Sequence[Document], spans: Sequence[Span]) -> tuple[Document, bool]:
        """Store a document from an archive with all its versions.

        Ids, version numbers and times are kept as given.

        Args:
            versions: oldest first; the last one is current.
            spans: the passages of the last version.

        Returns:
            The document, and False where the id has the same text in the same scope already: that
            document is returned unchanged.

        Raises:
            AlreadyExists: another text has the id.
        """
        last = versions[-1]
        rows = [
            self._row(v) | {"updated_at": stamp_of(v.updated_at or self.now())} for v in versions
        ]
        with self._write() as db:
            same = self._same(db, last, rows[-1]["content_hash"], extra="AND doc_id = :doc_id")
            if same is not None:
                return same, False
            self._make_free(db, last.id)
            for row in rows[:-1]:
                self._insert(db, row, False)
            self._insert_document(db, rows[-1], spans)
            return self._current(db, last.id), True

    def replace(
        self,
        document_id: str,
        changes: Mapping[str, Any],
        spans: Sequence[Span] | None = None,
        *,
        split: Split | None = None,
    ) -> Document:
        """Change fields of the current version in place; another `text` becomes the next version.

        Updating by id accepts the current contents: the record hashes of all versions are computed
        again. Passages of the same content keep their memory and embedding.

        Args:
            document_id: the document.
            changes: the fields to change, and their values.
            spans: its passages, where `split` is None; None keeps those it has.
            split: gives its passages; runs inside the transaction.

        Raises:
            DocumentNotFound: no living document has the id.
            InvalidDocument: a field that the database cannot hold.
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
            changed = self._replaced(db, self._document(row), changes, spans, split)
            self._seal(db, document_id)
        return changed

    def documents_without_passages(self) -> list[Document]:
        """Return current documents that lost passages to damage."""
        with self._read() as db:
            return [self._current(db, name) for name in ids_without_passages(db)]

    def replace_passages(self, document: Document, spans: Sequence[Span]) -> bool:
        """Give a document other passages.

        Passages of the same content keep their memory and embedding.

        Returns:
            False, and nothing changes, where the document is gone or no longer as given.
        """
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id AND d.current"
        with self._write() as db:
            row = db.execute(text(sql), {"id": document.id}).first()
            if row is None or _split_input(self._document(row)) != _split_input(document):
                return False
            self._update_passages(db, row.key, document.text, document.text, spans)
        return True

    def history(self, document_id: str) -> list[Document]:
        """Return every version of a document, oldest first; empty for an unknown id."""
        sql = f"SELECT d.*, {READY} FROM documents d WHERE doc_id = :id ORDER BY version"
        with self._read() as db:
            return [
                self._document(row)
                for row in db.execute(
                    text(sql), {"id": sound_text("id", document_id, InvalidDocument)}
                )
            ]

    def page(self, filter: Filter, limit: int, cursor: str | None) -> Page:
        """Return documents in order of creation.

        Args:
            filter: which documents.
            limit: documents per page.
            cursor: the `next_cursor` of the page before; None: the first page.

        Raises:
            InvalidInput: a limit or cursor that cannot be.
        """
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidInput(f"limit={limit}: ask for 1 to {LARGEST_PAGE:,} documents a page")
        where, values = self._conditions(filter, self.now().timestamp())
        sql = (
            f"SELECT d.*, {READY} FROM documents d WHERE {where} AND (d.created_at, d.key) >"
            " (:time, :key) ORDER BY d.created_at, d.key LIMIT :limit"
        )
        with self._read() as db:
            rows = db.execute(text(sql), values | _after(cursor) | {"limit": limit + 1}).all()
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(
            [self._document(r) for r in rows],
            f"{rows[-1].created_at!r}/{rows[-1].key}" if more else None,
        )

    def ids(self, prefix: str) -> list[str]:
        """Return the ids of current documents that begin with `prefix`, sorted."""
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
        """Return how many documents fit a filter."""
        where, values = self._conditions(filter, self.now().timestamp())
        with self._read() as db:
            return int(
                db.execute(
                    text(f"SELECT count(*) FROM documents d WHERE {where}"), values
                ).scalar_one()
            )

    def delete(self, filter: Filter, *, erase: bool = False) -> Removed:
        """Delete the documents that fit with all their versions, and single earlier versions that
        fit.

        Args:
            filter: which documents.
            erase: also record, in the same transaction, that the files have to be rewritten, and
                that the documents were forgotten: no copy brings them back.
        """
        where, values = self._conditions(replace(filter, history=True), -math.inf)
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
                self._set(db, "erasure", uuid.uuid4().hex)
                self._note_forgotten(db, [r.doc_id for r in rows if r.current])
        return Removed([self._gone(r) for r in rows], passages)

    def erasure_due(self) -> str | None:
        """Return the name of the deletion whose bytes are still to be erased; None where there is
        none.
        """
        with self._read() as db:
            return db.execute(text("SELECT value FROM settings WHERE name = 'erasure'")).scalar()

    def erased(self, due: str) -> None:
        """Record that the erasure of this name is complete. Nothing changes where a later deletion
        is due.
        """
        with self._write() as db:
            db.execute(
                text("DELETE FROM settings WHERE name = 'erasure' AND value = :name"), {"name": due}
            )


MERGED = ("text", "source", "metadata", "expires_at")


def _merged(known: Document, given: Document, by_source: bool) -> Document:
    """Return a known document after it is added again, as `given`.

    Metadata is merged key by key. Only with `by_source` a new source replaces the known one.
    """
    source = given.source or known.source if by_source else known.source or given.source
    return replace(
        known,
        text=given.text,
        source=source,
        metadata={**known.metadata, **given.metadata},
        expires_at=given.expires_at or known.expires_at,
    )


def _split_input(document: Document) -> tuple[object, ...]:
    """Return the fields that a document's passages depend on: its text and what may title it."""
    return document.version, document.text, document.source, dict(document.metadata)


def _after(cursor: str | None) -> dict[str, float]:
    """Return where a page begins. Raises InvalidInput for a cursor that `page` did not return."""
    if cursor is None:
        return {"time": -math.inf, "key": 0}
    found = CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidInput(f"cursor {cursor!r:.60}: give the next_cursor of an earlier page")
    return {"time": float(found[1]), "key": int(found[2])}
