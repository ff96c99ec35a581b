"""Finding: a question becomes a ranked list of passages, and passages become memories. No torch, no
SQL in here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Protocol

from cmt_sdk import newest
from cmt_sdk.background import Turns
from cmt_sdk.config import RERANKED
from cmt_sdk.context import MESSAGE, MESSAGE_TOKENS, QUERY, Exchange, exchanges, shortened
from cmt_sdk.errors import CMTError, InvalidInput, InvalidSetting, ModelMismatch
from cmt_sdk.handles import NoModel
from cmt_sdk.notation import in_notation_of
from cmt_sdk.ports import Compressor, Listener, Reader, Store, VectorIndex
from cmt_sdk.ranking import fuse, reorder
from cmt_sdk.recent import Recent
from cmt_sdk.rendering import render
from cmt_sdk.scopes import UNSOUND
from cmt_sdk.types import (
    SEARCH_MODES,
    Encoded,
    Filter,
    Fingerprint,
    Hit,
    Match,
    PackedMemory,
    Passage,
    SearchMode,
    Turn,
    Vector,
)
from cmt_sdk.words.dates import dates
from cmt_sdk.words.folding import legible

log = logging.getLogger(__name__)

CANDIDATES = 50
NEAR = 5  # passages that are found for a question after an earlier exchange
FADE = 0.97  # what their scores are worth for each exchange further back
# places: of what an exchange makes fit least, and how far the best is before it
BEHIND, AHEAD_BY = 0.5, 3.0
CLEAR = 8.0  # nats by which the best passage fits a question better that says what it is about
LONGEST_QUESTION = 20_000  # characters
BATCH, AHEAD = 16, 64  # passages compressed together, out of so many that wait longest
PATIENCE = 60.0  # seconds for another process that is at work on the same passages


def check_question(text: str) -> None:
    """Raise InvalidInput for an empty or too long question, or one with NUL or a surrogate."""
    if not text.strip():
        raise InvalidInput("the question is empty")
    if len(text) > LONGEST_QUESTION:
        raise InvalidInput(
            f"the question has {len(text):,} characters, the limit is {LONGEST_QUESTION:,}: add"
            " what it quotes, then ask"
        )
    if UNSOUND.search(text):
        raise InvalidInput(
            "the question holds NUL or a lone surrogate: decode it again, for example with"
            " errors='replace'"
        )


class Engine(Protocol):
    """The language model in its roles; each is made on first use, because loading it takes
    seconds.
    """

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without loading the model."""

    @property
    def loaded(self) -> bool:
        """True once the model is in memory."""

    @property
    def forks(self) -> bool:
        """Whether a child of this process could use it too."""

    @property
    def compressor(self) -> Compressor:
        """The compressor, which loads the model."""

    @property
    def reader(self) -> Reader:
        """The reader, which loads the model."""

    def judge(self, texts: Sequence[str]) -> Vector:
        """What texts want, as scores [n, labels] for `understanding.understand`; loads the
        model.
        """

    def small_talk(self, text: str) -> list[tuple[float, str, str]]:
        """Exchanges of small talk, each after its nearness to a text, at most 1; nearest first.
        Loads the model.
        """

    @property
    def listener(self) -> Listener:
        """The listener, which loads the model."""

    @property
    def vector_weight(self) -> float:
        """How much closeness in meaning counts against words in common (1: the same), as
        `ranking.fuse` adds them.
        """


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that may fit a question.

    `alone` is its place, from 0, where the question is searched by itself; `place` the best one of
    that and of the places where it is searched after an earlier exchange, which is `about` then.
    """

    match: Match
    place: float
    alone: float | None = None
    about: Exchange | None = None


@dataclass
class Retriever:
    """Search and loading over one store, one index and one engine; every call into the engine holds
    `lock`.
    """

    store: Store
    index: VectorIndex
    engine: Engine
    memory_budget: int = 0
    reranked: int = 0
    lock: Turns | NoModel = field(default_factory=Turns)
    _dimension: int = 0
    # by question and passage
    _words: Recent[tuple[str, int], list[float]] = field(default_factory=Recent)
    # the probe's numbers, the older passage first
    _pairs: Recent[tuple[int, int], float] = field(default_factory=Recent)

    def encode(self, question: str) -> Vector:
        """The question's vector, shape [dimension]."""
        self.check_fingerprint()
        with self.lock:
            return self.engine.compressor.encode_query(legible(question))

    def scores(self, texts: Sequence[str]) -> Vector:
        """What the texts want: scores [n, labels], as `understanding.understand` takes them."""
        with self.lock:
            return self.engine.judge(texts)

    def small_talk(self, text: str) -> list[tuple[float, str, str]]:
        """Exchanges of small talk, each after its nearness to a text, at most 1; nearest first."""
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
        """The k best passages, best first. `vector` saves encoding the query again.

        "vector" looks by meaning, "text" by words, "fused" by both; "reranked" then lets the model
        read the query after the memory of each of the first few.
        """
        check_question(query)
        if k < 1:
            raise InvalidSetting(f"k={k}: ask for at least one passage")
        if mode not in SEARCH_MODES:
            raise InvalidSetting(f"mode={mode!r}: choose one of {', '.join(SEARCH_MODES)}")
        limit = max(CANDIDATES, k)
        by_words = self.store.search_text(query, limit, filter) if mode != "vector" else []
        by_meaning = []
        if mode != "text":
            by_meaning = self._near(self.encode(query) if vector is None else vector, limit, filter)
        matches = self._matches(by_meaning, by_words)
        return (self.rerank(query, matches) if mode == "reranked" else matches)[:k]

    def gather(
        self,
        question: str,
        earlier: Sequence[Exchange],
        k: int,
        filter: Filter,
        vector: Vector | None = None,
    ) -> list[Candidate]:
        """At least k passages that may fit a question after earlier exchanges, which come latest
        first.

        The question is searched by itself and after each exchange; a passage keeps its best place.
        """
        alone = self.search(question, max(k, self.reranked), filter, vector=vector)
        best = {m.passage.id: Candidate(m, n, n) for n, m in enumerate(alone)}
        for found in self._after(question, earlier, filter) if earlier else ():
            known = best.get(found.match.passage.id, found)
            place = min(known.place, found.place)
            nearer = (found.match.vector_score or -1.0) > (known.match.vector_score or -1.0)
            about = found.about if known is found or nearer else None
            best[found.match.passage.id] = replace(known, place=place, about=about)
        return sorted(best.values(), key=lambda found: found.place)

    def _after(self, question: str, earlier: Sequence[Exchange], filter: Filter) -> list[Candidate]:
        """What is found for a question after each of the exchanges, in one list, best first.

        Scores of all searches are compared as they are, so that talk which nothing in the memory is
        about adds little; each exchange further back counts a little less.
        """
        meaning: dict[int, tuple[float, int]] = {}
        words: dict[int, tuple[float, int]] = {}
        for back, exchange in enumerate(earlier):
            query = exchange.query(question)
            by_meaning = self._near(self.encode(query), NEAR, filter)
            for best, hits in (
                (words, self.store.search_text(query, NEAR, filter)),
                (meaning, by_meaning),
            ):
                for hit in hits:
                    best[hit.passage_id] = max(
                        best.get(hit.passage_id, (-inf, 0)), (hit.score * FADE**back, back)
                    )
        back_of = {i: back for best in (words, meaning) for i, (_, back) in best.items()}
        found = self._matches(_hits(meaning), _hits(words))[: self.reranked or RERANKED]
        shares = [m.score / (found[0].score or 1.0) for m in found]
        # where nothing judges them, those of the question by itself come first
        places = [
            BEHIND - AHEAD_BY * share if self.reranked else n + BEHIND
            for n, share in enumerate(shares)
        ]
        return [
            _candidate(m, p, back_of[m.passage.id], earlier)
            for m, p in zip(found, places, strict=True)
        ]

    def encode_missing(self, candidates: Sequence[Candidate]) -> None:
        """Encode those of the first candidates that wait, since ranking judges by memories and
        embeddings.
        """
        first = [c.match.passage for c in candidates[: self.reranked]]
        known = self.index.vectors([p.id for p in first]) if first else {}
        missing = [p for p in first if p.id not in known]
        if missing and not self.store.read_only:
            self.encode_passages(missing)

    def judge(self, question: str, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates, best first, by how much the model expects the question after the memory of
        each.

        Where the best one would be the best by itself, nothing of what was said before changes the
        order; where it is the best by far, the question leans on none of that.
        """
        alone = sorted((c for c in candidates if c.alone is not None), key=lambda c: c.alone or 0)
        added = [c for c in candidates if c.alone is None]
        moved = any(c.place != c.alone for c in candidates)
        first, near = alone[: self.reranked], candidates[: 2 * self.reranked if moved else 0]
        judged = {c.match.passage.id: c.match.passage for c in (*first, *near)}
        if len(judged) > 1:
            question = in_notation_of(legible(question), [p.content for p in judged.values()])
        likely = self.likelihoods(question, list(judged.values())) if len(judged) > 1 else {}
        by_itself = _ordered(alone, [c.alone or 0.0 for c in first], likely)
        in_context = _ordered(candidates, [c.place for c in near], likely) if moved else by_itself
        if (
            not (likely and by_itself)
            or by_itself[0].match.passage.id != in_context[0].match.passage.id
        ):
            return in_context
        best, second, *_ = sorted(likely.values(), reverse=True)
        return [
            replace(c, about=None) if best - second >= CLEAR else c for c in (*by_itself, *added)
        ]

    def cut(self, message: str) -> str:
        """A message of a conversation, cut to what is read: its middle is left out."""
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
        """The k passages that `model.ask` would read for a message after these turns, best
        first.
        """
        query = shortened(message, QUERY)
        found = self.gather(query, exchanges(history), k, filter)
        self.encode_missing(found)
        return [c.match for c in self.judge(query, found)[:k]]

    def nearest(self, vector: Vector, k: int, filter: Filter) -> list[Match]:
        """The k passages whose embeddings are nearest to `vector`, shape [dimension]."""
        if k < 1:
            raise InvalidSetting(f"k={k}: ask for at least one passage")
        return self._matches(self._near(vector, k, filter), [])

    def _near(self, vector: Vector, limit: int, filter: Filter) -> list[Hit]:
        return self.index.search(vector, limit, None if filter.empty else self.store.choose(filter))

    def _matches(self, by_meaning: Sequence[Hit], by_words: Sequence[Hit]) -> list[Match]:
        fused = fuse(by_meaning, by_words, weight=self.engine.vector_weight if by_meaning else 1.0)
        found = self.store.passages([f.passage_id for f in fused])
        return [
            Match(
                *found[f.passage_id],
                f.score,
                f.vector_rank,
                f.vector_score,
                f.text_rank,
                f.text_score,
            )
            for f in fused
            if f.passage_id in found
        ]

    def rerank(self, query: str, matches: Sequence[Match]) -> list[Match]:
        """The first few in a new order; those whose memories are not there yet are judged by their
        places alone.
        """
        first = matches[: self.reranked or RERANKED]
        likely = self.likelihoods(query, [m.passage for m in first])
        candidates = [Candidate(m, n, n) for n, m in enumerate(matches)]
        return [c.match for c in _ordered(candidates, range(len(first)), likely)]

    def likelihoods(self, query: str, passages: Sequence[Passage]) -> dict[int, float]:
        """How likely the query is after each passage's memory, by passage id; of those that are
        stored.

        Empty where they are fewer than two: there is no order to choose.
        """
        likely = {
            i: sum(row)
            for i, row in self._word_likelihoods(query, [p.id for p in passages]).items()
        }
        return likely if len(likely) > 1 else {}

    def _word_likelihoods(self, query: str, passages: Sequence[int]) -> dict[int, list[float]]:
        """The log probability of each token of the query after each passage's memory, by passage
        id; of those that are stored.

        The order of the passages stays. What was computed for this query a moment ago is not
        computed again.
        """
        rows = {i: self._words.get((query, i)) for i in passages}
        missing = [i for i, row in rows.items() if row is None]
        if missing:
            stored = self.store.load(missing, self.engine.compressor.fingerprint)
            with self.lock:
                made = (
                    self.engine.reader.word_likelihoods(query, list(stored.values()))
                    if stored
                    else []
                )
            rows |= dict(zip(stored, made, strict=True))
            for i, row in zip(stored, made, strict=True):
                self._words.put((query, i), row)
        return {i: row for i, row in rows.items() if row is not None}

    def newest_first(self, query: str, matches: Sequence[Match]) -> list[Match]:
        """The matches, those marked that say an older value of the same as the best one, or as a
        newer one of its kind.

        The newest takes the best place. Where the query asks for what was before, none is marked,
        and the oldest takes it. A query that names its date says itself which one it means: nothing
        changes then. What is not near the best one in meaning costs nothing. What ranking computed
        is used again, and a pair is judged once.
        """
        first = matches[: newest.CONTESTED]
        if len({m.passage.document_id for m in first}) < 2 or dates(query):
            return list(matches)
        near = newest.contested(matches, self.index.vectors([m.passage.id for m in first]))
        pairs = [newest.in_order(matches[0], matches[n]) for n in near]
        probed = dict(zip(near, self._probed(pairs), strict=True)) if near else {}
        same = {0, *self._same(query, matches, probed)}
        if len(same) < 2:
            return list(matches)
        return (newest.oldest_first if newest.asks_for_before(query) else newest.newest_first)(
            matches, same
        )

    def _same(
        self, query: str, matches: Sequence[Match], probed: Mapping[int, float | None]
    ) -> set[int]:
        """Those of the matches of these numbers that say the same of the same as the first one."""
        if not probed:
            return set()
        ids = {n: matches[n].passage.id for n in (0, *probed)}
        rows = self._word_likelihoods(legible(query), list(ids.values()))
        best = rows.get(ids[0])
        others = {n: rows[ids[n]] for n in probed if ids[n] in rows}
        return {
            n
            for n, row in others.items()
            if best is not None and newest.of_the_same(best, row, probed[n])
        }

    def superseded(self, text: str, matches: Sequence[Match]) -> list[Match]:
        """Those of the matches that say an older value of what `text`, which is told now, says.

        None for a model that no probe is shipped for.
        """
        probe = newest.probe_of(self.engine.listener.name)
        short = [m for m in matches if newest.is_short(m) and m.passage.text != text]
        if probe is None or not short:
            return []
        with self.lock:
            states = self.engine.listener.states(
                [newest.text_of(m.passage.content, text) for m in short]
            )
        return [m for m, number in zip(short, probe(states), strict=True) if number > newest.SURE]

    def _probed(self, pairs: Sequence[tuple[Match, Match]]) -> list[float | None]:
        """The probe's numbers of pairs, the older one first; None for what it cannot judge."""
        ids = [(older.passage.id, newer.passage.id) for older, newer in pairs]
        numbers = [self._pairs.get(pair) for pair in ids]
        probe = newest.probe_of(self.engine.listener.name)
        new = [
            n
            for n, pair in enumerate(pairs)
            if numbers[n] is None and all(map(newest.is_short, pair))
        ]
        if probe is None or not new:
            return numbers
        texts = [newest.text_of(*(m.passage.content for m in pairs[n])) for n in new]
        with self.lock:
            found = probe(self.engine.listener.states(texts))
        for n, number in zip(new, found, strict=True):
            numbers[n] = float(number)
            self._pairs.put(ids[n], float(number))
        return numbers

    def memories(self, passages: Sequence[Passage]) -> list[PackedMemory]:
        """The memories of these passages, in their order; cold or waiting ones are encoded now, and
        kept where that can be.
        """
        stored = self.store.load([p.id for p in passages], self.engine.compressor.fingerprint)
        missing = [p for p in passages if p.id not in stored]
        if missing:
            encoded = (
                self._encoded(missing) if self.store.read_only else self.encode_passages(missing)
            )
            stored |= {i: e.memory for i, e in encoded.items()}
        return [stored[p.id] for p in passages]

    def encode_passages(self, passages: Sequence[Passage]) -> dict[int, Encoded]:
        """Compress passages and store what comes out; returns it by passage id."""
        with self.lock:
            encoded = self._encoded(passages)
            self.store.save(encoded, self.engine.compressor.fingerprint)
        if self.memory_budget:
            self.store.evict(self.memory_budget)
        return encoded

    def _encoded(self, passages: Sequence[Passage]) -> dict[int, Encoded]:
        """Compress passages; returns what comes out by passage id."""
        self.check_fingerprint()
        with self.lock:
            made = self.engine.compressor.compress([render(p) for p in passages])
        return {p.id: e for p, e in zip(passages, made, strict=True)}

    def encode_backlog(
        self,
        on_batch: Callable[[int], None] | None = None,
        stop: Callable[[], bool] | None = None,
        of: Collection[str] | None = None,
    ) -> int:
        """Compress the passages that wait (`of` these documents), batch by batch; returns how many.

        `stop` is asked between batches. What another process is at work on is waited for, a minute
        at the most. A passage that cannot be compressed holds up no other: what went wrong with the
        first of them is raised in the end, and each waits on.
        """
        done, failed = 0, dict[int, Exception]()
        patient_until = time.monotonic() + PATIENCE
        while not (stop and stop()):
            # two threads never compress the same passages; questions go first
            with self.lock.after_others(stop):
                waiting = [
                    p for p in self.store.pending(AHEAD + len(failed), of=of) if p.id not in failed
                ]
                if not waiting:
                    break
                count = self._encode_some(waiting, failed)
            if count:
                done, patient_until = done + count, time.monotonic() + PATIENCE
                if on_batch:
                    on_batch(count)
            elif count == 0 or time.monotonic() > patient_until:
                # nothing of it can be compressed: that is not about one passage; or another process
                # takes long
                break
            else:
                time.sleep(0.05)
        if done:
            self.index.maintain()  # here, and not at the first question after
        for error in failed.values():
            raise error
        return done

    def _encode_some(self, waiting: Sequence[Passage], failed: dict[int, Exception]) -> int | None:
        """Encode a batch of those that no other process is at work on; how many, None where there
        are none.
        """
        shortest = sorted(waiting, key=lambda p: p.tokens)  # of like length: less padding
        with self.store.claimed([p.id for p in shortest], BATCH) as mine:
            batch = [p for p in shortest if p.id in mine]
            return self._encode_each(batch, failed) if batch else None

    def _encode_each(self, batch: Sequence[Passage], failed: dict[int, Exception]) -> int:
        """Encode a batch, and one by one what cannot be encoded together; what is wrong with them
        goes to `failed`.
        """
        try:
            return len(self.encode_passages(batch))
        except CMTError:  # the disk's, or the model's: it would meet every passage alike
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, encode_backlog raises it once the others are done
            if len(batch) == 1:
                kind = type(error).__name__  # its words may be those of the passage
                log.warning(
                    "passage %d of %s cannot be compressed: %s",
                    batch[0].ordinal,
                    batch[0].document_id,
                    kind,
                )
                failed[batch[0].id] = error
                return 0
            return sum(self._encode_each([passage], failed) for passage in batch)

    def accepts(self, made_by: Fingerprint, encoded: Encoded) -> bool:
        """True when a memory from elsewhere can be read here: made by the same things, and
        whole.
        """
        with self.lock:
            compressor = self.engine.compressor
            if made_by.differences(compressor.fingerprint):
                return False
            self._dimension = self._dimension or compressor.encode_query("An example.").size
            return encoded.embedding.size == self._dimension and compressor.reads(encoded.memory)

    def check_fingerprint(self) -> None:
        """Raise ModelMismatch when stored memories were made by something that this model cannot
        read.
        """
        with self.lock:
            mine = self.engine.compressor.fingerprint
        for theirs in self.store.fingerprints():
            differences = theirs.differences(mine)
            if differences:
                raise ModelMismatch(
                    f"the memories were made by {theirs.model} ({theirs.compressor},"
                    f" {theirs.quantization}), the model that is open is {mine.model}"
                    f" ({mine.compressor}, {mine.quantization}); {'; '.join(differences)}. Open it"
                    " with the first, or encode the stored text again: cmt reencode",
                    differences=differences,
                )


def _ordered(
    candidates: Sequence[Candidate], places: Sequence[float], likely: Mapping[int, float]
) -> list[Candidate]:
    """Candidates with their first few, those with `places`, in the order of `ranking.reorder`; no
    likelihoods, no change.

    Scores fall in this order too: those of the rest become a share of the last one that was judged.
    """
    if not likely:
        return list(candidates)
    first, rest = candidates[: len(places)], candidates[len(places) :]
    known = [likely.get(c.match.passage.id) for c in first]
    order = reorder(known, places)
    ordered = [
        replace(first[n], match=replace(first[n].match, likelihood=known[n], score=score))
        for n, score in order
    ]
    last = order[-1][1] / max([c.match.score for c in rest], default=1.0)
    return [
        *ordered,
        *(replace(c, match=replace(c.match, score=c.match.score * last)) for c in rest),
    ]


def _hits(best: Mapping[int, tuple[float, int]]) -> list[Hit]:
    return sorted((Hit(i, score) for i, (score, _) in best.items()), key=lambda hit: -hit.score)


def _candidate(match: Match, place: float, back: int, earlier: Sequence[Exchange]) -> Candidate:
    """What was found after an exchange, with its cosine as it was before it faded."""
    cosine = None if match.vector_score is None else match.vector_score / FADE**back
    return Candidate(replace(match, vector_score=cosine), place, None, earlier[back])
