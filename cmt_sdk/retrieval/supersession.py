"""Supersession: which of the passages that were found state an older value of a fact. Imports no
torch and no SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cmt_sdk.encoding import PassageEncoder
from cmt_sdk.ports import Engine, VectorIndex
from cmt_sdk.retrieval.lru_cache import LRUCache
from cmt_sdk.text.words.dates import dates
from cmt_sdk.text.words.folding import legible
from cmt_sdk.types import Match
from cmt_sdk.understanding import newest


@dataclass
class Supersession:
    """Compares passages by the measures of `understanding.newest`.

    Calls that use the model hold the lock of the passage encoder.

    Attributes:
        word_likelihoods: the log probability of each token of a question after each compressed
            passage, by passage id; see Retriever.
    """

    index: VectorIndex
    engine: Engine
    passage_encoder: PassageEncoder
    word_likelihoods: Callable[[str, Sequence[int]], Mapping[int, list[float]]]
    # the probe's scores, the older passage first
    _pairs: LRUCache[tuple[int, int], float] = field(default_factory=LRUCache)

    def choose_by_time(
        self, query: str, matches: Sequence[Match], *, with_statements: bool = True
    ) -> list[Match]:
        """Of the matches that state values of one fact, the best match's, let the newest lead.

        It takes the best place of these, and the others are marked as superseded. Where the query
        asks for what was before, the oldest takes it, and none is marked. Nothing changes where the
        query names its date.

        Args:
            query: the question.
            matches: best first.
            with_statements: False leaves out the pairs of statements of a conversation that the
                probe can judge, unless the query asks for what was before: Renewer decides these
                after the reading.
        """
        first = matches[: newest.CONTESTED]
        if len({m.passage.document_id for m in first}) < 2 or dates(query):
            return list(matches)
        scores = self._contested(matches)
        if not scores:
            return list(matches)
        asks_for_before = newest.asks_for_before(query)
        if not (with_statements or asks_for_before):
            scores = {
                index: score
                for index, score in scores.items()
                if score is None or not newest.are_statements(matches[0], matches[index])
            }
        same = {0, *self._of_same_fact(query, matches, scores)}
        if len(same) < 2:
            return list(matches)
        order = newest.oldest_first if asks_for_before else newest.newest_first
        return order(matches, same)

    def _contested(self, matches: Sequence[Match]) -> dict[int, float | None]:
        """The indices of the matches that may state another value of the same fact as the best
        match, each with the probe's score of the pair; None for one that it cannot judge.
        """
        ids = [m.passage.id for m in matches[: newest.CONTESTED]]
        near = newest.contested(matches, self.index.vectors(ids))
        pairs = [newest.in_order(matches[0], matches[index]) for index in near]
        return dict(zip(near, self.scores(pairs), strict=True))

    def _of_same_fact(
        self, query: str, matches: Sequence[Match], scores: Mapping[int, float | None]
    ) -> set[int]:
        """The indices, of those in `scores`, of the matches that state a value of the same fact as
        the best match: by the probe's score and the model's surprise at the words of the query.
        """
        if not scores:
            return set()
        ids = {index: matches[index].passage.id for index in (0, *scores)}
        rows = self.word_likelihoods(legible(query), list(ids.values()))
        best = rows.get(ids[0])
        others = {index: rows[ids[index]] for index in scores if ids[index] in rows}
        return {
            index
            for index, row in others.items()
            if best is not None and newest.is_same_fact(best, row, scores[index])
        }

    def superseded(self, text: str, matches: Sequence[Match]) -> list[Match]:
        """Return the matches that state an older value of something that `text` states now.

        Empty for a model without a shipped probe.
        """
        short = [m for m in matches if newest.is_short(m) and m.passage.text != text]
        scores = self._scored([newest.text_of(m.passage.content, text) for m in short])
        return [
            m
            for m, score in zip(short, scores, strict=True)
            if score is not None and score > newest.SURE
        ]

    def scores(self, pairs: Sequence[tuple[Match, Match]]) -> list[float | None]:
        """Return the probe's score of each pair, the older match first; None for one that it cannot
        judge.
        """
        ids = [(older.passage.id, newer.passage.id) for older, newer in pairs]
        scores = [self._pairs.get(pair) for pair in ids]
        new = [
            n
            for n, pair in enumerate(pairs)
            if scores[n] is None and all(map(newest.is_short, pair))
        ]
        texts = [newest.text_of(*(m.passage.content for m in pairs[n])) for n in new]
        for n, score in zip(new, self._scored(texts), strict=True):
            scores[n] = score
            if score is not None:
                self._pairs.put(ids[n], score)
        return scores

    def _scored(self, texts: Sequence[str]) -> Sequence[float | None]:
        """The probe's score of each text that `newest.text_of` makes of a pair; None for a model
        without a shipped probe.
        """
        if not texts:
            return []
        with self.passage_encoder.lock:
            probe = newest.supersession_probe(self.engine.state_reader.name)
            if probe is None:
                return [None] * len(texts)
            scores: list[float] = probe(self.engine.state_reader.states(texts)).tolist()
        return scores
