"""Recovery: copies every readable row of a damaged database into a new one. Knows tables and
SQLite, no domain value.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmt_sdk.storage.driver import Connection, Error, Key, connect
from cmt_sdk.storage.rows import record_hash
from cmt_sdk.storage.schema import run_from, seal

# In the order in which rows refer to each other, with the column that numbers their rows.
TABLES = {
    "documents": "key",
    "passages": "id",
    "fingerprints": "rowid",
    "vectors": "label",
    "memories": "passage_id",
}
# Columns of a document that an index holds too: the index, and the condition of its rows.
WITNESSES = {
    "doc_id": (("sqlite_autoindex_documents_1", "1"), ("one_current", "current")),
    "scope": (("by_scope", "current"),),
    "source": (("by_scope", "current"),),
    "content_hash": (("by_content", "current"),),
    "created_at": (("by_time", "1"),),
    "expires_at": (("by_expiry", "current AND expires_at IS NOT NULL"),),
}
HEADER = 100
PROBES = 50_000  # attempts to read around damage: some seconds
LAST = 2**62


@dataclass
class Salvaged:
    """The result of a recovery.

    Attributes:
        rows: how many rows of each table were saved.
        damaged: the tables with rows that could not be read.
        settled: values that differed between a row and an index, where the record hash decides.
        doubtful: such values where it does not, and rows that only an index still names.
        has_settings: the settings were saved.
    """

    rows: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    has_settings: bool = False


def salvage(damaged: Path, new: Path, key: Key | None = None) -> Salvaged:
    """Fill a new file with the current schema and every readable row of a damaged copy.

    Where SQLite cannot open the copy, its header is overwritten with that of a new database, and
    it is opened once more.

    Args:
        damaged: a copy of the damaged file; it can be changed.
        new: the file to make.
        key: the key of both.
    """
    new.touch(mode=0o600)
    with closing(connect(new, key, isolation_level=None)) as made:
        made.execute("PRAGMA synchronous = FULL")
        run_from(0, made.execute)
        if key is None and not _opens(damaged):
            _give_header(damaged, new)
        made.execute("BEGIN")
        with closing(_Damaged(damaged, key)) as old:
            found = _copied(old, made)
        made.execute("COMMIT")
    return found


def _opens(file: Path) -> bool:
    try:
        with closing(connect(file, None, isolation_level=None)) as db:
            return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except Error:
        return False


def _give_header(file: Path, sound: Path) -> None:
    """Overwrite a file's header, which has the page size and the encoding, with that of a new
    database (sqlite.org/fileformat.html, 1.3). Its list of free pages is left empty.
    """
    header = bytearray(sound.read_bytes()[:HEADER])
    header[18:20] = b"\1\1"  # no write-ahead log
    header[28:32] = bytes(4)  # as many pages as the file has
    header[32:40] = bytes(8)
    header[92:96] = bytes(4)
    with file.open("r+b") as data:
        data.write(header)


class _Damaged:
    """A damaged database. After an error an encrypted one is opened again: a SQLCipher connection
    that met a damaged page reads nothing more.
    """

    def __init__(self, file: Path, key: Key | None) -> None:
        self._file = file
        self._key = key
        self._open()

    def _open(self) -> None:
        self._db = connect(self._file, self._key, isolation_level=None)
        self._db.text_factory = lambda data: data.decode(errors="replace")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query, up to where it fails."""
        try:
            yield from self._db.execute(sql, values)
        except Error:
            if self._key is not None:
                self.close()
                self._open()
            raise

    def close(self) -> None:
        """Release the file."""
        self._db.close()


def _copied(old: _Damaged, new: Connection) -> Salvaged:
    found = Salvaged()
    for table, number in TABLES.items():
        columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
        reader = _Reader(old, table, number, columns)
        sql = (
            f"INSERT OR IGNORE INTO {table} ({', '.join(map(_quoted, columns))}) VALUES"
            f" ({', '.join('?' * len(columns))})"
        )
        rows = _documents(old, reader, found) if table == "documents" else reader.rows()
        taken = [_inserted(new, sql, row) for row in rows]
        found.rows[table] = sum(taken)
        if reader.lost or not all(taken):
            found.damaged.append(table)
    if "record_hash" not in _columns(old, "documents"):  # as bringing it up to date would
        seal(new.execute)
    for name in ("settings", "erasure", "changes", "copies", "kept_out", "objects"):
        with suppress(*Error):
            row = next(old.rows("SELECT name, value FROM settings WHERE name = ?", [name]), None)
            if row is not None:
                new.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", row)
                found.has_settings |= name == "settings"
    _without_parents(new)
    return found


