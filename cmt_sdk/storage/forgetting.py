"""Making deleted text vanish from the files, and looking for what is left of it. Knows files and SQLite, no store.

A trace is a word of the removed text or source, of `SHORTEST` letters or more, that no remaining document holds: as it was
written or in lower case, in UTF-8 or UTF-16. Where all its words live on elsewhere, the removed text as a whole is looked for.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from cmt_sdk.types import Document

SHORTEST = 6
MOST_WORDS = 2_000
BLOCK = 1 << 22


def erase(file: Path) -> None:
    """Rewrite the database without deleted content: the full-text index, the write-ahead log, and every free page."""
    connection = sqlite3.connect(file, timeout=30, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("INSERT INTO passage_text (passage_text) VALUES ('rebuild')")
        connection.execute("INSERT INTO passage_text (passage_text) VALUES ('optimize')")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def traces_of(removed: Sequence[Document], folder: Path) -> tuple[list[str], int]:
    """Names of the files that were read, and how many traces of the removed documents they hold."""
    files = sorted(f for f in folder.iterdir() if f.is_file())
    needles = _needles(removed, _remaining_words(folder))
    found = {needle for file in files for needle in _found(file, needles)}
    return [f.name for f in files], len(found)


def _words(text: str) -> set[str]:
    return {w.lower() for w in re.findall(rf"\w{{{SHORTEST},}}", text)}


def _remaining_words(folder: Path) -> set[str]:
    connection = sqlite3.connect(folder / "memory.db")
    try:
        rows = connection.execute("SELECT text, coalesce(source, ''), scope, metadata, doc_id FROM documents")
        return {word for row in rows for column in row for word in _words(column)}
    finally:
        connection.close()


def _needles(removed: Sequence[Document], remaining: set[str]) -> list[bytes]:
    needles: dict[bytes, None] = {}
    for document in removed:
        told = f"{document.text}\n{document.source or ''}"
        gone = [w for w in re.findall(rf"\w{{{SHORTEST},}}", told) if w.lower() not in remaining][:MOST_WORDS]
        whole = [document.text] if not gone and document.text.lower() not in remaining else []
        for word in [*gone, *(w.lower() for w in gone), *whole]:
            needles |= dict.fromkeys((word.encode(), word.encode("utf-16-le")))
    return list(needles)


def _found(file: Path, needles: Sequence[bytes]) -> Iterable[bytes]:
    """Needles in a file, read in blocks that overlap by the longest of them."""
    overlap = max(map(len, needles), default=0)
    with file.open("rb") as data:
        before = b""
        while block := data.read(BLOCK):
            window = before + block
            yield from (needle for needle in needles if needle in window)
            before = window[-overlap:] if overlap else b""
