"""Questions and answers: hits, matches, turns, prompts, answers with their sources and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from cmt_sdk.types.documents import ISO_DAY, Document, Passage
from cmt_sdk.types.memories import PackedMemory

ReaderKind: TypeAlias = Literal["memory", "text", "auto", "none"]
SearchMode: TypeAlias = Literal["reranked", "fused", "vector", "text"]
READERS: tuple[ReaderKind, ...] = get_args(ReaderKind)
SEARCH_MODES: tuple[SearchMode, ...] = get_args(SearchMode)


@dataclass(frozen=True, slots=True)
class Hit:
    """One row of a ranked list: a passage and the score its list gave it (higher is better)."""

    passage_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Match:
    """A passage that fits a query. Ranks (from 1), scores and the `likelihood` of the query (nats)
    say why.

    `score`, in [0, 1], falls in the order in which matches come: it is fused, or, where the model
    has read the passages, how near each comes to the best one. `superseded_by` is the id of the
    document that says a newer value of the same thing.
    """

    passage: Passage
    document: Document
    score: float
    vector_rank: int | None = None
    vector_score: float | None = None
    text_rank: int | None = None
    text_score: float | None = None
    likelihood: float | None = None
    superseded_by: str | None = None

    @property
    def date(self) -> str | None:
        """The day that the document names, or its front matter, which stands in the passage's
        heading.
        """
        in_heading = ISO_DAY.search(self.passage.heading)
        return self.document.date or (in_heading[0] if in_heading else None)

    @property
    def why(self) -> str:
        """The reasons for this match in a few words."""
        parts = []
        if self.vector_rank is not None and self.vector_score is not None:
            parts.append(f"meaning #{self.vector_rank} (cosine {self.vector_score:.2f})")
        if self.text_rank is not None and self.text_score is not None:
            parts.append(f"words #{self.text_rank} (BM25 {self.text_score:.1f})")
        if self.likelihood is not None:
            parts.append(f"question {self.likelihood:.1f} nats")
        if self.superseded_by is not None:
            parts.append(f"superseded by {self.superseded_by}")
        return ", ".join(parts) or "asked for"


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that was read for an answer: characters `start` to `end` of a document, with the
    score and the reasons.

    `rank` is its place among the passages that fit the question, from 1. `holds_answer` is True
    where the words of the answer stand in it; `answer_start` and `answer_end` are then the
    characters of the document where they do, None where they stand in the heading alone. `date` is
    the day that the document itself names ("2026-03-04"), in its metadata or its name;
    `updated_at`, in ISO 8601, is when its text was last changed in the memory. `superseded_by` is
    the id of the document whose newer value of the same thing was read in its place; None for a
    passage that was read.
    """

    document_id: str
    passage_id: int
    source: str | None
    start: int
    end: int
    text: str
    score: float
    why: str
    heading: str = ""
    rank: int = 1
    holds_answer: bool = False
    answer_start: int | None = None
    answer_end: int | None = None
    date: str | None = None
    updated_at: str | None = None
    superseded_by: str | None = None

    @property
    def quote(self) -> str | None:
        """The words of the passage that the answer is from; None where there are none."""
        if self.answer_start is None or self.answer_end is None:
            return None
        return self.text[self.answer_start - self.start : self.answer_end - self.start]

    def __str__(self) -> str:
        return f"{self.source or self.document_id}[{self.start}:{self.end}]"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says, from which sources, and what it cost.

    `sources` begin with the passage that the answer is from, where one holds its words; the others
    follow, the best match first, and in the end those that are superseded by one that was read.
    `reader` is the one that wrote the text. `abstained` is True when the memory does not tell.
    `confidence`, in [0, 1], is the model's probability that it does, times that of the words of the
    answer (their geometric mean), times what their place leaves of it (`provenance.trust`): compare
    it, but do not read it as a share of right answers, because a small model is too sure of itself.
    `truncated` says that it ended at `max_tokens`. `prompt_tokens` counts the tokens that the model
    had to read for this question; `memory_tokens` the source tokens that it read from memory
    instead. `milliseconds` is by stage: encode, search, load, prefill (until the first token),
    decode.
    """

    text: str
    sources: Sequence[Source]
    reader: str
    abstained: bool
    confidence: float
    prompt_tokens: int
    memory_tokens: int
    answer_tokens: int
    milliseconds: Mapping[str, float]
    truncated: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation. `role` is "user", "assistant" or "system"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Intent:
    """What a message wants of a memory.

    `told` is the part that is worth keeping, `asked` the part that asks; each is empty where there
    is none. `remembers`: it asks to keep what it tells. `forgets`: it asks to erase something.
    `chats`: small talk, or what it asks is of the assistant and needs no memory. `general`: it asks
    only for what everybody could know. `agrees`: a yes. `machine`: not said by a person: a prompt
    of a front end, a pasted dialogue, recalled text.
    """

    text: str
    told: str = ""
    asked: str = ""
    remembers: bool = False
    forgets: bool = False
    chats: bool = False
    general: bool = False
    agrees: bool = False
    machine: bool = False

    @property
    def tells(self) -> bool:
        """Whether some of it is worth keeping."""
        return bool(self.told)

    @property
    def asks(self) -> bool:
        """Whether some of it asks for what the memory may hold."""
        return bool(self.asked)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a reader gets: a question after `history`, and either `memories` or `passages` (text) to
    answer from.

    The best memory or passage comes last, nearest to the question. `notes` says whether there is a
    place for them at all; without it the base model is asked bare. With `talk` it gets no
    instruction either.
    """

    question: str
    history: Sequence[Turn] = ()
    memories: Sequence[PackedMemory] = ()
    passages: Sequence[str] = ()
    notes: bool = True
    talk: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """A few words in a row of a text, as the answer to a prompt.

    Attributes:
        text: The words.
        likelihood: Their log probability as the complete answer, in nats.
        tokens: Their number of tokens.
    """

    text: str
    likelihood: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What one reading cost, and how sure the reader was, in [0, 1]; see Answer."""

    prompt_tokens: int
    answer_tokens: int
    confidence: float
    load_ms: float
    prefill_ms: float
    decode_ms: float

    def followed_by(self, other: Usage) -> Usage:
        """The cost of this reading and another one after it, whose answer stands."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            other.answer_tokens,
            other.confidence,
            self.load_ms + other.load_ms,
            self.prefill_ms + self.decode_ms + other.prefill_ms,
            other.decode_ms,
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer as it comes; the last one is empty text with the `usage`."""

    text: str
    usage: Usage | None = None
