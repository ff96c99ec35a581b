"""Mending a folder that no process has open: what is damaged goes or is made anew, after a backup.
Knows no model.

What only the model can make again (memories, embeddings, passages of documents that lost some) is
left waiting: `Memory.finish_repair`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3  # for the numbers of its errors
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, text

from cmt_sdk.disk import flush
from cmt_sdk.errors import MemoryNotFound, StorageDamaged, StorageLocked
from cmt_sdk.open_files import refuse_open
from cmt_sdk.storage import checks
from cmt_sdk.storage.backup import copy_as_it_is
from cmt_sdk.storage.copies import BEFORE_REPAIR
from cmt_sdk.storage.disk_errors import translated
from cmt_sdk.storage.driver import FILE, DatabaseError, Error, Key, connect, files_in
from cmt_sdk.storage.encryption import key_of
from cmt_sdk.storage.graph import remove
from cmt_sdk.storage.recovery import Salvaged, salvage
from cmt_sdk.storage.schema import index_words, seal
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.types import CheckResult

NEW = ".repaired.db"
PAGE, SAMPLE = 4096, 1 << 20  # bytes


def repair(path: str | os.PathLike[str]) -> list[CheckResult]:
    """Mend what can be mended of the memory in a folder, after a backup beside it; returns what was
    done, line by line.

    A finding is not ok where something is lost, and its remedy says what helps. An empty list:
    nothing was wrong. Close the memory first, in every process. Raises MemoryNotFound, InvalidInput
    (it is open here), StorageLocked (elsewhere), StorageNewer, StorageFull, StorageDenied,
    StorageEncrypted (the key is not here), MissingExtra.
    """
    folder = Path(path).expanduser().absolute()
    if not (folder / FILE).is_file():
        raise MemoryNotFound(f"there is no memory in {folder}")
    refuse_open(folder / FILE)
    done = list(_opened_up(folder))
    with translated(folder):
        key = key_of(folder / FILE)
    kept = folder.with_name(f"{folder.name}{BEFORE_REPAIR}{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
    wrong: list[str] | None = None
    try:
        copy_as_it_is(folder, kept)
        _alone(folder, key)
        wrong = _wrong(folder, key)
    finally:
        if wrong is None:  # all is well, or nothing can be done
            shutil.rmtree(kept, ignore_errors=True)
    if wrong is None:
        return done
    done.append(
        CheckResult("backup", True, f"the files as they were: {kept}", "delete it once all is well")
    )
    if wrong:
        done.append(_salvaged(folder, kept, key, "; ".join(wrong)))
    return [*done, *_mended(folder)]


def _opened_up(folder: Path) -> Iterator[CheckResult]:
    """Give the owner the right to read and write, where that is the owner to give."""
    for file in [folder, *files_in(folder)]:
        if not os.access(file, os.R_OK | os.W_OK):
            with translated(folder):
                file.chmod(file.stat().st_mode | (0o700 if file.is_dir() else 0o600))
            yield CheckResult("files", True, f"{file.name} can be read and written again")


def _alone(folder: Path, key: Key | None) -> None:
    """Raise StorageLocked where another process has the database open, as far as it can still be
    asked.
    """
    try:
        with closing(connect(folder / FILE, key, timeout=0, isolation_level=None)) as db:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
    except DatabaseError as error:  # of a damaged one: nobody can have opened it
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageLocked(
                f"{folder} is open in another process: close it there, then repair"
            ) from error


def _wrong(folder: Path, key: Key | None) -> list[str] | None:
    """What is wrong with the database itself; empty where it is sound and something in it is not,
    None where all is well.
    """
    try:
        with closing(SQLiteStore(folder, create=False)) as store:
            found = store.check()
            with store._read() as db:
                broken = [
                    str(row[0])
                    for row in db.exec_driver_sql("PRAGMA integrity_check(5)")
                    if row[0] != "ok"
                ]
    except StorageDamaged as error:
        if _is_foreign(folder / FILE, key):
            raise
        if key is None and _is_random(folder / FILE):
            raise StorageDamaged(
                f"{folder / FILE} seems to be encrypted, and its beginning is damaged: restore a"
                " backup"
            ) from error
        return [str(error)]
    well = all(f.ok and f.remedy != checks.REPAIR for f in found)
    return broken or (None if well else [])


def _is_foreign(file: Path, key: Key | None) -> bool:
    """A sound database that somebody else made is not ours to repair."""
    try:
        with closing(connect(file, key)) as db:
            sound = db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
            return (
                sound
                and not db.execute(
                    "SELECT 1 FROM sqlite_master WHERE name = 'documents'"
                ).fetchone()
            )
    except Error:
        return False


def _is_random(file: Path) -> bool:
    """Encrypted pages cannot be made smaller; a database has empty room and text in every few of
    its own.
    """
    with file.open("rb") as data:
        data.seek(PAGE)
        pages = data.read(SAMPLE)
    return len(zlib.compress(pages)) >= len(pages) > PAGE


def _salvaged(folder: Path, kept: Path, key: Key | None, why: str) -> CheckResult:
    """Put what can be read of a damaged database in its place; `kept` holds the files as they
    were.
    """
    work, new = kept / ".work", folder / NEW
    new.unlink(missing_ok=True)
    try:
        with translated(folder):
            copy_as_it_is(kept, work)
            saved = salvage(work / FILE, new, key)
            flush(new)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _put_in_place(folder, new)
    return _told(saved, why)


def _put_in_place(folder: Path, new: Path) -> None:
    """The log goes first: it belongs to the damaged file, and would be read into the new one."""
    with translated(folder):
        for file in [
            *(folder / f"{FILE}{suffix}" for suffix in ("-wal", "-shm")),
            *checks.strays(folder, None),
        ]:
            file.unlink(missing_ok=True)
        new.replace(folder / FILE)
        flush(folder / FILE)


def _told(saved: Salvaged, why: str) -> CheckResult:
    rows = ", ".join(
        f"{count} {table}" for table, count in saved.rows.items() if table != "fingerprints"
    )
    lost = f"; not all of {', '.join(saved.damaged)} could be read" if saved.damaged else ""
    settled = f"; {', '.join(saved.settled[:5])}" if saved.settled else ""
    doubtful = f"; {', '.join(saved.doubtful[:5])}" if saved.doubtful else ""
    settings = "" if saved.has_settings else "; the settings are lost"
    whole = not saved.damaged and not saved.doubtful and saved.has_settings
    remedy = "" if whole else "add again what is missing: `cmt list` shows what is there"
    told = (
        f"was damaged ({why:.200}); saved into a new one: {rows}{lost}{settled}{doubtful}{settings}"
    )
    return CheckResult("database", whole, told, remedy)


def _mended(folder: Path) -> Iterator[CheckResult]:
    """The steps below in one transaction, then the files that belong to nothing."""
    with closing(SQLiteStore(folder, create=False)) as store:
        words = store.fts_is_consistent()
        with store._write() as db:
            for step in STEPS:
                yield from step(db)
            if not words or checks.unlisted_words(db):
                yield _words_anew(db)
            yield from _index(db, folder)
            yield from _beyond(db)
            store._bump_change_counter(db)
        named = store.generation()
        for file in checks.strays(folder, None if named is None else named.file):
            remove(file)
            yield CheckResult("index", True, f"{file.name}, which belonged to nothing, is deleted")


def _unmet(db: Connection) -> Iterator[CheckResult]:
    rows = [row.split() for row in checks.unmet(db)]
    for table, number in rows:
        db.execute(text(f"DELETE FROM {table} WHERE rowid = :row"), {"row": int(number)})
    if rows:
        yield CheckResult(
            "references", True, f"{len(rows)} rows that belonged to nothing are deleted"
        )


def _settings(db: Connection) -> Iterator[CheckResult]:
    for name in checks.bad_settings(db):
        db.execute(text("DELETE FROM settings WHERE name = :name"), {"name": name})
        if name == "changes":
            db.execute(text("INSERT INTO settings VALUES ('changes', '0')"))
            yield CheckResult("settings", True, "the count of changes begins anew")
        else:
            remedy = "set what you had changed: cmt config set"
            yield CheckResult(
                "settings", False, "were damaged: those of the next opening hold", remedy
            )


def _metadata(db: Connection) -> Iterator[CheckResult]:
    bad = checks.bad_metadata(db)
    created, updated, expires = checks.IN_TIME
    sql = f"""UPDATE documents
        SET metadata = CASE WHEN json_valid(metadata)
            AND json_type(metadata) = 'object' THEN metadata ELSE '{{}}' END,
        created_at = CASE WHEN {created} THEN created_at ELSE strftime('%s', 'now') + 0.0 END,
        updated_at = CASE WHEN {updated} THEN updated_at ELSE strftime('%s', 'now') + 0.0 END,
        expires_at = CASE WHEN {expires} THEN expires_at END WHERE key = :key"""
    for key in bad:
        db.execute(text(sql), {"key": int(key)})
        seal(db.exec_driver_sql, "key = ?", (int(key),))
    if bad:
        names = list(
            db.execute(
                text(f"SELECT DISTINCT doc_id FROM documents WHERE key IN ({', '.join(bad[:5])})")
            ).scalars()
        )
        told = (
            f"metadata or times of {len(bad)} documents were damaged and are gone:"
            f" {', '.join(map(str, names))}"
        )
        remedy = (
            "what else they say is taken as it is: look at each with `cmt show ID --history`, then"
            " cmt update ID --meta KEY=VALUE"
        )
        yield CheckResult("metadata", False, told, remedy)


def _fingerprints(db: Connection) -> Iterator[CheckResult]:
    bad = checks.bad_fingerprints(db)
    for name in bad:
        values = {"id": name}
        db.execute(
            text(
                "DELETE FROM memories WHERE passage_id IN (SELECT passage_id FROM vectors WHERE"
                " fingerprint = :id)"
            ),
            values,
        )
        db.execute(text("DELETE FROM vectors WHERE fingerprint = :id"), values)
        db.execute(text("DELETE FROM fingerprints WHERE id = :id"), values)
    if bad:
        yield CheckResult(
            "fingerprints",
            True,
            f"{len(bad)} were damaged: what they made waits to be made again",
            "cmt compress",
        )


def _encodings(db: Connection) -> Iterator[CheckResult]:
    """A damaged memory or embedding goes; the passage waits for compression again."""
    bad = {int(i) for i in checks.bad_embeddings(db)} | {
        i for i, why in checks.damaged_memories(db) if why
    }
    for number in bad:
        for table in ("memories", "vectors"):
            db.execute(text(f"DELETE FROM {table} WHERE passage_id = :id"), {"id": number})
    if bad:
        yield CheckResult(
            "memories",
            True,
            f"{len(bad)} were damaged and wait to be made again from the text",
            "cmt compress",
        )


def _words_anew(db: Connection) -> CheckResult:
    index_words(db.exec_driver_sql)
    return CheckResult("full-text search", True, "made anew from the texts")


def _index(db: Connection, folder: Path) -> Iterator[CheckResult]:
    found = checks.index_state(db, folder)
    if not found.ok:
        db.exec_driver_sql("DELETE FROM generation")
        yield CheckResult(
            "index",
            True,
            f"{found.detail.split(':')[0]}; it is deleted, and made again when it is needed",
            "cmt reindex",
        )


def _beyond(db: Connection) -> Iterator[CheckResult]:
    """What no copy of is here."""
    if changed := checks.changed_texts(db):
        told = f"{len(changed)} are not as they were stored: {', '.join(changed[:5])}"
        yield CheckResult("texts", False, told, "update these documents from their sources")
    if not (found := checks.records(db)).ok:
        yield found
    if without := checks.ids_without_passages(db):
        yield CheckResult(
            "passages",
            True,
            f"those of {len(without)} documents wait to be cut again",
            "cmt check --repair",
        )
    sql = (
        "SELECT DISTINCT doc_id FROM documents WHERE doc_id NOT IN (SELECT doc_id FROM documents"
        " WHERE current)"
    )
    if past := [str(i) for i in db.execute(text(sql)).scalars()]:
        told = f"of {len(past)} only earlier versions are left: {', '.join(past[:5])}"
        yield CheckResult("documents", False, told, "add them again; `cmt show` has what they were")


STEPS: tuple[Callable[[Connection], Iterator[CheckResult]], ...] = (
    _unmet,
    _settings,
    _metadata,
    _fingerprints,
    _encodings,
)
