"""The words of texts as a tsvector: what `cmt_sdk.text.words` makes of them, stemmed by the server.

The four weights of a tsvector stand for the columns of SQLite's index: A for the words as written,
B for other spellings, C for the runs of four letters of long words, D for dates and numbers in one
notation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from cmt_sdk.text.words import Indexed, indexed

LONGEST_WORD = 500  # characters: a lexeme has 2,046 bytes at most
LARGEST = (
    700_000  # bytes of the words of a passage: a tsvector has 2**20 at most, with its positions
)
LAST_PLACE = 16_383


@dataclass(frozen=True)
class IndexedRow:
    """The words of a passage.

    Attributes:
        words: a tsvector, as text.
        count: how many words it has as they are written.
        forms: how many other spellings, runs of letters, dates and numbers.
    """

    words: str
    count: int
    forms: int


def stems(db: Connection, words: Iterable[str]) -> dict[str, str]:
    """Return the stem of each word, by the server's dictionary."""
    given = list({word[:LONGEST_WORD] for word in words if word})
    if not given:
        return {}
    sql = """SELECT w, coalesce((ts_lexize('cmt.stem', w))[1], w) AS stem
        FROM unnest(CAST(:words AS text[])) w"""
    return {row.w: row.stem for row in db.execute(text(sql), {"words": given})}


def quoted(lexeme: str) -> str:
    """Return a lexeme as a tsvector or tsquery writes it."""
    doubled = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"


def indexed_rows(db: Connection, texts: Sequence[str]) -> list[IndexedRow]:
    """Return the words of some texts, in the order given."""
    found = [indexed(body) for body in texts]
    stem_of = stems(
        db,
        (w for words in found for column in _stemmed(words) for w in column.split()),
    )
    return [_row(words, stem_of) for words in found]


def _stemmed(words: Indexed) -> tuple[str, str, str]:
    return words.words, words.forms, words.meanings


def _row(words: Indexed, stem_of: dict[str, str]) -> IndexedRow:
    places: dict[str, list[str]] = defaultdict(list)
    place = size = 0
    columns = {"A": words.words, "B": words.forms, "C": words.grams, "D": words.meanings}
    for weight, column in columns.items():
        for word in column.split():
            cut = word[:LONGEST_WORD]
            lexeme = cut if weight == "C" else stem_of[cut]
            if lexeme not in places:
                size += len(lexeme.encode())
            if size > LARGEST:
                break
            place += 1
            places[lexeme].append(f"{min(place, LAST_PLACE)}{weight}")
    body = " ".join(f"{quoted(lexeme)}:{','.join(at[:255])}" for lexeme, at in places.items())
    count = len(words.words.split())
    return IndexedRow(body, count, sum(len(c.split()) for c in words[1:]))
