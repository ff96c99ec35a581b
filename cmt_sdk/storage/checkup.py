"""A check-up of one folder: what is damaged, what waits, and what to do about it. Repairs nothing itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, text

from cmt_sdk.errors import StorageDamaged, StorageNewer
from cmt_sdk.storage.blob import unpack
from cmt_sdk.types import Finding


def findings(db: Connection, folder: Path) -> Iterator[Finding]:
    """One finding a check, the good ones too."""
    yield _writable(folder)
    yield _database(db)
    yield _full_text(db)
    yield _memories(db)
    yield _waiting(db)
    yield _index(db, folder)


def _writable(folder: Path) -> Finding:
    files = [folder, *(f for f in folder.iterdir() if f.is_file())]
    refused = [f.name for f in files if not os.access(f, os.R_OK | os.W_OK)]
    detail = f"not readable and writable: {', '.join(refused)}" if refused else f"{len(files) - 1} files in {folder}"
    return Finding("files", not refused, detail, "give yourself the right to read and write them" if refused else "")


def _database(db: Connection) -> Finding:
    said = [row[0] for row in db.exec_driver_sql("PRAGMA integrity_check(5)")]
    broken = db.exec_driver_sql("PRAGMA foreign_key_check").all()
    well = said == ["ok"] and not broken
    detail = "intact" if well else "; ".join([*said, *(f"{r[0]} {r[1]} has no {r[2]}" for r in broken[:5])])
    return Finding("database", well, detail, "" if well else "export what can be read, then import it into a new memory")


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
    return Finding("memories", not bad, detail, "cmt reencode" if bad else "")


def _waiting(db: Connection) -> Finding:
    waiting = db.execute(text("SELECT count(*) FROM passages WHERE id NOT IN (SELECT passage_id FROM vectors)")).scalar_one()
    detail = f"{waiting} passages wait for it" if waiting else "nothing waits for it"
    return Finding("compression", waiting == 0, detail, "cmt compress" if waiting else "")


def _index(db: Connection, folder: Path) -> Finding:
    from cmt_sdk.storage.index import sha256

    row = db.execute(text("SELECT file, sha256, count FROM generation")).first()
    if row is None:
        return Finding("index", True, "none: search is exact")
    file = folder / row.file
    if not file.is_file():
        return Finding("index", False, f"{row.file} is missing: search is exact until it is made again", "cmt reindex")
    well = sha256(file) == row.sha256
    detail = f"{row.file}, {row.count} vectors" if well else f"{row.file} is damaged: search is exact meanwhile"
    return Finding("index", well, detail, "" if well else "cmt reindex")
