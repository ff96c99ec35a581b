"""The version of the tables and their migrations (alembic). Knows no domain value."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from cmt_sdk.errors import StorageNewer
from cmt_sdk.system.extras import unusable

SCHEMA = "cmt"
REVISIONS = ("0001", "0002")  # of migrations/versions, oldest first
MIGRATING = 0x636D7401  # the number of the lock that one migration holds


def revision(db: Connection) -> str | None:
    """Return the revision of the tables; None where there are none."""
    there = text("SELECT to_regclass(:name)")
    if db.execute(there, {"name": f"{SCHEMA}.alembic_version"}).scalar() is None:
        return None
    return db.execute(text(f"SELECT version_num FROM {SCHEMA}.alembic_version")).scalar()


def is_up_to_date(found: str | None, place: str) -> bool:
    """Return whether no migration is missing.

    Raises:
        StorageNewer: a later release made the tables.
    """
    if found is not None and found not in REVISIONS:
        raise StorageNewer(
            f"{place} has schema {found}, this release of cmt-sdk knows up to {REVISIONS[-1]}:"
            " update cmt-sdk"
        )
    return found == REVISIONS[-1]


def migrate(db: Connection) -> None:
    """Run the missing migrations in the caller's transaction; other processes wait.

    Raises:
        MissingExtra: the extra `postgres` is not installed.
    """
    try:
        from alembic import command
        from alembic.config import Config
    except ImportError as error:
        raise unusable("a memory in Postgres", "postgres", error) from error

    db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATING})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = db
    command.upgrade(config, "head")
