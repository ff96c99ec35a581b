"""MemoryModel: the story of asking: find passages, load their memories, read. No torch, no SQL in
here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, overload

import numpy as np

from cmt_sdk.config import Settings
from cmt_sdk.context import QUERY, as_passages, exchanges, recent, rules, shortened
from cmt_sdk.errors import InvalidFilter, InvalidSetting
from cmt_sdk.handles import Handle
from cmt_sdk.notation import in_notation_of
from cmt_sdk.prompting import UNKNOWN, abstains
from cmt_sdk.provenance import Trace, first_of, repeats, traces, trust
from cmt_sdk.ranking import behind, fit
from cmt_sdk.rendering import render
from cmt_sdk.retrieval import CANDIDATES, Retriever, check_question
from cmt_sdk.sources import sources_of
from cmt_sdk.spoken import or_spoken
from cmt_sdk.types import (
    Answer,
    Filter,
    Match,
    PackedMemory,
    Piece,
    Prompt,
    ReaderKind,
    Turn,
    Usage,
    Vector,
)
from cmt_sdk.words.folding import legible

OPTIONS = (
    "k",
    "budget",
    "reader",
    "max_tokens",
    "scope",
    "outside",
    "source",
    "where",
    "history",
    "stream",
)
NARROWING = ("scope", "outside", "source", "where")
READERS = ("memory", "text", "auto", "none")
PASSAGES = 5
UNSURE = 0.6
# Below this fidelity the text of a passage is read in place of its memory. Over 80 passages with
# three questions each (see neural/fidelity.py) the text was better by 0.10 F1 (95 %: 0.02 to 0.17)
# between 0.85 and 0.9, by 0.05 and not surely between 0.9 and 0.95. Of memories that keep a quarter
# 4 in 100 lie below, of those that keep an eighth 46.
FAITHFUL = 0.9
# Nats by which the passage that an answer is from fits the question less than the best one, from
# which on the best one is read again alone. Of 58 questions about 40 everyday notes 3 were, of 100
# about SQuAD one (F1 there 64.7 to 65.7). Read again from 0 nats on, 7 and 7 were: F1 fell from
# 65.0 to 59.6 on the notes, because good answers were given up.
FAR = 8.0
HELD = 12  # pieces of a short answer: it is not shown before it is clear that it stands
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """One question with everything that decides its answer; checked when it is made.

    `k` passages are read, or as many as fit in `budget` tokens of context; with both, at most `k`
    of those that fit.
    """

    question: str
    k: int | None = None
    budget: int | None = None
    reader: ReaderKind = "memory"
    max_tokens: int = 64
    filter: Filter = field(default_factory=Filter)
    history: Sequence[Turn] | None = None
    # the memories that ranking has loaded, by passage id: the reader uses them again
    loaded: dict[int, PackedMemory] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_question(self.question)
        if self.reader not in READERS:
            raise InvalidSetting(f"reader={self.reader!r}: choose one of {', '.join(READERS)}")
        for name, value in (
            ("k", self.k),
            ("max_tokens", self.max_tokens),
            ("budget", self.budget),
        ):
            if value is not None and value < 1:
                raise InvalidSetting(f"{name}={value}: choose at least 1")


@dataclass(frozen=True, slots=True)
class _Reading:
    """An answer, the passages that it was read from, and where in them its words stand. `trust` is
    what that does to its confidence; `behind` says by how many nats the passage that it is from
    fits the question less than the best one.
    """

    text: str
    usage: Usage
    kind: str
    matches: Sequence[Match]
    found: Sequence[Trace]
    trust: float
    behind: float

    @property
    def confidence(self) -> float:
        """The reader's, less what the place of the words takes from it."""
        return self.usage.confidence * self.trust

    @property
    def probability(self) -> float:
        """Of the answer; of "I don't know" that of not knowing."""
        return 1.0 - self.confidence if abstains(self.text) else self.confidence


