"""The copies of a memory that this package made: backups, archives, and the backup of a repair.

Erasing does not reach them. Their paths are recorded when they are made; those of a repair are
found by their names.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.storage.connection import Database
from cmt_sdk.types import CheckResult

BEFORE_REPAIR = "-before-repair-"
MOST = 200  # newest copies that are recorded
DELETE = "delete each once you need it no longer: `cmt forget` does not reach it"


class Copies(Database):
    """The part of the store that records where copies of it were made."""

    def note_copy(self, place: Path | str) -> None:
        """Record that a copy of the memory was made at a path, or at the address of a database."""
        copy = str(place.absolute()) if isinstance(place, Path) else place
        with self._write() as db:
            known = [name for name in noted(db) if name != copy]
            value = json.dumps([*known, copy][-MOST:])
            db.execute(
                text("INSERT OR REPLACE INTO settings VALUES ('copies', :value)"), {"value": value}
            )

    def copies(self) -> Sequence[str]:
        """Return the known copies that still exist: backups, archives, and those that a repair
        made.
        """
        with self._read() as db:
            return copies_of(db, self._folder)


def noted(db: Connection) -> list[str]:
    """Return the recorded paths; none where the record is damaged."""
    recorded = db.execute(text("SELECT value FROM settings WHERE name = 'copies'")).scalar()
    try:
        names = json.loads(recorded) if recorded else []
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def copies_of(db: Connection, folder: Path) -> list[str]:
    """Return the copies of a folder that still exist; those in databases are not looked for."""
    repaired = folder.parent.glob(glob.escape(folder.name + BEFORE_REPAIR) + "*")
    names = [*noted(db), *map(str, sorted(repaired))]
    return [
        name for name in dict.fromkeys(names) if DatabaseAddress.of(name) or os.path.lexists(name)
    ]


def finding(db: Connection, folder: Path) -> CheckResult:
    """Return the result of the check: copies are no fault, but worth knowing."""
    names = copies_of(db, folder)
    if not names:
        return CheckResult("copies", True, "none is known")
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return CheckResult(
        "copies", True, f"{len(names)} that hold what the memory held then: {listed}", DELETE
    )
