"""The tables, and the numbered migrations of older databases. Knows SQLAlchemy, no domain value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, text

from cmt_sdk.errors import StorageDamaged, StorageNewer
from cmt_sdk.storage.references import MARK, NAME_AT, SIZE
from cmt_sdk.storage.rows import RECORD, record_hash
from cmt_sdk.text.words import indexed

# a driver's `execute` or SQLAlchemy's `exec_driver_sql`: a statement and its values
Execute: TypeAlias = Callable[..., Any]
Step: TypeAlias = str | Callable[[Execute], None]


def seal(execute: Execute, where: str = "1", values: Sequence[Any] = ()) -> None:
    """Recompute the record hashes of document rows, so that their present contents count as right.

    Args:
        execute: runs a statement.
        where: a condition on the rows; a row that has its hash already is not written.
        values: the values bound in it.
    """
    keys = [
        row[0]
        for row in execute(f"SELECT key FROM documents WHERE {where}", tuple(values)).fetchall()
    ]
    for key in keys:
        record = execute(
            f"SELECT {', '.join(RECORD)} FROM documents WHERE key = ?", (key,)
        ).fetchone()
        sealed = record_hash(dict(zip(RECORD, record, strict=True)))
        execute(
            "UPDATE documents SET record_hash = ? WHERE key = ? AND record_hash IS NOT ?",
            (sealed, key, sealed),
        )


WORD_TABLES = ("passage_text", "passage_forms")
# cmt_sdk.text.words splits the text into words before it comes here; the tokenizer "ascii" takes all
# characters beyond ASCII for letters (sqlite.org/fts5.html, section 4.3). Other spellings of a word
# are in a table of their own, so that they do not make the text longer: BM25 counts words.
WORDS = (
    """CREATE VIRTUAL TABLE passage_text USING fts5(body, tokenize = "porter ascii")""",
    """CREATE VIRTUAL TABLE passage_forms USING fts5(forms, grams, meanings, tokenize = "porter ascii tokenchars '+#.'")""",
)


def insert_words(execute: Execute, passage: int, text: str) -> None:
    """Insert a passage into the full-text index."""
    words, *forms = indexed(text)
    execute("INSERT INTO passage_text (rowid, body) VALUES (?, ?)", (passage, words))
    execute(
        "INSERT INTO passage_forms (rowid, forms, grams, meanings) VALUES (?, ?, ?, ?)",
        (passage, *forms),
    )


def index_words(execute: Execute) -> None:
    """Rebuild the full-text index from the texts, one document at a time."""
    for table in WORD_TABLES:
        execute(f"DROP TABLE IF EXISTS {table}")
    for made in WORDS:
        execute(made)
    keys = [row[0] for row in execute("SELECT DISTINCT document_key FROM passages").fetchall()]
    for key in keys:
        found = execute("SELECT text FROM documents WHERE key = ?", (key,)).fetchone()
        spans = 'SELECT id, heading, start, "end" FROM passages WHERE document_key = ?'
        for number, heading, start, end in execute(spans, (key,)).fetchall() if found else ():
            insert_words(execute, number, f"{heading}\n{found[0][start:end]}")


def _is_reference(row: str) -> str:
    return f"length({row}.data) = {SIZE} AND substr({row}.data, 1, {len(MARK)}) = x'{MARK.hex()}'"


def _name(row: str) -> str:
    return f"lower(hex(substr({row}.data, {NAME_AT + 1})))"


NAMED = f"""INSERT INTO objects (name, uses, token) SELECT {_name("new")}, 0, ''
        WHERE NOT EXISTS (SELECT 1 FROM objects WHERE name = {_name("new")});
    UPDATE objects SET uses = uses + 1, reserved_at = NULL WHERE name = {_name("new")};"""
DROPPED = f"UPDATE objects SET uses = uses - 1, reserved_at = NULL WHERE name = {_name('old')};"

MIGRATIONS: tuple[tuple[Step, ...], ...] = (
    (
        """CREATE TABLE documents (
            key INTEGER PRIMARY KEY, doc_id TEXT NOT NULL, version INTEGER NOT NULL, current INTEGER NOT NULL,
            text TEXT NOT NULL, content_hash TEXT NOT NULL, source TEXT, scope TEXT NOT NULL, metadata TEXT NOT NULL,
            created_at REAL NOT NULL, updated_at REAL NOT NULL, expires_at REAL, UNIQUE (doc_id, version))""",
        "CREATE UNIQUE INDEX one_current ON documents (doc_id) WHERE current",
        "CREATE INDEX by_content ON documents (content_hash, scope) WHERE current",
        "CREATE INDEX by_scope ON documents (scope, source) WHERE current",
        "CREATE INDEX by_time ON documents (created_at, key)",
        "CREATE INDEX by_expiry ON documents (expires_at) WHERE current AND expires_at IS NOT NULL",
        """CREATE TABLE passages (
            id INTEGER PRIMARY KEY AUTOINCREMENT, document_key INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
            ordinal INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, tokens INTEGER NOT NULL,
            heading TEXT NOT NULL)""",
        "CREATE INDEX by_document ON passages (document_key, ordinal)",
        "CREATE VIRTUAL TABLE passage_text USING fts5(body, tokenize='porter unicode61')",
        "CREATE TABLE fingerprints (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
        """CREATE TABLE vectors (
            label INTEGER PRIMARY KEY AUTOINCREMENT,
            passage_id INTEGER NOT NULL UNIQUE REFERENCES passages ON DELETE CASCADE,
            fingerprint TEXT NOT NULL REFERENCES fingerprints, key BLOB NOT NULL)""",
        """CREATE TABLE memories (
            passage_id INTEGER PRIMARY KEY REFERENCES passages ON DELETE CASCADE,
            last_read REAL NOT NULL, bytes INTEGER NOT NULL, data BLOB NOT NULL)""",
        "CREATE INDEX by_last_read ON memories (last_read)",
        """CREATE TABLE generation (
            one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL,
            dimension INTEGER NOT NULL, space TEXT NOT NULL, count INTEGER NOT NULL, last_label INTEGER NOT NULL)""",
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "INSERT INTO settings VALUES ('changes', '0')",
    ),
    # pending passages are listed, and the sizes of memories are indexed: no `add` reads every passage
    # for them
    (
        (
            "CREATE TABLE waiting (passage_id INTEGER PRIMARY KEY REFERENCES passages ON DELETE"
            " CASCADE)"
        ),
        (
            "INSERT INTO waiting SELECT id FROM passages WHERE id NOT IN (SELECT passage_id FROM"
            " vectors)"
        ),
        (
            "CREATE TRIGGER passage_waits AFTER INSERT ON passages BEGIN INSERT INTO waiting VALUES"
            " (new.id); END"
        ),
        """CREATE TRIGGER passage_has_vector AFTER INSERT ON vectors
            BEGIN DELETE FROM waiting WHERE passage_id = new.passage_id; END""",
        """CREATE TRIGGER passage_waits_again AFTER DELETE ON vectors
            BEGIN INSERT OR IGNORE INTO waiting SELECT id FROM passages WHERE id = old.passage_id; END""",
        "CREATE INDEX by_maker ON vectors (fingerprint)",
        "DROP INDEX by_last_read",
        "CREATE INDEX by_last_read ON memories (last_read, passage_id, bytes)",
    ),
    (  # indexed, because SQLite reads all bytes of a memory to reach a column after them
        "ALTER TABLE memories ADD COLUMN fidelity REAL",
        "CREATE INDEX by_fidelity ON memories (passage_id, fidelity) WHERE fidelity IS NOT NULL",
    ),
    ("ALTER TABLE documents ADD COLUMN record_hash TEXT", seal),  # SQLite has no hash function
    (index_words,),  # words have the same form in texts and in questions: cmt_sdk.text.words
    # superseded versions too: those of an archive are searched
    ("CREATE INDEX by_any_content ON documents (content_hash)",),
    # the living documents of a scope are found without reading their rows
    ("CREATE INDEX by_living_scope ON documents (scope, expires_at, current) WHERE current",),
    # nothing changes: releases that do not know the codec of a fingerprint refuse the database
    (),
    # objects, counted by whatever changes rows; releases that would not read them refuse the database
    (
        """CREATE TABLE objects (
            name TEXT PRIMARY KEY, uses INTEGER NOT NULL, token TEXT NOT NULL, reserved_at REAL, taken_until REAL)""",
        "CREATE INDEX unused_objects ON objects (name) WHERE uses = 0",
        f"CREATE TRIGGER object_named AFTER INSERT ON memories WHEN {_is_reference('new')} BEGIN {NAMED} END",
        f"CREATE TRIGGER object_dropped AFTER DELETE ON memories WHEN {_is_reference('old')} BEGIN {DROPPED} END",
        f"CREATE TRIGGER object_named_again AFTER UPDATE OF data ON memories WHEN {_is_reference('new')} BEGIN {NAMED} END",
        f"CREATE TRIGGER object_replaced BEFORE UPDATE OF data ON memories WHEN {_is_reference('old')} BEGIN {DROPPED} END",
    ),
)


# a database from this schema on can be read without the missing steps: they only add indexes
READABLE = 5


def is_up_to_date(connection: Connection, *, to_read: bool = False) -> bool:
    """Return whether no migration is missing; with `to_read`, none that reading needs.

    Raises:
        StorageNewer: a later release wrote the database.
    """
    number = int(connection.execute(text("PRAGMA user_version")).scalar_one())
    if number > len(MIGRATIONS):
        raise StorageNewer(
            f"the memory has schema {number}, this release of cmt-sdk knows up to"
            f" {len(MIGRATIONS)}: update cmt-sdk"
        )
    return number >= (READABLE if to_read else len(MIGRATIONS))


def migrate(connection: Connection) -> None:
    """Run the missing migrations in the caller's transaction.

    Raises:
        StorageDamaged: another program made the database.
    """
    number = int(connection.execute(text("PRAGMA user_version")).scalar_one())
    if number == 0 and connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one():
        raise StorageDamaged("this is the database of something else: give another folder")
    run_from(number, connection.exec_driver_sql)


def run_from(number: int, execute: Execute) -> None:
    """Run the migrations after the first `number`."""
    for step in (part for parts in MIGRATIONS[number:] for part in parts):
        if isinstance(step, str):
            execute(step)
        else:
            step(execute)
    execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