class MemoryModel(Handle):
    """The frozen LLM bound to a memory: `ask` answers from what was added. Made by `cmt_sdk.open`,
    as `memory.model`.
    """

    def __init__(self, retriever: Retriever, settings: Settings) -> None:
        self._retriever = retriever
        self._settings = settings

    @overload
    def ask(self, question: str, *, stream: Literal[False] = False, **options: Any) -> Answer: ...

    @overload
    def ask(self, question: str, *, stream: Literal[True], **options: Any) -> Stream: ...

    def ask(self, question: str, *, stream: bool = False, **options: Any) -> Answer | Stream:
        """Answer a question from memory.

        Options: `k` passages to read (5), or as many as fit in `budget` tokens of context;
        `reader`: "memory" reads compressed memories and never the text, "text" puts the passages'
        text into the prompt, "auto" looks the best passage's text up where the memory reader is
        unsure, as it is where the words of its answer stand in no passage, or the memory's fidelity
        is known to be low, "none" asks the bare model; `max_tokens` of the answer (64); `scope`,
        `source`, `where` narrow the search, and `outside` leaves a scope out; `history`, the turns
        before it: a question that is short of its subject finds it there. A question has at most
        20,000 characters; where `history` is given, be it empty, it is a message of a conversation,
        and of a long one the middle is left out. With `stream=True` the result is iterated for
        pieces of text, and its `answer` is there afterwards. Raises InvalidInput, ModelMismatch.
        """
        asked = _ask(
            question if options.get("history") is None else self._retriever.shorten(question),
            options,
        )
        pieces, passages = self._pieces(asked), as_passages(asked.history or ())
        if passages and asked.reader != "none":
            pieces = or_spoken(pieces, asked.question, passages, self._retriever, asked.max_tokens)
        running = Stream(_with_limit(pieces, asked.max_tokens))
        if stream:
            return running
        for _ in running:
            pass
        return running.answer

    def talk(self, text: str, *, history: Sequence[Turn] = (), max_tokens: int = 64) -> Stream:
        """What the bare model says to small talk, by its own chat template and without notes.

        Raises InvalidInput, as `ask` does.
        """
        ask = Ask(text, reader="none", max_tokens=max_tokens, history=history)
        return Stream(_with_limit(self._talked(ask), max_tokens))

    def small_talk(self, text: str) -> list[tuple[float, str, str]]:
        """Exchanges of small talk (nearness to the text, message, reply), nearest first; nearness
        is at most 1.
        """
        return self._retriever.small_talk(text)

    def _talked(self, ask: Ask) -> Iterator[str | Answer]:
        prompt = Prompt(ask.question, ask.history or (), notes=False, talk=True)
        text, usage = [], None
        for piece in self._locked(prompt, ask.max_tokens):
            text.append(piece.text)
            usage = piece.usage
            yield piece.text
        yield self._answer(_reading_of(ask, "none", [], "".join(text), usage), {})

    def embed(self, texts: Sequence[str]) -> Vector:
        """The vectors by which questions of these words find passages: float32 [n, dimension], rows
        of length 1.

        Raises InvalidInput for an empty text, ModelMismatch.
        """
        for text in texts:
            check_question(text)
        found: Vector = (
            np.stack([self._retriever.encode(t) for t in texts])
            if texts
            else np.zeros((0, 0), np.float32)
        )
        return found

    def _pieces(self, ask: Ask) -> Iterator[str | Answer]:
        times: dict[str, float] = {}
        matches: list[Match] = []
        if ask.reader != "none" and not self._is_out_of_reach(ask, times):
            ask, matches = self._find(ask, times)
        if not matches and ask.reader != "none":
            yield from self._nothing_found(ask, times)
            return
        older = [m for m in matches if m.superseded_by is not None]
        matches = [m for m in matches if m.superseded_by is None]
        if older:
            reading = self._of_the_newest(ask, matches, older, times)
            yield reading.text
        elif ask.reader == "auto":
            reading = self._memory_or_text(ask, matches, times)
            yield reading.text
        else:
            reading = yield from self._streamed(ask, matches, times)
        yield self._answer(reading, times, [m for m in older if m not in reading.matches])

    def _of_the_newest(
        self, ask: Ask, matches: Sequence[Match], older: Sequence[Match], times: dict[str, float]
    ) -> _Reading:
        """A reading of the newest alone; where that tells nothing, of it and those that are not
        superseded; then of all.

        The best passage and those that say the same of the same fit the question best, so that
        others need not be read.
        """
        every = sorted([*matches, *older], key=lambda m: m.superseded_by is None)
        reading = self._read_by(ask, matches[:1], times)
        for more in (matches, every):
            if not abstains(reading.text):
                break
            again = self._read_by(ask, more, times)
            reading = replace(again, usage=reading.usage.followed_by(again.usage))
        return reading

    def _read_by(self, ask: Ask, matches: Sequence[Match], times: dict[str, float]) -> _Reading:
        if ask.reader == "auto":
            return self._memory_or_text(ask, matches, times)
        text, usage = self._whole(ask, ask.reader, matches, times)
        return self._checked(
            ask, _reading_of(ask, ask.reader, matches, text, usage), matches, times
        )

    def _streamed(
        self, ask: Ask, matches: Sequence[Match], times: dict[str, float]
    ) -> Generator[str, None, _Reading]:
        """Read and give the pieces. A short answer is held back until it is clear that it is not
        read again, where it may be.
        """
        pieces: list[str] = []
        usage: Usage | None = None
        held = HELD if any(_behind(matches, n) >= FAR for n in range(len(matches))) else 1
        for piece in self._read(ask, ask.reader, matches, times):
            usage = piece.usage
            if usage is None:
                pieces.append(piece.text)
                yield from (
                    pieces if len(pieces) == held else pieces[-1:] if len(pieces) > held else ()
                )
        reading = _reading_of(ask, ask.reader, matches, "".join(pieces), usage)
        if len(pieces) >= held:
            return reading
        checked = self._checked(ask, reading, matches, times)
        yield from pieces if checked.text == reading.text else [checked.text]
        return checked

    def _checked(
        self, ask: Ask, reading: _Reading, matches: Sequence[Match], times: dict[str, float]
    ) -> _Reading:
        """The reading, or one of the best passage alone where that is more probable.

        It is read again where its words stand only in a passage that fits the question far less
        than the best one.
        """
        if reading.behind < FAR or abstains(reading.text):
            return reading
        text, usage = self._whole(ask, reading.kind, matches[:1], times)
        again = _reading_of(ask, reading.kind, matches, text, reading.usage.followed_by(usage))
        if again.probability > reading.probability:
            return again
        return replace(reading, usage=usage.followed_by(reading.usage))

    def _memory_or_text(
        self, ask: Ask, matches: Sequence[Match], times: dict[str, float]
    ) -> _Reading:
        """The text is read at once where the best passage's memory is known to be poor, and after a
        reading that is unsure.

        It is the text of the best passage, and of the one in which the words of the unsure reading
        stand. What it gives stands where memory did not tell, or told something less probable.
        """
        before, looked_up = None, list(matches[:1])
        if _is_faithful(matches[0]):
            text, usage = self._whole(ask, "memory", matches, times)
            before = self._checked(
                ask, _reading_of(ask, "memory", matches, text, usage), matches, times
            )
            if before.confidence >= UNSURE:
                return before
            if (holder := first_of(before.found)) is not None and holder > 0:
                looked_up.append(matches[holder])
        text, usage = self._whole(ask, "text", looked_up, times)
        if before is None:
            return _reading_of(ask, "text", looked_up, text, usage)
        after = _reading_of(ask, "text", looked_up, text, before.usage.followed_by(usage))
        is_better = abstains(before.text) or after.probability >= before.probability
        return after if is_better else replace(before, usage=usage.followed_by(before.usage))

    def _is_out_of_reach(self, ask: Ask, times: dict[str, float]) -> bool:
        """True where no document fits the filter; asked only while the model would have to be
        loaded to find nothing.
        """
        if self._retriever.engine.loaded or _timed(
            times, "search", lambda: self._retriever.store.count(ask.filter)
        ):
            return False
        times["encode"] = 0.0
        return True

    def _find(self, ask: Ask, times: dict[str, float]) -> tuple[Ask, list[Match]]:
        """The passages to read, and the question with the earlier exchange that it leans on."""
        query = ask.question if ask.history is None else shortened(ask.question, QUERY)
        vector = _timed(times, "encode", lambda: self._retriever.encode(query))
        k = ask.k or (PASSAGES if ask.budget is None else CANDIDATES)
        earlier = exchanges(ask.history or ())
        found = _timed(
            times, "search", lambda: self._retriever.gather(query, earlier, k, ask.filter, vector)
        )
        _timed(times, "load", lambda: self._retriever.encode_missing(found))
        stage = "rerank" if self._settings.reranked and len(found) > 1 else "search"
        found = _timed(times, stage, lambda: self._retriever.judge(query, found, ask.loaded))
        about = found[0].about if found else None
        if found and ask.history is not None:
            ask = replace(ask, history=[*rules(ask.history), *(about.turns if about else ())])
        matches = [c.match for c in found[:k]]
        if len(matches) > 1:
            matches = _timed(times, "newest", lambda: self._retriever.newest_first(query, matches))
        if ask.budget is not None:
            costs = [self._cost(m.passage.tokens, ask.reader) for m in matches]
            matches = matches[: max(1, fit(costs, ask.budget))]
        return ask, matches

    def _cost(self, tokens: int, reader: str) -> int:
        """Context entries that a passage of `tokens` tokens takes when it is read."""
        if reader == "text":
            return tokens
        return round(tokens * self._settings.method.share(self._settings, tokens))

    def _read(
        self, ask: Ask, kind: str, matches: Sequence[Match], times: dict[str, float]
    ) -> Iterator[Piece]:
        # the best one last: what is near is read best
        passages = [m.passage for m in reversed(matches)]
        question = in_notation_of(legible(ask.question), [m.passage.content for m in matches])
        before = ask.history or ()
        prompt = Prompt(
            question, recent(before) if kind == "none" else before, notes=kind != "none"
        )
        if kind == "memory":
            queue = self._retriever.queue
            memories = _timed(times, "load", lambda: queue.memories(passages, ask.loaded))
            prompt = replace(prompt, memories=memories)
        elif kind == "text":
            prompt = replace(prompt, passages=[render(p) for p in passages])
        yield from self._locked(prompt, ask.max_tokens)

    def _locked(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        # not held while the caller has a piece in hand: others may use the model then
        with self._retriever.lock:
            pieces = self._retriever.engine.reader.read(prompt, max_tokens)
        while True:
            with self._retriever.lock:
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _whole(
        self, ask: Ask, kind: str, matches: Sequence[Match], times: dict[str, float]
    ) -> tuple[str, Usage]:
        pieces = list(self._read(ask, kind, matches, times))
        usage = pieces[-1].usage
        assert usage is not None  # noqa: S101 - the port says so
        return "".join(p.text for p in pieces), usage

    def _nothing_found(self, ask: Ask, times: dict[str, float]) -> Iterator[str | Answer]:
        yield UNKNOWN
        yield self._answer(
            _reading_of(ask, ask.reader, [], UNKNOWN, Usage(0, 0, 0.0, 0.0, 0.0, 0.0)), times
        )

    def _answer(
        self, reading: _Reading, times: Mapping[str, float], older: Sequence[Match] = ()
    ) -> Answer:
        usage, kind, stages = reading.usage, reading.kind, dict(times)
        stages["load"] = stages.get("load", 0.0) + usage.load_ms
        stages |= {"prefill": usage.prefill_ms, "decode": usage.decode_ms}
        return Answer(
            text=reading.text.strip(),
            sources=sources_of(reading.matches, reading.found, older),
            reader=kind,
            abstained=kind != "none" and abstains(reading.text),
            confidence=reading.confidence,
            prompt_tokens=usage.prompt_tokens,
            memory_tokens=sum(m.passage.tokens for m in reading.matches) if kind == "memory" else 0,
            answer_tokens=usage.answer_tokens,
            milliseconds=stages,
        )


class Stream:
    """Pieces of text as they come; `answer` holds the whole, with sources and costs, once the
    iteration is over.
    """

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


def _with_limit(pieces: Iterator[str | Answer], max_tokens: int) -> Iterator[str | Answer]:
    """The pieces; the answer says whether it ended because it had as many tokens as it might
    have.
    """
    for piece in pieces:
        yield (
            replace(piece, truncated=piece.answer_tokens >= max_tokens)
            if isinstance(piece, Answer)
            else piece
        )


def check_names(call: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise TypeError, with the nearest name and all others, for an argument that a call does not
    take.
    """
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f": did you mean {near[0]!r}? It takes" if near else ": it takes"
            raise TypeError(f"{call}() has no argument {name!r}{meant} {', '.join(sorted(known))}")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise what `chat.say` would raise for these options of `MemoryModel.ask`: TypeError,
    InvalidSetting, InvalidFilter.
    """
    check_names("chat", options, [name for name in OPTIONS if name not in ("history", "stream")])
    _ask("?", options)


def _ask(question: str, options: Mapping[str, Any]) -> Ask:
    """The options of `MemoryModel.ask` as an Ask; an unknown name is a TypeError, as in any
    call.
    """
    check_names("ask", options, OPTIONS)
    narrowing = {name: options[name] for name in NARROWING if options.get(name) is not None}
    if not isinstance(narrowing.get("where", {}), Mapping):
        raise InvalidFilter(
            f"where={narrowing['where']!r:.60}: give a dict of metadata keys and values"
        )
    rest = {name: value for name, value in options.items() if name not in NARROWING}
    return Ask(question, filter=Filter(**narrowing), **rest)


def _timed(times: dict[str, float], stage: str, work: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = work()
    times[stage] = times.get(stage, 0.0) + 1000 * (time.perf_counter() - start)
    return result


def _is_faithful(match: Match) -> bool:
    """False for a memory that was measured and found poor."""
    return match.passage.fidelity is None or match.passage.fidelity >= FAITHFUL


def _reading_of(
    ask: Ask, kind: str, matches: Sequence[Match], text: str, usage: Usage | None
) -> _Reading:
    assert usage is not None  # noqa: S101 - the port says that the last piece has it
    if kind == "none" or abstains(text):
        return _Reading(text, usage, kind, matches, [Trace()] * len(matches), 1.0, 0.0)
    found = traces(ask.question, text, [(m.passage.heading, m.passage.text) for m in matches])
    first = first_of(found)
    far = 0.0 if first is None else _behind(matches, first)
    return _Reading(
        text,
        usage,
        kind,
        matches,
        found,
        trust(found, far, echoes=repeats(ask.question, text)),
        far,
    )


def _behind(matches: Sequence[Match], number: int) -> float:
    return behind([m.likelihood for m in matches], number)
