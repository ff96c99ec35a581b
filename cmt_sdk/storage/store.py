"""SQLiteStore: one folder's documents, passages, compressed passages and embeddings, in SQLite."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, text

from cmt_sdk.errors import StorageDamaged, StorageDenied, StorageFull, StorageLocked
from cmt_sdk.storage import driver
from cmt_sdk.storage.backup import back_up
from cmt_sdk.storage.checks import REPAIR, findings
from cmt_sdk.storage.connection import chunks
from cmt_sdk.storage.copies import Copies
from cmt_sdk.storage.disk_errors import translated
from cmt_sdk.storage.driver import files_in
from cmt_sdk.storage.erasure import erase, traces_of
from cmt_sdk.storage.full_text import FullText
from cmt_sdk.storage.histories import Histories
from cmt_sdk.storage.objects import ROW as OBJECTS
from cmt_sdk.storage.passages import Passages
from cmt_sdk.storage.references import SIZE
from cmt_sdk.storage.rows import ALIVE
from cmt_sdk.storage.schema import WORD_TABLES
from cmt_sdk.storage.work_locks import claimed
from cmt_sdk.types import CheckResult, Document, Stats
from cmt_sdk.types.vectors import ChangeCounters, Generation, VectorRows

log = logging.getLogger(__name__)

READ_TOGETHER = 16  # objects that a backup holds in RAM together
LIVE = f"""vectors v JOIN passages p ON p.id = v.passage_id
    JOIN documents d ON d.key = p.document_key WHERE {ALIVE}"""


class SQLiteStore(Histories, Passages, FullText, Copies):
    """The store of one folder. Safe to use from several threads and processes.

    Implements ports.Store and ports.VectorStore.
    """

    def check(self) -> Sequence[CheckResult]:
        """Check files, database, index and compressed passages; return one result per check."""
        with self._read() as db:
            found = [*findings(db, self._folder, self.now().timestamp()), *self._encryption()]
            if all(f.ok for f in found if f.check == "database"):
                found += self._object_findings(db)
        if (
            all(f.ok for f in found if f.check in ("database", "full-text search"))
            and not self.fts_is_consistent()
        ):
            damaged = CheckResult("full-text search", False, "its index is damaged", REPAIR)
            found = [damaged if f.check == damaged.check else f for f in found]
        return found

    def _encryption(self) -> Iterator[CheckResult]:
        if self._key is not None:
            yield CheckResult("encryption", True, f"encrypted with the key in {self._key.origin}")

    def fts_is_consistent(self) -> bool:
        """Return whether the full-text index is consistent: FTS5's integrity-check
        command (sqlite.org/fts5.html). True, unchecked, while another process writes.
        """
        try:
            with self._write_if_free() as db:
                for table in WORD_TABLES:
                    db.exec_driver_sql(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")
        except StorageDamaged:
            return False
        except (StorageLocked, StorageDenied, StorageFull) as error:
            log.info("the full-text index was not checked: %s", error)
        return True

    def back_up(self, target: Path, *, overwrite: bool = False) -> Path:
        """Copy the database as of one moment, while others write; return the copied file.

        Args:
            target: a file *.db, else a folder.
            overwrite: replace an existing file.

        Raises:
            AlreadyExists: the target exists.
            StorageFull, StorageDenied: the target cannot be written.
            InvalidInput: the target is a file of an open memory.
        """
        return back_up(
            self._folder,
            target,
            self._key,
            overwrite=overwrite,
            read_only=self.read_only,
            complete=self._bring_objects,
        )

    def _bring_objects(self, copy: driver.Connection) -> None:
        """Put the compressed passages that are objects into the rows of a copy, which then needs
        none. One whose object is damaged is left out, and made again when it is needed.
        """
        if not self._has_objects(copy):
            return
        copy.execute("BEGIN")
        references = f"SELECT passage_id FROM memories WHERE length(data) = {SIZE}"
        ids = [row[0] for row in copy.execute(references).fetchall()]
        for first in range(0, len(ids), READ_TOGETHER):
            some = ", ".join(map(str, ids[first : first + READ_TOGETHER]))
            sql = f"SELECT passage_id, data FROM memories WHERE passage_id IN ({some})"
            stored = dict(copy.execute(sql).fetchall())
            bodies = self._bodies(stored)
            for passage in stored:
                if passage in bodies:
                    row = (bodies[passage], passage)
                    copy.execute("UPDATE memories SET data = ? WHERE passage_id = ?", row)
                else:
                    copy.execute("DELETE FROM memories WHERE passage_id = ?", (passage,))
        copy.execute("DELETE FROM objects")
        # a copy that is opened puts objects into a folder of its own
        copy.execute("DELETE FROM settings WHERE name = ?", (OBJECTS,))
        copy.execute("COMMIT")

    @staticmethod
    def _has_objects(copy: driver.Connection) -> bool:
        recorded = "SELECT 1 FROM settings WHERE name = ?"
        return copy.execute(recorded, (OBJECTS,)).fetchone() is not None

    def erase(self, wait: float) -> bool:
        """Erase deleted content from the database file and its log.

        Args:
            wait: seconds to wait for another process that writes.

        Returns:
            False where another process still reads the old state: bytes are left.

        Raises:
            StorageLocked: another process writes for longer.
        """
        with translated(self._folder):
            return erase(self._file, self._key, wait)

    def find_traces(self, removed: Sequence[Document]) -> tuple[list[str], int]:
        """Search every byte of every file for deleted content.

        Returns:
            The names of the files searched, and how many traces were found.
        """
        with translated(self._folder):
            return traces_of(removed, self._folder, self._key)

    @contextmanager
    def claimed(self, passage_ids: Sequence[int], most: int) -> Iterator[list[int]]:
        """Claim the first `most` of these passages that are still pending and that no other process
        encodes.

        The claim ends with the block or the process. It is advisory: where the file system has no
        locks, two processes can claim the same passage.
        """
        with claimed(self._folder, passage_ids, most) as mine:
            still = set[int]()
            with self._read() as db:
                for some in chunks(mine):
                    found = db.exec_driver_sql(
                        f"SELECT passage_id FROM waiting WHERE passage_id IN ({some})"
                    )
                    still |= set(found.scalars())
            yield [i for i in mine if i in still]

    def stats(self) -> Stats:
        """Return the store in numbers. Expired documents are not counted; their passages are not
        pending.
        """
        sql = f"""SELECT (SELECT count(*) FROM documents d WHERE {ALIVE}) AS documents,
            (SELECT count(*) FROM documents) AS versions, (SELECT count(*)
                FROM passages) AS passages,
            (SELECT count(*) FROM waiting w JOIN passages p ON p.id = w.passage_id
                JOIN documents d ON d.key = p.document_key WHERE {ALIVE}) AS pending,
            (SELECT count(*) FROM memories) AS compressed,
            (SELECT count(*) FROM vectors v WHERE NOT EXISTS
                (SELECT 1 FROM memories m WHERE m.passage_id = v.passage_id)) AS cold,
            (SELECT coalesce(sum(tokens), 0) FROM passages) AS tokens,
            (SELECT coalesce(sum(length(CAST(text AS BLOB))), 0) FROM documents d
                WHERE {ALIVE}) AS text_bytes,
            (SELECT coalesce(sum(bytes), 0) FROM memories) AS memory_bytes"""
        with self._read() as db:
            row = db.execute(text(sql), {"now": self.now().timestamp()}).one()
            files = sum(files_in(self._folder).values())
        return Stats(**row._mapping, file_bytes=files, index="", model="")

    def vectors(self, since: ChangeCounters) -> VectorRows:
        """Return what the set has gained and lost since `since`; a label is never used again."""
        sql = (
            f"SELECT v.label, v.passage_id, v.key FROM {LIVE} AND v.label > :after ORDER BY v.label"
        )
        now = {"now": self.now().timestamp()}
        with self._read() as db:
            changes = self._changes(db, now)
            rows = db.execute(text(sql), now | {"after": since.gained}).all()
            every = (
                None
                if changes.lost == since.lost
                else db.execute(text(f"SELECT v.label FROM {LIVE}"), now).scalars()
            )
            live = None if every is None else set(every)
        if len({len(r.key) for r in rows}) > 1:
            raise StorageDamaged(
                f"the embeddings in {self._folder} differ in length: `cmt reencode` makes them"
                " again"
            )
        matrix = (
            np.frombuffer(b"".join(r.key for r in rows), "<f4")
            .astype(np.float32)
            .reshape(len(rows), -1 if rows else 0)
        )
        return VectorRows(
            changes, [r.label for r in rows], [r.passage_id for r in rows], matrix, live
        )

    def alive(self) -> int:
        """Return how many embeddings the set holds."""
        with self._read() as db:
            return int(
                db.execute(
                    text(f"SELECT count(*) FROM {LIVE}"), {"now": self.now().timestamp()}
                ).scalar_one()
            )

    def change_counters(self) -> ChangeCounters:
        """Return what has changed in the set of embeddings, by whichever process; cheap."""
        with self._read() as db:
            return self._changes(db, {"now": self.now().timestamp()})

    @staticmethod
    def _changes(db: Connection, now: Mapping[str, float]) -> ChangeCounters:
        """Read how often the set has gained and lost. Deleted and expired documents both take
        vectors out of it.
        """
        sql = """SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'vectors') AS gained,
            (SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'changes') AS deleted,
            (SELECT count(*) FROM documents WHERE current AND expires_at <= :now) AS expired"""
        row = db.execute(text(sql), now).one()
        return ChangeCounters(
            int(row.gained or 0), (int(row.deleted or 0) << 32) + int(row.expired)
        )

    def generation(self) -> Generation | None:
        """Return the index file that the database trusts; None: there is none."""
        sql = "SELECT number, file, sha256, dimension, space, count, last_label FROM generation"
        with self._read() as db:
            row = db.execute(text(sql)).first()
        return None if row is None else Generation(**row._mapping)

    def set_generation(self, generation: Generation | None) -> bool:
        """Make this index file the trusted one; None: none is.

        Returns:
            False, and nothing changes, where the file holds embeddings that were deleted since.
        """
        sql = (
            "INSERT INTO generation VALUES (1, :number, :file, :sha256, :dimension, :space, :count,"
            " :last_label)"
        )
        # a file holds all vectors that were live: one that died since makes this number smaller
        alive = f"SELECT count(*) FROM {LIVE} AND v.label <= :last"
        with self._write() as db:
            if generation is not None:
                values = {"last": generation.last_label, "now": self.now().timestamp()}
                if db.execute(text(alive), values).scalar_one() != generation.count:
                    return False
            db.execute(text("DELETE FROM generation"))
            if generation is not None:
                db.execute(text(sql), asdict(generation))
        return True
