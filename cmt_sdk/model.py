"""MemoryModel: the story of asking: find passages, load their memories, read. No torch, no SQL in here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, overload

import numpy as np

from cmt_sdk.config import Settings
from cmt_sdk.errors import InvalidFilter, InvalidSetting
from cmt_sdk.notation import in_notation_of
from cmt_sdk.prompting import UNKNOWN, abstains, search_query
from cmt_sdk.ranking import fit
from cmt_sdk.recall import CANDIDATES, Recall, check_question
from cmt_sdk.types import Answer, Filter, Match, Piece, Prompt, ReaderKind, Source, Turn, Usage, Vector
from cmt_sdk.words.folding import legible

READERS = ("memory", "text", "auto", "none")
PASSAGES = 5
UNSURE = 0.6
# Below this fidelity the text of a passage is read in place of its memory. Over 80 passages with three questions each (see
# neural/fidelity.py) the text was better by 0.10 F1 (95 %: 0.02 to 0.17) between 0.85 and 0.9, by 0.05 and not surely between
# 0.9 and 0.95. Of memories that keep a quarter 4 in 100 lie below, of those that keep an eighth 46.
FAITHFUL = 0.9
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """One question with everything that decides its answer; checked when it is made.

    `k` passages are read, or as many as fit in `budget` tokens of context; with both, at most `k` of those that fit.
    """

    question: str
    k: int | None = None
    budget: int | None = None
    reader: ReaderKind = "memory"
    max_tokens: int = 64
    chosen: Filter = field(default_factory=Filter)
    history: Sequence[Turn] = ()

    def __post_init__(self) -> None:
        check_question(self.question)
        if self.reader not in READERS:
            raise InvalidSetting(f"reader={self.reader!r}: choose one of {', '.join(READERS)}")
        for name, value in (("k", self.k), ("max_tokens", self.max_tokens), ("budget", self.budget)):
            if value is not None and value < 1:
                raise InvalidSetting(f"{name}={value}: choose at least 1")


class MemoryModel:
    """The frozen LLM bound to a memory: `ask` answers from what was added. Made by `cmt_sdk.open`, as `memory.model`."""

    def __init__(self, recall: Recall, settings: Settings) -> None:
        self._recall = recall
        self._settings = settings

    @overload
    def ask(self, question: str, *, stream: Literal[False] = False, **options: Any) -> Answer: ...

    @overload
    def ask(self, question: str, *, stream: Literal[True], **options: Any) -> Stream: ...

    def ask(self, question: str, *, stream: bool = False, **options: Any) -> Answer | Stream:
        """Answer a question from memory.

        Options: `k` passages to read (5), or as many as fit in `budget` tokens of context; `reader`: "memory" reads compressed
        memories and never the text, "text" puts the passages' text into the prompt, "auto" looks the best passage's
        text up where the memory reader is unsure or the memory's fidelity is known to be low, "none" asks the bare model;
        `max_tokens` of the answer (64); `scope`, `source`, `where` narrow the search; `history`, earlier turns. With
        `stream=True` the result is iterated for pieces of text, and its `answer` is there afterwards. Raises
        InvalidInput, ModelMismatch.
        """
        running = Stream(self._pieces(_ask(question, options)))
        if stream:
            return running
        for _ in running:
            pass
        return running.answer

    def embed(self, texts: Sequence[str]) -> Vector:
        """The vectors by which questions of these words find passages: float32 [n, dimension], rows of length 1.

        Raises InvalidInput for an empty text, ModelMismatch.
        """
        for text in texts:
            check_question(text)
        found: Vector = np.stack([self._recall.encode(t) for t in texts]) if texts else np.zeros((0, 0), np.float32)
        return found

    def _pieces(self, ask: Ask) -> Iterator[str | Answer]:
        times: dict[str, float] = {}
        matches = [] if ask.reader == "none" or self._is_out_of_reach(ask, times) else self._find(ask, times)
        if not matches and ask.reader != "none":
            yield from self._nothing_found(ask, times)
            return
        if ask.reader == "auto":
            yield from self._memory_or_text(ask, matches, times)
            return
        pieces = []
        for piece in self._read(ask, ask.reader, matches, times):
            if piece.usage is None:
                pieces.append(piece.text)
                yield piece.text
            else:
                yield self._answer("".join(pieces), piece.usage, ask.reader, matches, times)

    def _memory_or_text(self, ask: Ask, matches: Sequence[Match], times: dict[str, float]) -> Iterator[str | Answer]:
        """The best passage's text is read at once where its memory is known to be poor, and after a reading that is unsure."""
        kind, before = "memory", None
        if _is_faithful(matches[0]):
            text, usage = self._whole(ask, kind, matches, times)
            before = usage
        if before is None or before.confidence < UNSURE:
            kind, matches = "text", matches[:1]
            text, usage = self._whole(ask, kind, matches, times)
            usage = usage if before is None else before.followed_by(usage)
        yield text
        yield self._answer(text, usage, kind, matches, times)

    def _is_out_of_reach(self, ask: Ask, times: dict[str, float]) -> bool:
        """True where no document fits the filter; asked only while the model would have to be loaded to find nothing."""
        if self._recall.engine.loaded or _timed(times, "search", lambda: self._recall.store.count(ask.chosen)):
            return False
        times["encode"] = 0.0
        return True

    def _find(self, ask: Ask, times: dict[str, float]) -> list[Match]:
        query = search_query(ask.question, ask.history)
        vector = _timed(times, "encode", lambda: self._recall.encode(query))
        k = ask.k or (PASSAGES if ask.budget is None else CANDIDATES)
        rerank = self._settings.reranked
        most = max(k, rerank)
        found = _timed(times, "search", lambda: self._recall.search(query, most, ask.chosen, vector=vector))
        if rerank and len(found) > 1:
            asked = in_notation_of(legible(query), [m.passage.content for m in found[:rerank]])
            found = _timed(times, "rerank", lambda: self._recall.rerank(asked, found))
        found = found[:k]
        if ask.budget is not None:
            share = 1.0 if ask.reader == "text" else self._share
            found = found[: max(1, fit([round(m.passage.tokens * share) for m in found], ask.budget))]
        return found

    @property
    def _share(self) -> float:
        """Context entries a source token costs when it is read from memory."""
        return self._settings.keep if self._settings.compressor == "kv" else 1 / self._settings.compression

    def _read(self, ask: Ask, kind: str, matches: Sequence[Match], times: dict[str, float]) -> Iterator[Piece]:
        passages = [m.passage for m in reversed(matches)]  # the best one last: what is near is read best
        question = in_notation_of(legible(ask.question), [m.passage.content for m in matches])
        prompt = Prompt(question, ask.history, notes=kind != "none")
        if kind == "memory":
            memories = _timed(times, "load", lambda: self._recall.memories(passages))
            prompt = replace(prompt, memories=memories)
        elif kind == "text":
            prompt = replace(prompt, passages=[legible(p.content) for p in passages])
        with self._recall.lock:  # not held while the caller has a piece in hand: others may use the model then
            pieces = self._recall.engine.reader.read(prompt, ask.max_tokens)
        while True:
            with self._recall.lock:
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _whole(self, ask: Ask, kind: str, matches: Sequence[Match], times: dict[str, float]) -> tuple[str, Usage]:
        pieces = list(self._read(ask, kind, matches, times))
        usage = pieces[-1].usage
        assert usage is not None  # noqa: S101 - the port says so
        return "".join(p.text for p in pieces), usage

    def _nothing_found(self, ask: Ask, times: dict[str, float]) -> Iterator[str | Answer]:
        yield UNKNOWN
        yield self._answer(UNKNOWN, Usage(0, 0, 0.0, 0.0, 0.0, 0.0), ask.reader, [], times)

    def _answer(self, text: str, usage: Usage, kind: str, matches: Sequence[Match], times: Mapping[str, float]) -> Answer:
        stages = dict(times)
        stages["load"] = stages.get("load", 0.0) + usage.load_ms
        stages |= {"prefill": usage.prefill_ms, "decode": usage.decode_ms}
        return Answer(
            text=text.strip(),
            sources=[_source(m) for m in matches],
            reader=kind,
            abstained=kind != "none" and abstains(text),
            confidence=usage.confidence,
            prompt_tokens=usage.prompt_tokens,
            memory_tokens=sum(m.passage.tokens for m in matches) if kind == "memory" else 0,
            answer_tokens=usage.answer_tokens,
            milliseconds=stages,
        )


