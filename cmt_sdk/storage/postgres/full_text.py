"""Full-text search in Postgres: tsvectors choose the rows, BM25 scores them here.

`ts_rank` knows no document frequency. BM25 is that of SQLite's FTS5, over the same two groups of
words (sqlite.org/fts5.html, section 5.1.1), with Lucene's inverse document frequency, which stays
positive for the words of a handful of passages:
https://lucene.apache.org/core/9_0_0/core/org/apache/lucene/search/similarities/BM25Similarity.html.
Frequencies are those among the passages that fit the filter: a score depends on nothing outside.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from cmt_sdk.storage.postgres.connection import Server
from cmt_sdk.storage.postgres.passages import JOINED
from cmt_sdk.storage.postgres.words import LONGEST_WORD, quoted, stems
from cmt_sdk.text import words
from cmt_sdk.types import Filter, Hit

MAX_TERMS = 200  # words of a query that are searched
ROWS = 2_000  # that are scored, unless the rarest word alone has more
MOST_ROWS = 20_000  # that are scored where every word is in more
K1, B = 1.2, 0.75
AS_WRITTEN = {"A": 1.0}
OTHERWISE = {"B": 0.5, "C": 0.5, "D": 2.0}


@dataclass(frozen=True)
class Term:
    """What is searched: a lexeme, the beginning of one (`starts`), or one after the other
    (`grams`).
    """

    word: str
    starts: bool = False
    grams: tuple[str, ...] = ()

    def query(self, weights: str) -> str:
        """Return it as a tsquery of these weights; "" where it never has them."""
        if self.grams:
            return " <-> ".join(f"{quoted(g)}:C" for g in self.grams) if "C" in weights else ""
        allowed = weights.replace("C", "")
        return f"{quoted(self.word)}:{'*' if self.starts else ''}{allowed}" if allowed else ""

    def fits(self, lexeme: str) -> bool:
        """Return whether a lexeme is meant; of `grams`, none by itself is."""
        if self.grams:
            return False
        return lexeme.startswith(self.word) if self.starts else lexeme == self.word


@dataclass(frozen=True)
class _Group:
    """A group of weights, which BM25 scores by itself."""

    weights: Mapping[str, float]
    length: str  # the column with the number of its words

    @property
    def letters(self) -> str:
        return "".join(self.weights)


GROUPS = (_Group(AS_WRITTEN, "word_count"), _Group(OTHERWISE, "form_count"))


@dataclass
class _Counts:
    """How many passages fit the filter, their words by group on average, and how many of them have
    each term, by group.
    """

    passages: int
    lengths: tuple[float, ...]
    of: dict[Term, tuple[int, ...]]


class PostgresFullText(Server):
    """The full-text search of one database."""

    def search_text(self, query: str, limit: int, filter: Filter) -> list[Hit]:
        """Search full text by BM25; return hits, best first.

        Any word of the query may match, in any of its spellings (cmt_sdk.text.words). Of many
        passages, those that have only the most common words are left out where others are enough.

        Args:
            query: the words.
            limit: hits at most.
            filter: which documents.
        """
        asked = words.asked(query)
        longest = sorted(asked.words, key=len, reverse=True)[:MAX_TERMS]
        starts = [Term(start, starts=True) for start in asked.starts[:MAX_TERMS]]
        if not longest and not starts:
            return []
        where, values = self._conditions(replace(filter, history=False), self.now().timestamp())
        with self._read() as db:
            spelt = sorted(asked.spelt, key=len, reverse=True)[:MAX_TERMS]
            stem_of = stems(db, [*longest, *spelt])
            terms = [Term(stem_of[word[:LONGEST_WORD]]) for word in longest] + starts
            counts = _counted(db, terms, where, values)
            unknown = [w for w in spelt if not counts.of[Term(stem_of[w[:LONGEST_WORD]])][0]]
            if unknown:
                more = _parts_of(db, unknown)
                counts.of |= _counted(db, more, where, values).of
            rare = _rarest(counts, limit)
            return _scored(db, rare, counts, where, values)[:limit]


def _parts_of(db: Connection, unknown: Sequence[str]) -> list[Term]:
    """Return terms for words that no passage has: words that begin with one, the parts of a
    compound, and longer words that hold one.
    """
    parts = [part for word in unknown for part in words.heads_and_tails(word)][:MAX_TERMS]
    stem_of = stems(db, [*parts, *unknown])
    begun = [Term(stem_of[word[:LONGEST_WORD]], starts=True) for word in unknown]
    within = [Term(word, grams=tuple(words.grams(word[:LONGEST_WORD]))) for word in unknown]
    return [*begun, *(Term(stem_of[part]) for part in parts), *within]


def _counted(
    db: Connection, terms: Sequence[Term], where: str, values: Mapping[str, Any]
) -> _Counts:
    """Count the passages that fit the filter, and those of them that have each term."""
    distinct = list(dict.fromkeys(terms))
    bound = dict(values)
    columns = []
    for n, term in enumerate(distinct):
        for g, group in enumerate(GROUPS):
            bound[f"t{n}_{g}"] = term.query(group.letters)
            columns.append(
                f"count(*) FILTER (WHERE p.words @@ CAST(:t{n}_{g} AS tsquery))"
                if bound[f"t{n}_{g}"]
                else "0"
            )
            if not bound[f"t{n}_{g}"]:
                del bound[f"t{n}_{g}"]
    averages = ", ".join(f"coalesce(avg(p.{group.length}), 0)" for group in GROUPS)
    sql = f"SELECT count(*), {averages}, {', '.join(columns) or '0'} FROM {JOINED} WHERE {where}"
    passages, *rest = db.execute(text(sql), bound).one()
    lengths = tuple(float(length) for length in rest[: len(GROUPS)])
    found = rest[len(GROUPS) :]
    of = {
        term: tuple(found[n * len(GROUPS) : (n + 1) * len(GROUPS)])
        for n, term in enumerate(distinct)
    }
    return _Counts(passages, lengths, of)


def _rarest(counts: _Counts, limit: int) -> list[Term]:
    """Return the rarest terms: as many as have ROWS passages together, at least one, and enough for
    the hits asked for. Terms that nothing has are left out.
    """
    rare: list[Term] = []
    rows = 0
    for term, found in sorted(counts.of.items(), key=lambda item: sum(item[1])):
        if not sum(found):
            continue
        if rare and rows >= limit and rows + sum(found) > ROWS:
            break
        rare.append(term)
        rows += sum(found)
    return rare


def _scored(
    db: Connection,
    rare: Sequence[Term],
    counts: _Counts,
    where: str,
    values: Mapping[str, Any],
) -> list[Hit]:
    """Score the passages that have one of the rare terms, by all terms; best first."""
    if not rare:
        return []
    queries = [q for term in rare for group in GROUPS if (q := term.query(group.letters))]
    present = [term for term, found in counts.of.items() if sum(found)]
    phrases = [term for term in present if term.grams]
    bound = dict(values) | {
        "rare": " | ".join(f"({q})" for q in queries),
        "lexemes": [t.word for t in present if not (t.starts or t.grams)],
        "starts": [t.word for t in present if t.starts],
        "phrases": [t.query("C") for t in phrases],
    }
    # the lexemes that are asked for, with their weights, and the numbers of the phrases
    sql = f"""WITH found AS MATERIALIZED (
            SELECT p.id, p.words, p.word_count, p.form_count FROM {JOINED}
            WHERE {where} AND p.words @@ CAST(:rare AS tsquery) LIMIT {MOST_ROWS})
        SELECT f.id, f.word_count, f.form_count, u.lexeme, u.weights, 0 AS phrase
        FROM found f CROSS JOIN LATERAL unnest(f.words) u
        WHERE u.lexeme = ANY(CAST(:lexemes AS text[]))
            OR EXISTS (SELECT 1 FROM unnest(CAST(:starts AS text[])) s WHERE u.lexeme ^@ s)
        UNION ALL
        SELECT f.id, f.word_count, f.form_count, NULL, NULL, q.place FROM found f
        JOIN unnest(CAST(:phrases AS tsquery[])) WITH ORDINALITY AS q (query, place)
            ON f.words @@ q.query"""
    frequencies: dict[int, dict[Term, list[float]]] = defaultdict(dict)
    sizes: dict[int, tuple[int, int]] = {}
    by_word = {t.word: t for t in present if not (t.starts or t.grams)}
    begun = [t for t in present if t.starts]
    for row in db.execute(text(sql), bound):
        sizes[row.id] = (row.word_count, row.form_count)
        meant = [phrases[row.phrase - 1]] if row.phrase else []
        if not row.phrase:
            meant = [t for t in begun if t.fits(row.lexeme)]
            meant += [by_word[row.lexeme]] if row.lexeme in by_word else []
        for term in meant:
            of_term = frequencies[row.id].setdefault(term, [0.0] * len(GROUPS))
            for g, group in enumerate(GROUPS):
                of_term[g] += sum(group.weights.get(w, 0.0) for w in row.weights or ["C"])
    hits = [Hit(i, _bm25(of, sizes[i], counts)) for i, of in frequencies.items()]
    return sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))


def _bm25(
    frequencies: Mapping[Term, Sequence[float]], sizes: Sequence[int], counts: _Counts
) -> float:
    """Return the score of a passage, by the weighted frequencies of its terms by group."""
    score = 0.0
    for term, by_group in frequencies.items():
        for g, frequency in enumerate(by_group):
            having = counts.of[term][g]
            if not frequency or not having:
                continue
            rarity = math.log1p((counts.passages - having + 0.5) / (having + 0.5))
            length = sizes[g] / (counts.lengths[g] or 1.0)
            score += rarity * frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length))
    return score
