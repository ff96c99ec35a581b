"""Repairs a folder that no process has open: makes a backup, then deletes or rebuilds what is
damaged. Knows no model.

Compressed passages, embeddings and lost passages, which only the model can make again, stay
pending: `Memory.finish_repair` makes them.
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

from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.errors import InvalidInput, MemoryNotFound, StorageDamaged, StorageError, StorageLocked
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
from cmt_sdk.system.disk import flush
from cmt_sdk.system.open_files import refuse_open
from cmt_sdk.types import CheckResult

NEW = ".repaired.db"
PAGE, SAMPLE = 4096, 1 << 20  # bytes


def repair(path: str | os.PathLike[str]) -> list[CheckResult]:
    """Repair the memory in a folder; a backup is written next to it first.

    Close the memory first, in every process.

    Returns:
        One result per step; empty where nothing was wrong. A result is not ok where something is
        lost; its remedy says what helps.

    Raises:
        MemoryNotFound: there is no memory in the folder.
        InvalidInput: the memory is open in this process.
        StorageLocked: it is open in another process.
        StorageNewer: a later release wrote it.
        StorageFull, StorageDenied: the files cannot be written.
        StorageEncrypted: the key is not available.
        MissingExtra: the extra `encryption` is not installed.
    """
    if address := DatabaseAddress.of(path):
        raise InvalidInput(
            f"{address} is repaired by its server: restore a backup; `cmt check` tells what is"
            " wrong, and `cmt reencode` makes compressed passages again"
        )
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
    return [*done, *_repaired(folder)]


def _opened_up(folder: Path) -> Iterator[CheckResult]:
    """Give the owner the right to read and write each file that lacks it."""
    for file in [folder, *files_in(folder)]:
        if not os.access(file, os.R_OK | os.W_OK):
            with translated(folder):
                file.chmod(file.stat().st_mode | (0o700 if file.is_dir() else 0o600))
            yield CheckResult("files", True, f"{file.name} can be read and written again")


def _alone(folder: Path, key: Key | None) -> None:
    """Raise StorageLocked where another process has the database open. A database too damaged to
    lock passes.
    """
    try:
        with closing(connect(folder / FILE, key, timeout=0, isolation_level=None)) as db:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
    except DatabaseError as error:  # a damaged one: no process can have opened it
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageLocked(
                f"{folder} is open in another process: close it there, then repair"
            ) from error


def _wrong(folder: Path, key: Key | None) -> list[str] | None:
    """Return the faults of the database itself: empty where only its contents have faults, None
    where all is well.
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
    """Return whether another program made the database: it is not repaired."""
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
    """Return whether the pages look encrypted: those do not compress, and a plain database has text
    and empty room in every few pages.
    """
    with file.open("rb") as data:
        data.seek(PAGE)
        pages = data.read(SAMPLE)
    return len(zlib.compress(pages)) >= len(pages) > PAGE


def _salvaged(folder: Path, kept: Path, key: Key | None, why: str) -> CheckResult:
    """Replace a damaged database by one with every readable row; `kept` holds the files as they
    were.
    """
    work = kept / ".work"
    new = folder / NEW
    new.unlink(missing_ok=True)
    try:
        with translated(folder):
            copy_as_it_is(kept, work)
            saved = salvage(work / FILE, new, key)
            flush(new)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _put_in_place(folder, new)
    return _salvage_result(saved, why)


def _put_in_place(folder: Path, new: Path) -> None:
    """Move the new database into place. The log is deleted first: it belongs to the damaged file,
    and SQLite would read it into the new one.
    """
    with translated(folder):
        for file in [
            *(folder / f"{FILE}{suffix}" for suffix in ("-wal", "-shm")),
            *checks.strays(folder, None),
        ]:
            file.unlink(missing_ok=True)
        new.replace(folder / FILE)
        flush(folder / FILE)


def _salvage_result(saved: Salvaged, why: str) -> CheckResult:
    rows = ", ".join(
        f"{count} {table}" for table, count in saved.rows.items() if table != "fingerprints"
    )
    lost = f"; not all of {', '.join(saved.damaged)} could be read" if saved.damaged else ""
    settled = f"; {', '.join(saved.settled[:5])}" if saved.settled else ""
    doubtful = f"; {', '.join(saved.doubtful[:5])}" if saved.doubtful else ""
    settings = "" if saved.has_settings else "; the settings are lost"
    whole = not saved.damaged and not saved.doubtful and saved.has_settings
    remedy = "" if whole else "add again what is missing: `cmt list` shows what is there"
    detail = (
        f"was damaged ({why:.200}); saved into a new one: {rows}{lost}{settled}{doubtful}{settings}"
    )
    return CheckResult("database", whole, detail, remedy)


