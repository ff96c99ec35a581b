"""Full-text search over passages: FTS5 and BM25 (sqlite.org/fts5.html)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import text

from cmt_sdk.storage.connection import Database
from cmt_sdk.storage.filters import conditions
from cmt_sdk.text import words
from cmt_sdk.types import Filter, Hit

MAX_FTS_TERMS = 200  # words of a query that are searched: the time of FTS5 grows faster than them
# BM25 weights of passage_forms, against 1 for a word as the query spells it: a word in another
# form, a word within a longer one, a date or number in any notation
WEIGHTS = "0.5, 0.5, 2.0"


class FullText(Database):
    """The full-text index of one folder."""

    def search_text(self, query: str, limit: int, filter: Filter) -> list[Hit]:
        """Search full text by BM25 (sqlite.org/fts5.html, section 5.1.1); return hits, best first.

        Any word of the query may match, in any of its spellings (cmt_sdk.text.words).

        Args:
            query: the words.
            limit: hits at most.
            filter: which documents.
        """
        asked = words.asked(query)
        whole = _any_of(asked)
        if not whole:
            return []
        where, values = conditions(replace(filter, history=False), self.now().timestamp())
        alive = (
            "JOIN passages p ON p.id = found.id JOIN documents d ON d.key = p.document_key WHERE"
            f" {where}"
        )
        sql = f"""WITH other AS MATERIALIZED (SELECT rowid AS id, bm25(passage_forms, {WEIGHTS})
            AS score
                FROM passage_forms WHERE passage_forms MATCH :forms),
            found AS (SELECT passage_text.rowid AS id, bm25(passage_text) + ifnull(other.score, 0)
                AS score
                FROM passage_text LEFT JOIN other ON other.id = passage_text.rowid
                    WHERE passage_text MATCH :words
                UNION ALL SELECT * FROM other)
            SELECT found.id, found.score FROM found {alive} ORDER BY score, found.id LIMIT :limit"""
        one = f"""WITH found AS (SELECT rowid AS id FROM passage_text
            WHERE passage_text MATCH :words)
            SELECT 1 FROM found {alive} LIMIT 1"""
        with self._read() as db:
            spelt = sorted(asked.spelt, key=len, reverse=True)[:MAX_FTS_TERMS]
            unknown = [
                w for w in spelt if not db.execute(text(one), values | {"words": f'"{w}"'}).first()
            ]
            whole = " OR ".join([whole, *_parts_of(unknown)])
            forms = " OR ".join([f"{{forms meanings}} : ({whole})", *map(_within, unknown)])
            rows = db.execute(
                text(sql), values | {"words": whole, "forms": forms, "limit": 2 * limit}
            ).all()
        # a passage can come twice: its first row has the full score
        best = {r.id: -r.score for r in reversed(rows)}
        return [Hit(i, best[i]) for i in list(dict.fromkeys(r.id for r in rows))[:limit]]


def _any_of(asked: words.Asked) -> str:
    """Return an FTS5 query for any word of a question, quoted so that none is read as syntax
    (sqlite.org/fts5.html, section 3); empty where there are none.

    Of a very long question only the longest MAX_FTS_TERMS words are searched.
    """
    longest = sorted(asked.words, key=len, reverse=True)[:MAX_FTS_TERMS]
    return " OR ".join(
        [f'"{word}"' for word in longest]
        + [f'"{start}" *' for start in asked.starts[:MAX_FTS_TERMS]]
    )


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