class Stream:
    """Pieces of text as they come; `answer` holds the whole, with sources and costs, once the iteration is over."""

    def __init__(self, pieces: Iterator[str | Answer]) -> None:
        self._pieces = pieces
        self._answer: Answer | None = None
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for piece in self._pieces:
                if isinstance(piece, Answer):
                    self._answer = piece
                elif piece:
                    yield piece
        except Exception as error:
            self._error = error
            raise

    @property
    def answer(self) -> Answer:
        """The whole answer; reads what has not been read yet. Raises what the reading raised."""
        for _ in self:
            pass
        if self._error is not None:
            raise self._error
        assert self._answer is not None  # noqa: S101 - every path of MemoryModel._pieces ends with an Answer
        return self._answer


def _ask(question: str, options: Mapping[str, Any]) -> Ask:
    """The options of `MemoryModel.ask` as an Ask; an unknown name is a TypeError, as in any call."""
    narrowing = {name: options[name] for name in ("scope", "source", "where") if options.get(name) is not None}
    if not isinstance(narrowing.get("where", {}), Mapping):
        raise InvalidFilter(f"where={narrowing['where']!r:.60}: give a dict of metadata keys and values")
    rest = {name: value for name, value in options.items() if name not in ("scope", "source", "where")}
    return Ask(question, chosen=Filter(**narrowing), **rest)


def _timed(times: dict[str, float], stage: str, work: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = work()
    times[stage] = times.get(stage, 0.0) + 1000 * (time.perf_counter() - start)
    return result


def _is_faithful(match: Match) -> bool:
    """False for a memory that was measured and found poor."""
    return match.passage.fidelity is None or match.passage.fidelity >= FAITHFUL


def _source(match: Match) -> Source:
    p = match.passage
    return Source(p.document_id, p.id, match.document.source, p.start, p.end, p.text, match.score, match.why)
