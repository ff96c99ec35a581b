"""A check-up of one folder: what is damaged, what waits, and what to do about it. Repairs nothing itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from cmt_sdk.errors import StorageDamaged, StorageNewer
from cmt_sdk.storage.blob import unpack
from cmt_sdk.storage.connection import files_in
from cmt_sdk.storage.graph import sha256
from cmt_sdk.storage.rows import ALIVE
from cmt_sdk.types import Finding


def findings(db: Connection, folder: Path, now: float) -> Iterator[Finding]:
    """One finding a check, the good ones too; nothing is looked for in a damaged database."""
    yield _writable(folder)
    database = _database(db)
    yield database
    if database.ok:
        yield _index(db, folder)
        yield _texts(db)
        yield _full_text(db)
        yield _memories(db)
        yield _waiting(db, now)


def _writable(folder: Path) -> Finding:
    files = [folder, *files_in(folder)]
    refused = [f.name for f in files if not os.access(f, os.R_OK | os.W_OK)]
    detail = f"not readable and writable: {', '.join(refused)}" if refused else f"{len(files) - 1} files in {folder}"
    return Finding("files", not refused, detail, "give yourself the right to read and write them" if refused else "")


def _database(db: Connection) -> Finding:
    try:
        said = [str(row[0]) for row in db.exec_driver_sql("PRAGMA integrity_check(5)")]
        broken = db.exec_driver_sql("PRAGMA foreign_key_check").all()
    except DBAPIError as error:
        said, broken = [str(error.orig)], []
    well = said == ["ok"] and not broken
    detail = "intact" if well else "; ".join([*said, *(f"{r[0]} {r[1]} has no {r[2]}" for r in broken[:5])])
    return Finding("database", well, detail, "" if well else "export what can be read, then import it into a new memory")


def _texts(db: Connection) -> Finding:
    """A disk that lost a bit within a text is noticed by nothing else."""
    rows = db.execute(text("SELECT doc_id, CAST(text AS BLOB) AS text, content_hash FROM documents"))
    bad = [str(r.doc_id) for r in rows if hashlib.sha256(r.text).hexdigest() != r.content_hash]
    detail = f"not as they were stored: {', '.join(bad[:5])}" if bad else "as they were stored"
    return Finding("texts", not bad, detail, f"update these {len(bad)} documents from their sources" if bad else "")


def _full_text(db: Connection) -> Finding:
    missing = db.execute(text("SELECT count(*) FROM passages WHERE id NOT IN (SELECT rowid FROM passage_text)")).scalar_one()
    return Finding(
        "full-text search",
        missing == 0,
        f"{missing} passages are not in it" if missing else "holds every passage",
        "update or add their documents again" if missing else "",
    )


def _memories(db: Connection) -> Finding:
    count, bad = 0, []
    for row in db.execute(text("SELECT passage_id, data FROM memories")):
        count += 1
        try:
            unpack(row.data)
        except (StorageDamaged, StorageNewer) as error:
            bad.append(f"passage {row.passage_id}: {error}")
    detail = f"{len(bad)} of {count} cannot be read ({bad[0]})" if bad else f"{count} readable"
    return Finding("memories", not bad, detail, "nothing: they are made again when they are needed" if bad else "")


def _waiting(db: Connection, now: float) -> Finding:
    sql = f"""SELECT count(*) FROM waiting w JOIN passages p ON p.id = w.passage_id
        JOIN documents d ON d.key = p.document_key WHERE {ALIVE}"""
    waiting = db.execute(text(sql), {"now": now}).scalar_one()
    detail = f"{waiting} passages wait for it" if waiting else "nothing waits for it"
    return Finding("compression", True, detail, "cmt compress" if waiting else "")


def _index(db: Connection, folder: Path) -> Finding:
    row = db.execute(text("SELECT file, sha256, count FROM generation")).first()
    if row is None:
        return Finding("index", True, "none: search is exact")
    try:
        well = sha256(folder / row.file) == row.sha256
    except OSError as error:
        detail = f"{row.file} cannot be read ({error.strerror}): it is made again at the next search"
        return Finding("index", False, detail, "cmt reindex")
    detail = f"{row.file}, {row.count} vectors" if well else f"{row.file} is damaged: it is made again at the next search"
    return Finding("index", well, detail, "" if well else "cmt reindex")
