"""Retriever: a question becomes a ranked list of passages. Imports no torch and no SQL."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from cmt_sdk.config.settings import DEFAULT_RERANK_DEPTH
from cmt_sdk.encoding import PassageEncoder
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.ports import Engine, Store, VectorIndex
from cmt_sdk.retrieval.candidates import Candidate, candidate_of, hits_of, match_of, ordered
from cmt_sdk.retrieval.context import MESSAGE, MESSAGE_TOKENS, QUERY, Exchange, exchanges, shortened
from cmt_sdk.retrieval.lru_cache import LRUCache
from cmt_sdk.retrieval.question import check_question
from cmt_sdk.retrieval.ranking import fuse
from cmt_sdk.retrieval.supersession import Supersession
from cmt_sdk.system.background import PriorityLock
from cmt_sdk.system.handles import NoModel
from cmt_sdk.text.notation import in_notation_of
from cmt_sdk.text.words.folding import legible
from cmt_sdk.types import (
    SEARCH_MODES,
    CompressedPassage,
    Filter,
    Hit,
    Match,
    Passage,
    SearchMode,
    Turn,
    Vector,
)

CANDIDATES = 50
NEAR = 5  # passages that a search after an earlier exchange finds
FADE = 0.97  # factor on their scores for each exchange further back
WORST_PLACE = 0.5  # place of the passage that fits least after an exchange
PLACE_RANGE = 3.0  # places between that one and the one that fits best
CLEAR = 8.0  # lead of the best passage, in nats, from which on earlier exchanges are ignored


def _check_k(k: int) -> None:
    if k < 1:
        raise InvalidSetting(f"k={k}: ask for at least one passage")


@dataclass
class Retriever:
    """Search over one store, one index and one engine. Calls that use the model hold `lock`.

    Attributes:
        passage_encoder: compresses the passages that a search needs.
        rerank_depth: how many of the first passages the model puts in order; 0: none.
        supersession: compares the passages that were found.
    """

    store: Store
    index: VectorIndex
    engine: Engine
    passage_encoder: PassageEncoder
    rerank_depth: int = 0
    # by question and passage
    _words: LRUCache[tuple[str, int], list[float]] = field(default_factory=LRUCache)

    def __post_init__(self) -> None:
        self.supersession = Supersession(
            self.index, self.engine, self.passage_encoder, self._word_likelihoods
        )

    @property
    def lock(self) -> PriorityLock | NoModel:
        """The lock around the engine, which the passage encoder shares."""
        return self.passage_encoder.lock

    def embed_question(self, question: str) -> Vector:
        """Return the question's vector, float32 [dimension]."""
        self.passage_encoder.check_fingerprint()
        with self.lock:
            return self.engine.compressor.embed_question(legible(question))

    def intent_scores(self, texts: Sequence[str]) -> Vector:
        """Return intent scores of texts, float32 [n, labels], for `understanding.understand`."""
        with self.lock:
            return self.engine.intent_scores(texts)

    def small_talk(self, text: str) -> list[tuple[float, str, str]]:
        """Return exchanges of small talk, nearest to a text first; see Engine.small_talk."""
        with self.lock:
            return self.engine.small_talk(text)

    def search(
        self,
        query: str,
        k: int,
        filter: Filter,
        mode: SearchMode = "fused",
        vector: Vector | None = None,
    ) -> list[Match]:
        """Return the k best passages, best first.

        Args:
            query: the question.
            k: passages to return.
            filter: which documents to search.
            mode: "vector" searches by meaning, "text" by words, "fused" by both; "reranked" then
                lets the model score the query after each of the first few, compressed.
            vector: the query's vector where it is known; saves embedding it again.

        Raises:
            InvalidInput, InvalidSetting: a query, `k` or mode that cannot be.
            ModelMismatch: another model made the stored compressed passages.
        """
        check_question(query)
        _check_k(k)
        if mode not in SEARCH_MODES:
            raise InvalidSetting(f"mode={mode!r}: choose one of {', '.join(SEARCH_MODES)}")
        limit = max(CANDIDATES, k)
        by_words = self.store.search_text(query, limit, filter) if mode != "vector" else []
        by_meaning = []
        if mode != "text":
            by_meaning = self._near(
                self.embed_question(query) if vector is None else vector, limit, filter
            )
        if mode != "reranked":
            return self._matches(by_meaning, by_words, k)
        most = max(k, self.rerank_depth or DEFAULT_RERANK_DEPTH)
        return self.rerank(query, self._matches(by_meaning, by_words, most))[:k]

    def gather(
        self,
        question: str,
        earlier: Sequence[Exchange],
        k: int,
        filter: Filter,
        vector: Vector | None = None,
    ) -> list[Candidate]:
        """Return at least k passages that may fit a question after earlier exchanges (latest
        first).

        The question is searched alone and after each exchange; a passage keeps its best place.

        Example:
            "When does it open?", after "Where is the museum?", alone finds A and B at places 0 and
            1. After the exchange B fits best, at -2.5, and C less, at -1: the candidates are B
            (place -2.5, alone 1), C (place -1, alone None) and A (place 0, alone 0).
        """
        alone = self.search(question, max(k, self.rerank_depth), filter, vector=vector)
        best = {m.passage.id: Candidate(m, n, n) for n, m in enumerate(alone)}
        for found in self._after(question, earlier, filter) if earlier else ():
            known = best.get(found.match.passage.id, found)
            place = min(known.place, found.place)
            nearer = (found.match.vector_score or -1.0) > (known.match.vector_score or -1.0)
            about = found.about if known is found or nearer else None
            best[found.match.passage.id] = replace(known, place=place, about=about)
        return sorted(best.values(), key=lambda found: found.place)

    def _after(self, question: str, earlier: Sequence[Exchange], filter: Filter) -> list[Candidate]:
        """Search the question after each exchange; return one list, best first.

        Scores of all searches are compared directly, so that an exchange on a subject that is not
        in the memory adds little. Each exchange further back counts a little less.
        """
        meaning: dict[int, tuple[float, int]] = {}
        words: dict[int, tuple[float, int]] = {}
        for back, exchange in enumerate(earlier):
            query = exchange.query(question)
            by_meaning = self._near(self.embed_question(query), NEAR, filter)
            for best, hits in (
                (words, self.store.search_text(query, NEAR, filter)),
                (meaning, by_meaning),
            ):
                for hit in hits:
                    best[hit.passage_id] = max(
                        best.get(hit.passage_id, (-inf, 0)), (hit.score * FADE**back, back)
                    )
        back_of = {i: back for best in (words, meaning) for i, (_, back) in best.items()}
        depth = self.rerank_depth or DEFAULT_RERANK_DEPTH
        found = self._matches(hits_of(meaning), hits_of(words), depth)
        shares = [m.score / (found[0].score or 1.0) for m in found]
        # without reranking, passages found for the question alone come first
        places = [
            WORST_PLACE - PLACE_RANGE * share if self.rerank_depth else n + WORST_PLACE
            for n, share in enumerate(shares)
        ]
        return [
            candidate_of(m, p, back_of[m.passage.id], earlier, FADE)
            for m, p in zip(found, places, strict=True)
        ]

    def compress_missing(self, candidates: Sequence[Candidate]) -> None:
        """Compress the pending ones of the first candidates: ranking needs their compressed forms
        and embeddings.
        """
        first = [c.match.passage for c in candidates[: self.rerank_depth]]
        known = self.index.vectors([p.id for p in first]) if first else {}
        missing = [p for p in first if p.id not in known]
        if missing and not self.store.read_only:
            self.passage_encoder.compress_passages(missing)

    def rank(
        self,
        question: str,
        candidates: Sequence[Candidate],
        loaded: MutableMapping[int, CompressedPassage] | None = None,
        read: int = 0,
    ) -> list[Candidate]:
        """Order candidates by the log probability of the question after each, compressed.

        That of a cold passage is not known. Those among the first `read` are read from their text,
        which the answer does in any case, and these first ones are put in order once more.

        Args:
            question: as it was asked.
            candidates: as `gather` returns them.
            loaded: passages by passage id, as the reader takes them; those that ranking loads or
                reads are added, for the reader.
            read: how many of the first the answer reads; 0 where no answer follows.
        """
        loaded = {} if loaded is None else loaded
        ranked = self._rank(question, candidates, loaded)
        first = ranked[: min(read, self.rerank_depth)]
        cold = [c.match.passage for c in first if c.match.likelihood is None]
        if not cold or len(first) < 2:
            return ranked
        self.passage_encoder.readable(cold, loaded)
        first = self._rank(question, sorted(first, key=lambda c: c.place), loaded)
        lowest = first[-1].match.score  # scores fall along the result
        rest = (
            replace(c, match=replace(c.match, score=min(c.match.score, lowest)))
            for c in ranked[len(first) :]
        )
        return [*first, *rest]

    def _rank(
        self,
        question: str,
        candidates: Sequence[Candidate],
        loaded: MutableMapping[int, CompressedPassage],
    ) -> list[Candidate]:
        """Order candidates, best place first, as far as their likelihood is known.

        If the best candidate is the same with and without history, the order without history
        stays. If it leads by CLEAR nats, the reader gets no earlier exchange.

        Example:
            Of the candidates B, C and A of `gather`, A and B were found alone. Reordered by
            likelihood, B leads among A and B, and among B, C and A: the result is B, A, C. If C led
            among the three, the result would be their order.
        """
        found_alone = sorted(
            (c for c in candidates if c.alone is not None), key=lambda c: c.alone or 0
        )
        only_in_context = [c for c in candidates if c.alone is None]
        has_context = any(c.place != c.alone for c in candidates)
        first_alone = found_alone[: self.rerank_depth]
        first_in_context = candidates[: 2 * self.rerank_depth if has_context else 0]
        judged = {c.match.passage.id: c.match.passage for c in (*first_alone, *first_in_context)}
        likely: dict[int, float] = {}
        if len(judged) > 1:
            question = in_notation_of(legible(question), [p.content for p in judged.values()])
            likely = self.likelihoods(question, list(judged.values()), loaded)
        by_itself = ordered(found_alone, [c.alone or 0.0 for c in first_alone], likely)
        in_context = by_itself
        if has_context:
            in_context = ordered(candidates, [c.place for c in first_in_context], likely)
        if (
            not (likely and by_itself)
            or by_itself[0].match.passage.id != in_context[0].match.passage.id
        ):
            return in_context
        best, second, *_ = sorted(likely.values(), reverse=True)
        return [
            replace(c, about=None) if best - second >= CLEAR else c
            for c in (*by_itself, *only_in_context)
        ]

    def shorten(self, message: str) -> str:
        """Return a message of a conversation, shortened in its middle to what the model reads."""
        message = shortened(message, MESSAGE)
        while len(message.encode(errors="replace")) > MESSAGE_TOKENS:
            tokens = self.engine.count_tokens([message])[0]
            if tokens <= MESSAGE_TOKENS:
                break
            message = shortened(message, 9 * len(message) * MESSAGE_TOKENS // (10 * tokens))
        return message

    def search_after(
        self, message: str, history: Sequence[Turn], k: int, filter: Filter
    ) -> list[Match]:
        """Return the k passages that `model.ask` would read for a message after these turns, best
        first.
        """
        _check_k(k)
        query = shortened(message, QUERY)
        found = self.gather(query, exchanges(history), k, filter)
        self.compress_missing(found)
        return [c.match for c in self.rank(query, found)[:k]]

    def nearest(self, vector: Vector, k: int, filter: Filter) -> list[Match]:
        """Return the k passages whose embeddings are nearest to a vector, float32 [dimension]."""
        _check_k(k)
        return self._matches(self._near(vector, k, filter), [], k)

    def _near(self, vector: Vector, limit: int, filter: Filter) -> list[Hit]:
        return self.index.search(vector, limit, None if filter.empty else self.store.choose(filter))

    def _matches(
        self, by_meaning: Sequence[Hit], by_words: Sequence[Hit], most: int
    ) -> list[Match]:
        """Fuse two lists, and read the first `most` passages that are still there."""
        fused = fuse(by_meaning, by_words, weight=self.engine.vector_weight if by_meaning else 1.0)
        matches: list[Match] = []
        for first in range(0, len(fused), most):
            some = fused[first : first + most]
            found = self.store.passages([f.passage_id for f in some])
            matches += [match_of(f, *found[f.passage_id]) for f in some if f.passage_id in found]
            if len(matches) >= most:
                break
        return matches[:most]

    def rerank(self, query: str, matches: Sequence[Match]) -> list[Match]:
        """Put the first few in a new order. A pending passage is ordered by its place
        alone.
        """
        first = matches[: self.rerank_depth or DEFAULT_RERANK_DEPTH]
        likely = self.likelihoods(query, [m.passage for m in first])
        candidates = [Candidate(m, n, n) for n, m in enumerate(matches)]
        return [c.match for c in ordered(candidates, range(len(first)), likely)]

    def likelihoods(
        self,
        query: str,
        passages: Sequence[Passage],
        loaded: MutableMapping[int, CompressedPassage] | None = None,
    ) -> dict[int, float]:
        """Return the log probability of the query after each compressed passage, in nats, by
        passage id. A pending passage is missing.

        Empty for fewer than two passages: there is no order to choose. `loaded` as in `rank`.
        """
        rows = self._word_likelihoods(query, [p.id for p in passages], loaded)
        likely = {i: sum(row) for i, row in rows.items()}
        return likely if len(likely) > 1 else {}

    def _word_likelihoods(
        self,
        query: str,
        passages: Sequence[int],
        loaded: MutableMapping[int, CompressedPassage] | None = None,
    ) -> dict[int, list[float]]:
        """Return the log probability of each token of the query after each compressed passage, by
        passage id, in the order given. A pending passage is missing.

        Rows that were computed for this query lately are used again. `loaded` as in `rank`.
        """
        rows = {i: self._words.get((query, i)) for i in passages}
        missing = [i for i, row in rows.items() if row is None]
        loaded = {} if loaded is None else loaded
        if absent := [i for i in missing if i not in loaded]:
            loaded.update(self.passage_encoder.load(absent))
        stored = {i: loaded[i] for i in missing if i in loaded}
        if stored:
            with self.lock:
                made = self.engine.reader.word_likelihoods(query, list(stored.values()))
            for i, row in zip(stored, made, strict=True):
                rows[i] = row
                self._words.put((query, i), row)
        return {i: row for i, row in rows.items() if row is not None}