def _documents(old: _Damaged, reader: _Reader, found: Salvaged) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of documents, corrected before they are stored: a damaged id can be that of
    another document.

    A changed bit in the tree of a table can make SQLite skip rows without an error; the indexes
    still name them.
    """
    indexes = {
        column: [_held(old, column, *index) for index in known]
        for column, known in WITNESSES.items()
    }
    names = {number: name for held in indexes["doc_id"] for number, name in held.items()}
    for values in reader.rows():
        row = dict(zip(reader.columns, values, strict=True))
        names.pop(row["key"], None)
        indexed = {
            column: [held[row["key"]] for held in known if row["key"] in held]
            for column, known in indexes.items()
        }
        yield tuple(_righted(row, indexed, found).values())
    if names:
        reader.lost = True
        found.doubtful += [f"a version of {name!r} may be gone" for name in names.values()]


def _held(old: _Damaged, column: str, index: str, kept: str) -> dict[int, Any]:
    """Return a column of the documents by their keys, as far as an index of it can be read."""
    held: dict[int, Any] = {}
    with suppress(*Error):
        held.update(
            old.rows(f"SELECT key, {column} FROM documents INDEXED BY {index} WHERE {kept}")
        )
    return held


def _righted(
    row: dict[str, Any], indexed: Mapping[str, Sequence[Any]], found: Salvaged
) -> dict[str, Any]:
    """Return a document's row corrected: with the values that fit its record hash; where none do,
    with values on which two indexes agree.
    """
    if record_hash(row) == row["record_hash"]:
        return row
    if (right := _fitting(row, indexed)) is not None:
        differing = [
            f"{column} of {right['doc_id']!r} was {row[column]!r}"
            for column in indexed
            if row[column] != right[column]
        ]
        found.settled += [f"{was}, which its hash and an index correct" for was in differing]
        return right
    for column, others in indexed.items():
        if others and row[column] not in others:
            if len(others) > 1 and len(set(others)) == 1:
                row = {**row, column: others[0]}
            else:
                found.doubtful.append(f"{column} of {row['doc_id']!r} may be {others[0]!r}")
    return row


def _fitting(row: Mapping[str, Any], indexed: Mapping[str, Sequence[Any]]) -> dict[str, Any] | None:
    """Return the row with the values, its own or an index's, that fit its hash; None: none do."""
    choices = [dict.fromkeys([row[column], *others]) for column, others in indexed.items()]
    rows = (
        {**row, **dict(zip(indexed, chosen, strict=True))} for chosen in itertools.product(*choices)
    )
    return next((r for r in rows if record_hash(r) == r["record_hash"]), None)


def _inserted(new: Connection, sql: str, row: tuple[Any, ...]) -> int:
    try:
        return new.execute(sql, row).rowcount
    except Error:  # a value that its column does not take
        return 0


def _without_parents(new: Connection) -> None:
    """Delete rows whose parent row is missing. The schema's triggers make passages without an
    embedding pending.
    """
    new.execute("DELETE FROM passages WHERE document_key NOT IN (SELECT key FROM documents)")
    new.execute("DELETE FROM vectors WHERE fingerprint NOT IN (SELECT id FROM fingerprints)")
    for table in ("vectors", "memories", "waiting"):
        new.execute(f"DELETE FROM {table} WHERE passage_id NOT IN (SELECT id FROM passages)")


def _columns(old: _Damaged, table: str) -> set[str]:
    """Return the columns of a damaged table; an earlier release may have made it with fewer."""
    with suppress(*Error):
        return {row[1] for row in old.rows(f"PRAGMA table_info({table})")}
    return set()


def _quoted(column: str) -> str:
    return f'"{column}"'


@dataclass
class _Reader:
    """Reads the rows of one table in order of their numbers, and halves a range that fails."""

    db: _Damaged
    table: str
    number: str
    columns: list[str]
    lost: bool = False
    probes: int = PROBES

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield every row that can be read, once."""
        there = _columns(self.db, self.table)
        wanted = ", ".join(_quoted(c) if c in there else "NULL" for c in self.columns)
        sql = (
            f"SELECT {self.number} AS n, {wanted} FROM {self.table} NOT INDEXED WHERE n BETWEEN ?"
            " AND ? ORDER BY n"
        )
        if not there:
            self.lost = True
            return
        highest = max(self._highest(), 1)
        yield from self._between(sql, 0, highest)
        yield from self._between(sql, highest + 1, LAST)

    def _highest(self) -> int:
        """Return a number beyond all rows, as far as one can be read."""
        highest = 0
        for sql in (
            f"SELECT max({self.number}) FROM {self.table} NOT INDEXED",
            f"SELECT seq FROM sqlite_sequence WHERE name = '{self.table}'",
            "SELECT seq FROM sqlite_sequence WHERE name = 'passages'",
        ):
            with suppress(*Error, TypeError, ValueError):
                highest = max(highest, int(next(self.db.rows(sql), [0])[0] or 0))
        return min(highest, LAST - 1) if highest else 2**20

    def _between(self, sql: str, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a range. A range that fails is halved after its first bad row; wide
        ranges come before narrow ones.
        """
        ranges = deque([(first, last)])
        while ranges and self.probes:
            low, high = ranges.popleft()
            self.probes -= 1
            try:
                for row in self.db.rows(sql, (low, high)):
                    low = row[0] + 1
                    yield row[1:]
            except Error:
                self.lost = True
                if low < high and high < LAST:
                    middle = (low + high) // 2
                    ranges += [(low, middle), (middle + 1, high)]
