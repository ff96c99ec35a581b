"""Questions and answers: hits, matches, turns, prompts, answers with their sources and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from cmt_sdk.types.compressed import CompressedPassage
from cmt_sdk.types.documents import ISO_DAY, Document, Passage

ReaderKind: TypeAlias = Literal["memory", "text", "auto", "none"]
SearchMode: TypeAlias = Literal["reranked", "fused", "vector", "text"]
READERS: tuple[ReaderKind, ...] = get_args(ReaderKind)
SEARCH_MODES: tuple[SearchMode, ...] = get_args(SearchMode)


@dataclass(frozen=True, slots=True)
class Hit:
    """One row of a ranked list: a passage and its score there (higher is better)."""

    passage_id: int
    score: float


@dataclass(frozen=True, slots=True)
class Match:
    """A passage that fits a query, with the reasons.

    Attributes:
        passage: The passage.
        document: The current version of its document.
        score: In [0, 1], falling in the order of the matches: the fused score; after reranking, how
            near the passage comes to the best one.
        vector_rank: Its rank by meaning, from 1; None if it is not in that list.
        vector_score: The cosine.
        text_rank: Its rank by words, from 1; None if it is not in that list.
        text_score: The BM25 score.
        likelihood: Log probability of the query after the compressed passage, in nats; None if
            the model has not read it.
        superseded_by: The id of the document that holds a newer value of the same thing.
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
        """The day that the document or the heading of the passage names, as "2026-03-04"."""
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
    """A passage that was read for an answer.

    Attributes:
        document_id: The document.
        passage_id: The passage.
        source: Where the document is from.
        start: The passage's first character in the document's text.
        end: The character after its last.
        text: The passage's text.
        score: The score of the match.
        why: The reasons of the match, in a few words.
        heading: The title and headings above the passage.
        rank: Its place among the passages that fit the question, from 1.
        holds_answer: True if the words of the answer stand in it.
        answer_start: The first character of these words in the document's text; None if they stand
            in the heading alone, or nowhere. Where the passage holds the answer verbatim, it is the
            start of a span of the answer.
        answer_end: The character after their last.
        date: The day that the document names ("2026-03-04"), in its metadata or its name.
        updated_at: When its text last changed in the memory, in ISO 8601.
        superseded_by: The id of the document whose newer value of the same thing was read in its
            place; None for a passage that was read.
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
        """The words of the passage that the answer is from; None if there are none."""
        if self.answer_start is None or self.answer_end is None:
            return None
        return self.text[self.answer_start - self.start : self.answer_end - self.start]

    def __str__(self) -> str:
        return f"{self.source or self.document_id}[{self.start}:{self.end}]"


@dataclass(frozen=True, slots=True)
class Citation:
    """A place where an answer stands verbatim: characters `start` to `end` of a document's text.

    Attributes:
        document_id: The document.
        source: Where the document is from.
        start: The answer's first character in the document's text.
        end: The character after its last.
        text: These characters.
    """

    document_id: str
    source: str | None
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its sources and costs.

    Attributes:
        text: The answer.
        sources: First the passage that the answer is from, if one holds its words; then the others,
            best match first; last those that a passage among them supersedes.
        reader: The reader that wrote the text; for `reader="auto"` "memory" or "text", "auto" only
            if no passage was found.
        abstained: True if the memory does not hold the answer.
        confidence: In [0, 1]: the model's probability that the memory holds the answer, times the
            geometric mean of the probabilities of its words, times the share that their place
            leaves (`provenance.trust`). Compare it, but do not read it as a share of right answers:
            a small model is too sure of itself.
        prompt_tokens: Tokens that the model read for this question.
        memory_tokens: Source tokens that it read from memory instead.
        answer_tokens: Tokens of the answer.
        milliseconds: By stage: encode, search, load, rerank, newest, prefill (until the first
            token), decode.
        truncated: True if the answer ended at `max_tokens`.
        spans: Where the answer stands verbatim in the passages that were read, at most one place in
            each, in the order of `sources`; empty where it is in other words. The text is the
            answer, but for case, line breaks and the signs around it.
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
    spans: Sequence[Citation] = ()

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

    Attributes:
        text: The message.
        statement: The part that is worth keeping; empty if there is none.
        asked: The part that asks; empty if there is none.
        remembers: It asks to keep the part that it tells.
        forgets: It asks to erase something.
        chats: Small talk, or a question about the assistant, which needs no memory.
        general: It asks only for common knowledge.
        agrees: A yes.
        machine: No person wrote it: a prompt of a front end, a pasted dialogue, recalled text.
    """

    text: str
    statement: str = ""
    asked: str = ""
    remembers: bool = False
    forgets: bool = False
    chats: bool = False
    general: bool = False
    agrees: bool = False
    machine: bool = False

    @property
    def tells(self) -> bool:
        """Whether a part of it is worth keeping."""
        return bool(self.statement)

    @property
    def asks(self) -> bool:
        """Whether a part of it asks for something that the memory may hold."""
        return bool(self.asked)


@dataclass(frozen=True, slots=True)
class CopiedTexts:
    """What an answer is copied from, word for word.

    Attributes:
        texts: The texts; they are looked up for output only.
        margin: By how many nats another word must be likelier for the answer to leave them;
            infinite: it never does.
    """

    texts: Sequence[str]
    margin: float = math.inf


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a reader gets: a question, and either compressed passages or texts to answer it from.

    Attributes:
        question: The question.
        history: The turns before it, oldest first.
        memories: Compressed passages; the best one last, next to the question.
        texts: Texts of passages, in the same order.
        notes: False leaves the notes section out of the prompt.
        talk: True leaves the instruction out too.
        copied: What the answer is copied from; None for a free answer.
    """

    question: str
    history: Sequence[Turn] = ()
    memories: Sequence[CompressedPassage] = ()
    texts: Sequence[str] = ()
    notes: bool = True
    talk: bool = False
    copied: CopiedTexts | None = None


@dataclass(frozen=True, slots=True)
class AnswerSpan:
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
    """What one reading cost, and the confidence of the reader, in [0, 1]; see Answer."""

    prompt_tokens: int
    answer_tokens: int
    confidence: float
    load_ms: float
    prefill_ms: float
    decode_ms: float

    def followed_by(self, other: Usage) -> Usage:
        """The cost of two readings, of which the second one's answer is used."""
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
