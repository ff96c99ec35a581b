"""PostgresStore: documents, passages, compressed passages and embeddings in a Postgres database."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from cmt_sdk.errors import InvalidInput
from cmt_sdk.storage import checks
from cmt_sdk.storage.copies import MOST, noted
from cmt_sdk.storage.postgres.documents import PostgresDocuments
from cmt_sdk.storage.postgres.errors import translated
from cmt_sdk.storage.postgres.full_text import PostgresFullText
from cmt_sdk.storage.postgres.passages import PostgresPassages
from cmt_sdk.storage.postgres.schema import REVISIONS, SCHEMA
from cmt_sdk.storage.rows import ALIVE
from cmt_sdk.types import CheckResult, Document, Stats

TABLES = ("documents", "passages", "vectors", "memories", "waiting")
LOOK_AGAIN_S = 0.05


class PostgresStore(PostgresDocuments, PostgresPassages, PostgresFullText):
    """The store of one database, or of a scope in it. Safe to use from several threads and
    processes, on several machines.

    Implements ports.Store. PostgresIndex searches its embeddings.
    """

    def stats(self) -> Stats:
        """Return the store in numbers. Expired documents are not counted; their passages are not
        pending. The bytes of the tables are those of all scopes.
        """
        sizes = " + ".join(f"pg_total_relation_size('{SCHEMA}.{table}')" for table in TABLES)
        sql = f"""SELECT (SELECT count(*) FROM documents d WHERE {ALIVE}) AS documents,
            (SELECT count(*) FROM documents) AS versions,
            (SELECT count(*) FROM passages) AS passages,
            (SELECT count(*) FROM waiting w JOIN passages p ON p.id = w.passage_id
                JOIN documents d ON d.key = p.document_key WHERE {ALIVE}) AS pending,
            (SELECT count(*) FROM memories) AS compressed,
            (SELECT count(*) FROM vectors v WHERE NOT EXISTS
                (SELECT 1 FROM memories m WHERE m.passage_id = v.passage_id)) AS cold,
            (SELECT coalesce(sum(tokens), 0) FROM passages) AS tokens,
            (SELECT coalesce(sum(octet_length(text)), 0) FROM documents d
                WHERE {ALIVE}) AS text_bytes,
            (SELECT coalesce(sum(bytes), 0) FROM memories) AS memory_bytes, {sizes} AS file_bytes"""
        with self._read() as db:
            row = db.execute(text(sql), {"now": self.now().timestamp()}).one()
        return Stats(**row._mapping, index="", model="")

    def _alone(self, statements: Sequence[str], *, lock: int | None = None) -> None:
        """Run statements that no transaction may hold, such as VACUUM.

        Nothing is run where another connection holds the lock of the given number.
        """
        self._refuse_read_only()
        with translated(self.place), self._pool.connect() as borrowed:
            db = borrowed.execution_options(isolation_level="AUTOCOMMIT")
            if lock is not None and not _taken(db, lock):
                return
            try:
                for statement in statements:
                    db.exec_driver_sql(statement)
            finally:
                if lock is not None:
                    db.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": lock})

    def erase(self, wait: float) -> bool:
        """Vacuum the tables, so that what was deleted is in no row, index or TOAST chunk.

        The freed bytes are used again by later rows. Until then they stay in the files of the
        server, as in its log, replicas and backups: docs/postgres.md says what erases those.

        Args:
            wait: seconds to wait for other transactions that still see the old state.

        Returns:
            False where one does, or where this role may not vacuum: rows are left then.
        """
        self._refuse_read_only()
        until = time.monotonic() + wait
        with translated(self.place), self._pool.connect() as borrowed:
            db = borrowed.execution_options(isolation_level="AUTOCOMMIT")
            own = f"""SELECT pg_has_role(relowner, 'USAGE') FROM pg_class
                WHERE oid = '{SCHEMA}.documents'::regclass"""
            if not db.execute(text(own)).scalar():
                return False
            # later than every deletion so far
            mine = db.execute(text("SELECT CAST(pg_current_xact_id()::xid AS text)")).scalar_one()
            while (seen := _is_seen(db, mine)) and time.monotonic() < until:
                time.sleep(LOOK_AGAIN_S)
            for table in TABLES:
                db.exec_driver_sql(f"VACUUM (INDEX_CLEANUP ON) {SCHEMA}.{table}")
        return not seen

    def find_traces(self, removed: Sequence[Document]) -> tuple[list[str], int]:
        """Count the rows that are left of deleted documents.

        Returns:
            The names of the tables searched, and how many rows were found. The files of the server
            cannot be searched from here.
        """
        gone = [{"id": d.id, "version": d.version} for d in removed]
        # a passage, vector or compressed passage cannot be without its document: foreign keys
        sql = """SELECT count(*) FROM documents d
            JOIN jsonb_to_recordset(CAST(:gone AS jsonb)) AS g (id text, version integer)
                ON d.doc_id = g.id AND d.version = g.version"""
        with self._read() as db:
            left = db.execute(text(sql), {"gone": json.dumps(gone)}).scalar_one()
        return [f"table {SCHEMA}.{table}" for table in TABLES], int(left)

    def check(self) -> Sequence[CheckResult]:
        """Check the rows and compressed passages; return one result per check. What the server
        itself checks (`pg_amcheck`, data checksums) is left to it.
        """
        with self._read() as db:
            return list(self._findings(db))

    def _findings(self, db: Connection) -> Iterator[CheckResult]:
        versions = """SELECT current_setting('server_version') AS server, extversion AS pgvector
            FROM pg_extension WHERE extname = 'vector'"""
        found = db.execute(text(versions)).one()
        detail = f"Postgres {found.server}, pgvector {found.pgvector}, schema {REVISIONS[-1]}"
        yield CheckResult("database", True, f"{self.place}: {detail}")
        yield checks.texts(db, "convert_to(text, 'UTF8')")
        yield checks.records(db)
        for check in checks.CHECKS:
            if check.name in ("metadata", "passages", "fingerprints"):
                bad = check.find(db)
                detail = f"{len(bad)} {check.wrong}: {', '.join(bad[:3])}" if bad else check.well
                yield CheckResult(check.name, not bad, detail, "restore a backup" if bad else "")
        yield checks.memories(db, "data")
        yield from self._object_findings(db)
        yield checks.pending(db, self.now().timestamp())

    def back_up(self, target: Path, *, overwrite: bool = False) -> Path:  # noqa: ARG002
        """Raise InvalidInput: the server's own tools copy a database."""
        raise InvalidInput(
            f"{self.place} is backed up by its server: pg_dump --schema={SCHEMA}"
            " (docs/postgres.md); Memory.export, `cmt export`, writes an archive of this memory,"
            f" such as {target}.cmt"
        )

    def note_copy(self, place: Path | str) -> None:
        """Record that a copy of the memory was made at a path of this machine, or at the address of
        a database.
        """
        copy = f"{platform.node()}:{place.absolute()}" if isinstance(place, Path) else place
        with self._write() as db:
            known = [name for name in noted(db) if name != copy]
            self._set(db, "copies", json.dumps([*known, copy][-MOST:]))

    def copies(self) -> Sequence[str]:
        """Return the copies that were recorded, as machine:path; those of other machines cannot be
        looked for.
        """
        here = f"{platform.node()}:"
        with self._read() as db:
            names = noted(db)
        return [
            name
            for name in names
            if not name.startswith(here) or Path(name.removeprefix(here)).exists()
        ]


def _taken(db: Connection, lock: int) -> bool:
    return bool(db.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": lock}).scalar())


def _is_seen(db: Connection, transaction: str) -> bool:
    """Return whether another transaction still sees what was deleted before this one."""
    sql = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL
        AND age(backend_xmin) > age(CAST(:transaction AS xid))"""
    return bool(db.execute(text(sql), {"transaction": transaction}).scalar_one())