def _repaired(folder: Path) -> Iterator[CheckResult]:
    """Run STEPS in one transaction, then delete index files that the database does not name."""
    with closing(SQLiteStore(folder, create=False)) as store:
        is_consistent = store.fts_is_consistent()
        with store._write() as db:
            for step in STEPS:
                yield from step(db)
            yield from _objects(store, db)
            if not is_consistent or checks.unlisted_words(db):
                yield _rebuild_fts(db)
            yield from _index(db, folder)
            yield from _irreparable(db)
            store._bump_change_counter(db)
        named = store.generation()
        for file in checks.strays(folder, None if named is None else named.file):
            remove(file)
            yield CheckResult("index", True, f"{file.name}, which belonged to nothing, is deleted")


def _orphans(db: Connection) -> Iterator[CheckResult]:
    rows = [row.split() for row in checks.orphans(db)]
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
            yield CheckResult("settings", True, "the change counter is reset")
        elif name == "kept_out":
            yield CheckResult(
                "kept out",
                False,
                "the list of sources that stay out was damaged and is gone",
                "give `cmt rm` or `cmt forget` these sources again, with --keep-out",
            )
        elif name == "objects":
            detail = "their place was damaged and is gone: they are made again in another folder"
            yield CheckResult("objects", False, detail, "delete the old folder")
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
        detail = (
            f"metadata or times of {len(bad)} documents were damaged and are gone:"
            f" {', '.join(map(str, names))}"
        )
        remedy = (
            "their other fields are taken as they are: look at each with `cmt show ID --history`,"
            " then cmt update ID --meta KEY=VALUE"
        )
        yield CheckResult("metadata", False, detail, remedy)


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
            f"{len(bad)} were damaged: the passages that they compressed are pending again",
            "cmt compress",
        )


def _encodings(db: Connection) -> Iterator[CheckResult]:
    """Delete damaged compressed passages and embeddings; their passages become pending."""
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
            f"{len(bad)} were damaged and are pending again: the text is still there",
            "cmt compress",
        )


def _objects(store: SQLiteStore, db: Connection) -> Iterator[CheckResult]:
    """Make the passages pending whose object is missing or cut short."""
    try:
        bad = store._damaged_objects(db)
    except StorageError as error:
        yield CheckResult("objects", False, str(error), "repair again once it can be reached")
        return
    for number in bad:
        for table in ("memories", "vectors"):
            db.execute(text(f"DELETE FROM {table} WHERE passage_id = :id"), {"id": number})
    if bad:
        detail = f"{len(bad)} were missing or damaged, and are pending again"
        yield CheckResult("objects", True, detail, "cmt compress")


def _rebuild_fts(db: Connection) -> CheckResult:
    index_words(db.exec_driver_sql)
    return CheckResult("full-text search", True, "rebuilt from the texts")


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


def _irreparable(db: Connection) -> Iterator[CheckResult]:
    """Report damage that cannot be repaired: there is no copy of what is lost."""
    if changed := checks.changed_texts(db):
        detail = f"{len(changed)} are not as they were stored: {', '.join(changed[:5])}"
        yield CheckResult("texts", False, detail, "update these documents from their sources")
    if not (found := checks.records(db)).ok:
        yield found
    if without := checks.ids_without_passages(db):
        yield CheckResult(
            "passages",
            True,
            f"those of {len(without)} documents are still to be split again",
            "cmt check --repair",
        )
    sql = (
        "SELECT DISTINCT doc_id FROM documents WHERE doc_id NOT IN (SELECT doc_id FROM documents"
        " WHERE current)"
    )
    if past := [str(i) for i in db.execute(text(sql)).scalars()]:
        detail = f"of {len(past)} only earlier versions are left: {', '.join(past[:5])}"
        yield CheckResult(
            "documents", False, detail, "add them again; `cmt show` has what they were"
        )


STEPS: tuple[Callable[[Connection], Iterator[CheckResult]], ...] = (
    _orphans,
    _settings,
    _metadata,
    _fingerprints,
    _encodings,
)
