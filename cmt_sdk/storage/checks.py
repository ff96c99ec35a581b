"""The checks of one folder: they report what is damaged or pending, and the remedy. They repair
nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from cmt_sdk.errors import StorageDamaged, StorageNewer
from cmt_sdk.storage import copies
from cmt_sdk.storage.blob import unpack
from cmt_sdk.storage.driver import files_in
from cmt_sdk.storage.kept_out import parse_kept_out
from cmt_sdk.storage.references import Reference
from cmt_sdk.storage.rows import ALIVE, RECORD, fingerprint_of, record_hash
from cmt_sdk.storage.schema import WORD_TABLES
from cmt_sdk.system.disk import sha256_of
from cmt_sdk.types import CheckResult

REPAIR = "cmt check --repair"
TEXT_BYTES = "CAST(text AS BLOB)"
DATA_BYTES = "coalesce(CAST(data AS BLOB), x'')"
YEARS = "BETWEEN -62135596800 AND 253402300799"  # 1 to 9999, in seconds since 1970
IN_TIME = (
    f"coalesce(created_at, 1e18) {YEARS}",
    f"coalesce(updated_at, 1e18) {YEARS}",
    f"coalesce(expires_at, 0) {YEARS}",
)


def findings(db: Connection, folder: Path, now: float) -> Iterator[CheckResult]:
    """Yield one result per check, including those that pass. In a damaged database the remaining
    checks are skipped.
    """
    yield _writable(folder)
    database = _database(db)
    yield database
    if database.ok:
        yield index_state(db, folder)
        yield texts(db)
        yield records(db)
        for check in CHECKS:
            bad = check.find(db)
            detail = f"{len(bad)} {check.wrong}: {', '.join(bad[:3])}" if bad else check.well
            yield CheckResult(check.name, not bad, detail, REPAIR if bad else "")
        yield memories(db)
        yield pending(db, now)
        yield copies.finding(db, folder)


def _writable(folder: Path) -> CheckResult:
    """Check that the files can be read, and written unless the medium is read-only."""
    files = [folder, *files_in(folder)]
    if _on_read_only_medium(folder) and all(os.access(f, os.R_OK) for f in files):
        return CheckResult(
            "files", True, f"{len(files) - 1} files in {folder}, on a read-only medium"
        )
    refused = [f.name for f in files if not os.access(f, os.R_OK | os.W_OK)]
    detail = (
        f"not readable and writable: {', '.join(refused)}"
        if refused
        else f"{len(files) - 1} files in {folder}"
    )
    return CheckResult(
        "files",
        not refused,
        detail,
        "give yourself the right to read and write them" if refused else "",
    )


def _on_read_only_medium(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _database(db: Connection) -> CheckResult:
    """Run PRAGMA integrity_check (sqlite.org/pragma.html)."""
    try:
        faults = [str(row[0]) for row in db.exec_driver_sql("PRAGMA integrity_check(5)")]
    except DBAPIError as error:
        faults = [str(error.orig)]
    well = faults == ["ok"]
    return CheckResult(
        "database", well, "intact" if well else "; ".join(faults), "" if well else REPAIR
    )


def texts(db: Connection, body: str = TEXT_BYTES) -> CheckResult:
    """Check the texts against their hashes: no other check notices a bit that the disk lost."""
    bad = changed_texts(db, body)
    detail = f"not as they were stored: {', '.join(bad[:5])}" if bad else "as they were stored"
    return CheckResult(
        "texts",
        not bad,
        detail,
        f"update these {len(bad)} documents from their sources" if bad else "",
    )


def changed_texts(db: Connection, body: str = TEXT_BYTES) -> list[str]:
    """Return the ids of documents whose text differs from the hash that was stored with it; `body`
    gives the bytes of a text in SQL.
    """
    rows = db.execute(text(f"SELECT doc_id, {body} AS text, content_hash FROM documents"))
    return [str(r.doc_id) for r in rows if hashlib.sha256(r.text).hexdigest() != r.content_hash]


def records(db: Connection) -> CheckResult:
    """Check ids, sources, scopes, metadata and times against the record hashes: no other check
    notices a bit lost there.
    """
    bad = changed_records(db)
    detail = (
        f"sources, metadata or times are not as they were stored: {', '.join(bad[:5])}"
        if bad
        else "as they were stored"
    )
    remedy = (
        "look at each with `cmt show ID --history`, then `cmt update ID` with what is right: that"
        " takes it as it then is"
    )
    return CheckResult("records", not bad, detail, remedy if bad else "")


def changed_records(db: Connection) -> list[str]:
    """Return the ids of documents with a version whose record hash is missing or does not fit."""
    rows = db.execute(text(f"SELECT {', '.join(RECORD)}, record_hash FROM documents"))
    return list(
        dict.fromkeys(str(r.doc_id) for r in rows if record_hash(r._asdict()) != r.record_hash)
    )


@dataclass(frozen=True)
class Check:
    """One search through a table: `find` returns what `repair` needs to repair each fault."""

    name: str
    find: Callable[[Connection], list[str]]
    wrong: str
    well: str


def orphans(db: Connection) -> list[str]:
    """Return the rows whose parent row is missing, as "table rowid"."""
    return [f"{row[0]} {row[1]}" for row in db.exec_driver_sql("PRAGMA foreign_key_check")]


def bad_metadata(db: Connection) -> list[str]:
    """Return the keys of document rows whose metadata or times cannot be read."""
    sql = f"SELECT key, metadata, {' AND '.join(IN_TIME)} AS dated FROM documents"
    return [str(r.key) for r in db.execute(text(sql)) if not (_is_object(r.metadata) and r.dated)]


def _is_object(body: object) -> bool:
    try:
        return isinstance(json.loads(str(body)), dict)
    except ValueError:
        return False


def bad_settings(db: Connection) -> list[str]:
    """Return the names of settings that cannot be read."""
    rows = db.execute(
        text(
            "SELECT name, value FROM settings WHERE name IN ('settings', 'changes', 'kept_out',"
            " 'objects')"
        )
    ).all()
    bad = [r.name for r in rows if not _is_sound(r.name, str(r.value))]
    return bad if any(r.name == "changes" for r in rows) else [*bad, "changes"]


def _is_sound(name: str, value: str) -> bool:
    if name == "changes":
        return value.isdecimal()
    if name != "kept_out":
        return _is_object(value)
    try:
        parse_kept_out(value)
    except StorageDamaged:
        return False
    return True


def ids_without_passages(db: Connection) -> list[str]:
    """Return the ids of current documents of which passages are missing: the last passage has to
    end where the text does.
    """
    sql = """SELECT d.doc_id, d.text, count(p.id) AS passages, max(p.ordinal) AS last,
        max(p."end") AS stop
        FROM documents d LEFT JOIN passages p ON p.document_key = d.key WHERE d.current
            GROUP BY d.key"""
    return [str(r.doc_id) for r in db.execute(text(sql)) if not _is_split_to_end(r)]


def _is_split_to_end(row: Row[Any]) -> bool:
    try:
        return bool(
            row.passages and row.last == row.passages - 1 and not row.text[row.stop :].strip()
        )
    except TypeError:
        return False


def unlisted_words(db: Connection) -> list[str]:
    """Return the ids of passages that the full-text index lacks, or holds without a passage."""
    sql = " UNION ".join(
        f"SELECT id FROM passages WHERE id NOT IN (SELECT rowid FROM {table}) "
        f"UNION SELECT rowid AS id FROM {table} WHERE rowid NOT IN (SELECT id FROM passages)"
        for table in WORD_TABLES
    )
    return [str(r.id) for r in db.execute(text(sql))]


def bad_fingerprints(db: Connection) -> list[str]:
    """Return the ids of stored fingerprints whose contents have another id."""
    return [
        str(r.id)
        for r in db.execute(text("SELECT id, body FROM fingerprints"))
        if not _names_itself(r)
    ]


def _names_itself(row: Row[Any]) -> bool:
    try:
        return bool(fingerprint_of(row.body).id == row.id)
    except StorageDamaged:
        return False


# of an embedding's length: a changed bit that moves it by less does not matter to a search
ROUNDING = 1e-4


def bad_embeddings(db: Connection) -> list[str]:
    """Return the passages with an embedding of an unusual dimension, or not of length 1."""
    rows = [
        (r.passage_id, np.frombuffer(r.key[: len(r.key) // 4 * 4], "<f4"), len(r.key))
        for r in _embeddings(db)
    ]
    usual = Counter(size for *_, size in rows).most_common(1)
    with np.errstate(over="ignore", invalid="ignore"):
        return [
            str(i)
            for i, embedding, size in rows
            if size != usual[0][0] or not abs(float(np.linalg.norm(embedding)) - 1) < ROUNDING
        ]


def _embeddings(db: Connection) -> Sequence[Row[tuple[int, bytes]]]:
    return db.execute(
        text("SELECT passage_id, coalesce(CAST(key AS BLOB), x'') AS key FROM vectors")
    ).all()


CHECKS = (
    Check("references", orphans, "rows belong to nothing", "every row belongs to another"),
    Check(
        "metadata",
        bad_metadata,
        "documents have some that cannot be read, or times that are none",
        "readable",
    ),
    Check("settings", bad_settings, "cannot be read", "readable"),
    Check(
        "passages",
        ids_without_passages,
        "documents are not split to their end",
        "every document is split to its end",
    ),
    Check(
        "full-text search",
        unlisted_words,
        "passages are not in it as they are",
        "holds every passage",
    ),
    Check(
        "fingerprints", bad_fingerprints, "are not what they are named after", "as they were stored"
    ),
    Check("embeddings", bad_embeddings, "are damaged", "of length 1"),
)


def damaged_memories(db: Connection, data: str = DATA_BYTES) -> Iterator[tuple[int, str]]:
    """Yield each passage with a memory, and why that cannot be read; empty where it can. What is an
    object is left out.
    """
    for row in db.execute(text(f"SELECT passage_id, {data} AS data FROM memories")):
        if Reference.of(row.data):
            continue
        try:
            unpack(row.data)
        except (StorageDamaged, StorageNewer) as error:
            yield row.passage_id, str(error)
        else:
            yield row.passage_id, ""


def memories(db: Connection, data: str = DATA_BYTES) -> CheckResult:
    """Check that every compressed passage can be read."""
    every = list(damaged_memories(db, data))
    bad = [f"passage {number}: {why}" for number, why in every if why]
    detail = (
        f"{len(bad)} of {len(every)} cannot be read ({bad[0]})" if bad else f"{len(every)} readable"
    )
    return CheckResult(
        "memories",
        not bad,
        detail,
        "nothing: they are made again when they are needed" if bad else "",
    )


def pending(db: Connection, now: float) -> CheckResult:
    """Tell how many passages are pending, and whether an erasure is."""
    sql = f"""SELECT count(*) FROM waiting w JOIN passages p ON p.id = w.passage_id
        JOIN documents d ON d.key = p.document_key WHERE {ALIVE}"""
    count = db.execute(text(sql), {"now": now}).scalar_one()
    due = db.execute(text("SELECT 1 FROM settings WHERE name = 'erasure'")).scalar()
    detail = f"{count} passages are pending" if count else "no passage is pending"
    if due:
        detail += "; an erasure was cut short, and goes on when the memory is next opened"
    return CheckResult("compression", True, detail, "cmt compress" if count else "")


def index_state(db: Connection, folder: Path) -> CheckResult:
    """Check that the index file that the database names is the one in the folder."""
    row = db.execute(text("SELECT file, sha256, count FROM generation")).first()
    others = strays(folder, None if row is None else row.file)
    left_over = f"; {len(others)} more files are left over from a stopped process" if others else ""
    if row is None:
        return CheckResult(
            "index", True, f"none: search is exact{left_over}", REPAIR if others else ""
        )
    try:
        well = sha256_of(folder / row.file) == row.sha256
    except OSError as error:
        detail = (
            f"{row.file} cannot be read ({error.strerror}): it is made again at the next search"
        )
        return CheckResult("index", False, detail, "cmt reindex")
    state = f"{row.count} vectors" if well else "damaged: it is made again at the next search"
    detail = f"{row.file}, {state}" if well else f"{row.file} is {state}"
    return CheckResult(
        "index", well, detail + left_over, (REPAIR if others else "") if well else "cmt reindex"
    )


def strays(folder: Path, trusted: str | None) -> list[Path]:
    """Return the index files that the database does not name."""
    return [file for file in sorted(folder.glob("index-*.hnsw")) if file.name != trusted]
