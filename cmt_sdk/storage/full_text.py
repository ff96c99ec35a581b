"""Full-text search over passages: FTS5 and BM25 (sqlite.org/fts5.html).

Scoring a row costs some twenty times as much as finding it, and a common word is in most rows. So
only rows that have one of the rarest words of a query are scored, by all of its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from cmt_sdk.storage.connection import Database
from cmt_sdk.storage.filters import conditions
from cmt_sdk.text import words
from cmt_sdk.types import Filter, Hit

MAX_FTS_TERMS = 200  # words of a query that are searched: the time of FTS5 grows faster than them
ROWS = 4_000  # of a table that are scored, more where too few of them fit the filter
ROWS_OF_FEW = 8_000  # the same where few of them can fit it, so that few are scored
MORE = 8  # times as many then
ENOUGH = 5  # one hit in so many of those asked for
FEW = 2_000  # passages of a scope that are looked up before the search
LONGEST_LOOK = 20_000  # rows of a word that are looked through for one that fits the filter


@dataclass(frozen=True)
class _Table:
    """A table of the index. `weights` are those of its columns in BM25, 1 where it has none."""

    name: str
    weights: str = ""

    def scored(self, parameter: str, only: str) -> str:
        """Return SQL for the rows that match a bound query, with their scores, lower is better.

        `only` names a table of ids, or is empty. "+" has it looked at after the match.
        """
        return (
            f"SELECT rowid AS id, bm25({self.name}{self.weights}) AS score FROM {self.name}"
            f" WHERE {self.name} MATCH :{parameter}"
            + (f" AND +rowid IN (SELECT id FROM {only})" if only else "")
        )


WORDS = _Table("passage_text")
# a word in another form, a word within a longer one, a date or number in any notation
FORMS = _Table("passage_forms", ", 0.5, 0.5, 2.0")


@dataclass(frozen=True)
class _Allowed:
    """Which rows may be found, as SQL.

    Attributes:
        chosen: a query for the ids of the passages, where they are few; else empty.
        alive: follows `FROM found`, and keeps the passages of documents that fit.
        rows: of a table that are scored.
        looked_up: rows whose documents are looked up at first, for each hit asked for.
    """

    chosen: str
    alive: str
    rows: int
    looked_up: int


class FullText(Database):
    """The full-text index of one folder."""

    def search_text(self, query: str, limit: int, filter: Filter) -> list[Hit]:
        """Search full text by BM25 (sqlite.org/fts5.html, section 5.1.1); return hits, best first.

        Any word of the query may match, in any of its spellings (cmt_sdk.text.words). Of a large
        memory, passages that have only its most common words are left out where others are enough.

        Args:
            query: the words.
            limit: hits at most.
            filter: which documents.
        """
        asked = words.asked(query)
        terms = _terms_of(asked)
        if not terms:
            return []
        where, values = conditions(replace(filter, history=False), self.now().timestamp())
        with self._read() as db:
            allowed = _allowed(db, filter, where, values)
            unknown = list(_unknown(db, asked, allowed, values))
            terms += _parts_of(unknown)
            forms = [f"{{forms meanings}} : ({term})" for term in terms]
            sought = {WORDS: terms, FORMS: [*forms, *map(_within, unknown)]}
            rows = allowed.rows
            while True:
                chosen = {table: _rarest(db, table, sought[table], rows) for table in sought}
                hits = _hits(db, chosen, allowed, values | {"limit": limit})
                if len(hits) * ENOUGH >= limit or not any(rest for _, rest in chosen.values()):
                    return hits
                rows *= MORE


def _allowed(db: Connection, filter: Filter, where: str, values: dict[str, Any]) -> _Allowed:
    """Return which rows may be found, and bind the values that this needs.

    Few passages of a scope are chosen first. Otherwise the documents of the rows found are
    looked up: CROSS says in which order.
    """
    found = (
        "CROSS JOIN passages p ON p.id = found.id CROSS JOIN documents d"
        f" ON d.key = p.document_key WHERE {where}"
    )
    if not filter.scope:
        return _Allowed("", found, ROWS, 2 if filter.empty else 20)
    few = (
        "SELECT p.id FROM documents d CROSS JOIN passages p ON p.document_key = d.key WHERE"
        f" {where} LIMIT {FEW + 1}"
    )
    ids, count = db.exec_driver_sql(
        f"SELECT json_group_array(id), count(*) FROM ({few})", values
    ).one()
    if count > FEW:
        return _Allowed("", found, ROWS, 20)
    values["chosen"] = ids
    chosen = "SELECT value AS id FROM json_each(:chosen)"
    return _Allowed(chosen, f"WHERE found.id IN ({chosen})", ROWS_OF_FEW, 0)


def _unknown(
    db: Connection, asked: words.Asked, allowed: _Allowed, values: dict[str, Any]
) -> Iterator[str]:
    """Yield the words that no passage has which fits the filter. A very common one counts as
    known.
    """
    found = f"""SELECT rowid AS id FROM passage_text WHERE passage_text MATCH :word
        LIMIT {LONGEST_LOOK}"""
    fits = f"SELECT 1 FROM ({found}) found {allowed.alive} LIMIT 1"
    looked = f"SELECT count(*) FROM ({found})"
    for word in sorted(asked.spelt, key=len, reverse=True)[:MAX_FTS_TERMS]:
        bound = values | {"word": f'"{word}"'}
        if db.exec_driver_sql(fits, bound).first():
            continue
        if db.exec_driver_sql(looked, bound).scalar_one() < LONGEST_LOOK:
            yield word


def _rarest(
    db: Connection, table: _Table, terms: Sequence[str], rows: int
) -> tuple[list[str], list[str]]:
    """Return the rarest terms, which have `rows` rows together, at least one term, and the others.
    Terms without a row are left out.
    """
    sql = (
        f"SELECT count(*) FROM (SELECT 1 FROM {table.name} WHERE {table.name} MATCH ? LIMIT"
        f" {rows + 1})"
    )
    counts = [(db.exec_driver_sql(sql, (term,)).scalar_one(), term) for term in terms]
    rare: list[str] = []
    rest: list[str] = []
    for count, term in sorted(counts, key=lambda counted: counted[0]):
        rows -= count
        if count:
            (rest if rare and rows < 0 else rare).append(term)
    return rare, rest


def _hits(
    db: Connection,
    chosen: dict[_Table, tuple[list[str], list[str]]],
    allowed: _Allowed,
    values: dict[str, Any],
) -> list[Hit]:
    """Score the rows that have a rare term, by all terms.

    BM25 is a sum over terms: of the two scores of a row, by its rare terms and, where it has
    others, by all, the second is its own.
    """
    scored = [f"chosen AS MATERIALIZED ({allowed.chosen})"] if allowed.chosen else []
    only = "chosen" if allowed.chosen else ""
    found = []
    for number, (table, (rare, rest)) in enumerate(chosen.items()):
        queries = [" OR ".join(rare)] if rare else []
        if rest:
            queries.append(f"({queries[0]}) AND ({' OR '.join(rest)})")
        names = [f"q{number}{n}" for n in range(len(queries))]
        values |= dict(zip(names, queries, strict=True))
        # computed before anything is joined: bm25() is defined there alone
        scored += [f"{name} AS MATERIALIZED ({table.scored(name, only)})" for name in names]
        every = " UNION ALL ".join(f"SELECT id, score FROM {name}" for name in names)
        if every:
            found.append(f"SELECT id, min(score) AS score FROM ({every}) GROUP BY id")
    if not found:
        return []
    sql = f"""WITH {", ".join(scored)},
        found AS MATERIALIZED (SELECT id, sum(score) AS score FROM ({" UNION ALL ".join(found)})
        GROUP BY id ORDER BY score, id LIMIT :first)
        SELECT found.id, found.score FROM found {"" if only else allowed.alive}
        ORDER BY score, found.id LIMIT :limit"""
    first = values["limit"] * allowed.looked_up
    rows = db.exec_driver_sql(sql, values | {"first": first or -1}).all()
    if first and len(rows) < values["limit"]:  # too few of the best rows fit
        rows = db.exec_driver_sql(sql, values | {"first": -1}).all()
    return [Hit(row.id, -row.score) for row in rows]


def _terms_of(asked: words.Asked) -> list[str]:
    """Return FTS5 terms for the words of a question, quoted so that none is read as syntax
    (sqlite.org/fts5.html, section 3).

    Of a very long question only the longest MAX_FTS_TERMS words are searched.
    """
    longest = sorted(asked.words, key=len, reverse=True)[:MAX_FTS_TERMS]
    return [f'"{word}"' for word in longest] + [
        f'"{start}" *' for start in asked.starts[:MAX_FTS_TERMS]
    ]


def _parts_of(unknown: Sequence[str]) -> list[str]:
    """Return FTS5 terms for words that no passage has: words that begin with one, and the parts of
    a compound.
    """
    starts = [f'"{word}" *' for word in unknown]
    parts = [f'"{part}"' for word in unknown for part in words.heads_and_tails(word)]
    return [*starts, *parts[:MAX_FTS_TERMS]]


def _within(word: str) -> str:
    """Return an FTS5 phrase of a word's n-grams, which matches every longer word that holds it."""
    grams = " + ".join(f'"{gram}"' for gram in words.grams(word))
    return f"grams : ({grams})"
