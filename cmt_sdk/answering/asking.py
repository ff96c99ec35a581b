"""Asking: a question with its options, checked, and its answer as it comes. Knows no store and no
model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import wraps
from typing import Literal, ParamSpec, TypeVar, overload

from cmt_sdk.errors import InvalidFilter, InvalidSetting
from cmt_sdk.retrieval.context import MESSAGE, shortened
from cmt_sdk.retrieval.question import check_question
from cmt_sdk.system.handles import Handle
from cmt_sdk.types import READERS, Answer, CompressedPassage, Filter, Match, ReaderKind, Turn, Where

P = ParamSpec("P")
T = TypeVar("T")


def lists_parameters(call: Callable[P, T]) -> Callable[P, T]:
    """Let a call refuse a wrong keyword with the nearest one and all others, as a TypeError."""
    taken = sorted(
        name
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.default is not parameter.empty
    )
    names = frozenset(inspect.signature(call).parameters)

    @wraps(call)
    def checked(*args: P.args, **given: P.kwargs) -> T:
        for name in given.keys() - names:
            near = get_close_matches(name, taken, 1)
            meant = f": did you mean {near[0]!r}? It takes" if near else ": it takes"
            raise TypeError(f"{call.__name__}() has no argument {name!r}{meant} {', '.join(taken)}")
        return call(*args, **given)

    return checked


def filter_of(
    scope: str | None,
    source: str | None,
    where: Where | None,
    *,
    ids: Sequence[str] | None = None,
    outside: str | None = None,
) -> Filter:
    """The conditions of a call as a Filter. Raises InvalidFilter for a `where` that is no dict."""
    if where is not None and not isinstance(where, Mapping):
        raise InvalidFilter(f"where={where!r:.60}: give a dict of metadata keys and values")
    return Filter(ids=ids, scope=scope, source=source, where=where or {}, outside=outside)


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

    def __post_init__(self) -> None:
        # of a long message in a conversation the middle is left out
        is_message = self.history is not None
        check_question(shortened(self.question, MESSAGE) if is_message else self.question)
        if self.reader not in READERS:
            raise InvalidSetting(f"reader={self.reader!r}: choose one of {', '.join(READERS)}")
        for name, value in (
            ("k", self.k),
            ("max_tokens", self.max_tokens),
            ("budget", self.budget),
        ):
            if value is not None and value < 1:
                raise InvalidSetting(f"{name}={value}: choose at least 1")

    def with_found(
        self,
        history: Sequence[Turn] | None = None,
        matches: Sequence[Match] = (),
        loaded: MutableMapping[int, CompressedPassage] | None = None,
    ) -> FoundAsk:
        """This question with what was found for it; `history` takes the place of its own."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        found = {} if loaded is None else loaded  # the same one: more is added to it
        return FoundAsk(**(own | {"history": history}), matches=matches, loaded=found)


@dataclass(frozen=True, slots=True)
class FoundAsk(Ask):
    """A question with what was found for it; its history is the exchange that it refers to.

    Attributes:
        matches: the passages to read, best first; superseded ones are marked.
        loaded: the passages that ranking loaded, by passage id, for the reader; it adds those that
            it loads, or reads from their text.
    """

    matches: Sequence[Match] = ()
    loaded: MutableMapping[int, CompressedPassage] = field(default_factory=dict, repr=False)


class Stream:
    """Pieces of text as they come; `answer` holds all of it, with sources and costs, once the
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
        """The complete answer; reads what has not been read yet. Raises what the reading raised."""
        for _ in self:
            pass
        if self._error is not None:
            raise self._error
        assert self._answer is not None  # noqa: S101 - every stream of pieces ends with an Answer
        return self._answer


def with_limit(pieces: Iterator[str | Answer], max_tokens: int) -> Iterator[str | Answer]:
    """The pieces; the answer is `truncated` where it ended because it had `max_tokens` tokens."""
    for piece in pieces:
        yield (
            replace(piece, truncated=piece.answer_tokens >= max_tokens)
            if isinstance(piece, Answer)
            else piece
        )


class Asking(Handle):
    """The call `ask`, which a memory and its model share."""

    def start_answer(self, asked: Ask) -> Stream:
        """The answer to a question that was checked."""
        raise NotImplementedError

    @overload
    def ask(
        self,
        question: str,
        *,
        stream: Literal[False] = False,
        k: int | None = None,
        budget: int | None = None,
        reader: ReaderKind = "memory",
        max_tokens: int = 64,
        scope: str | None = None,
        outside: str | None = None,
        source: str | None = None,
        where: Where | None = None,
        history: Sequence[Turn] | None = None,
    ) -> Answer: ...

    @overload
    def ask(
        self,
        question: str,
        *,
        stream: Literal[True],
        k: int | None = None,
        budget: int | None = None,
        reader: ReaderKind = "memory",
        max_tokens: int = 64,
        scope: str | None = None,
        outside: str | None = None,
        source: str | None = None,
        where: Where | None = None,
        history: Sequence[Turn] | None = None,
    ) -> Stream: ...

    @lists_parameters
    def ask(
        self,
        question: str,
        *,
        stream: bool = False,
        k: int | None = None,
        budget: int | None = None,
        reader: ReaderKind = "memory",
        max_tokens: int = 64,
        scope: str | None = None,
        outside: str | None = None,
        source: str | None = None,
        where: Where | None = None,
        history: Sequence[Turn] | None = None,
    ) -> Answer | Stream:
        """Answer a question from memory. `memory.ask` is the short form of `memory.model.ask`.

        Args:
            question: At most 20,000 characters. With `history` it is a message of a conversation;
                the middle of a long one is left out.
            stream: True returns the answer as it comes: iterate the result for pieces of text; its
                `answer` is there afterwards.
            k: Passages to read: 5, or as many as fit in `budget`.
            budget: Tokens of context that the passages may take.
            reader: "memory" answers from compressed passages; only short notes that may contradict
                each other are compared as text. "text" puts the passages' text into the prompt;
                "auto" reads the best passage's text too where the memory reader is unsure, as it
                is where the words of its answer stand in no passage, or where the memory's
                fidelity is known to be low; "none" asks the bare model.
            max_tokens: The longest answer, in tokens.
            scope: Search only this scope, with everything beneath it.
            outside: Leave this scope out, with everything beneath it.
            source: Search only this source; * is a wildcard.
            where: Conditions on metadata, such as {"year": {">=": 2020}}; see `Filter`.
            history: The turns before the question, oldest first, even none: a question that is
                short of its subject finds it there.

        Returns:
            The Answer with its sources, confidence and costs; a Stream with `stream=True`.

        Raises:
            InvalidInput: An empty or too long question, a bad filter, an option out of range.
            ModelMismatch: Another model than the one that is open made the compressed passages.
            ModelNotFound: The model is not on this machine.

        Example:
            >>> memory.ask("Where is the museum now?").text
            'Lisbon'
        """
        filter = filter_of(scope, source, where, outside=outside)
        asked = Ask(question, k, budget, reader, max_tokens, filter, history)
        running = self.start_answer(asked)
        return running if stream else running.answer
