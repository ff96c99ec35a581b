"""The values that cross walls: documents, passages, packed memories, matches, answers. Knows numpy,
no other room.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import PurePath
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Scalar: TypeAlias = str | int | float | bool | None
Metadata: TypeAlias = Mapping[str, Scalar]
Vector: TypeAlias = NDArray[np.float32]
ReaderKind: TypeAlias = Literal["memory", "text", "auto", "none"]
SearchMode: TypeAlias = Literal["reranked", "fused", "vector", "text"]
Outcome: TypeAlias = Literal["added", "updated", "unchanged"]
# in front matter
DATE_KEYS = ("date", "updated", "modified", "lastmod", "last_modified", "created")
ISO_DAY = re.compile(r"(?<!\d)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d)")


def tail_of(source: str | None) -> str:
    """The last two names of a path or an address, each after its slash; empty for a source of fewer
    names.
    """
    names = (source or "").split("/")
    return "/" + "/".join(names[-2:]) if len(names) > 2 and all(names[-2:]) else ""


@dataclass(frozen=True, slots=True)
class Document:
    """One thing to remember. Only `text` is needed; the rest is filled in by `Memory.add`.

    `scope` is a path of names such as "user/alice" or "user/alice/session/7": asking in
    "user/alice" sees everything beneath it. Times are UTC. `ready` is False until the text has been
    compressed.
    """

    text: str
    id: str = ""
    source: str | None = None
    scope: str = ""
    metadata: Metadata = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    version: int = 1
    current: bool = True
    ready: bool = False

    @property
    def date(self) -> str | None:
        """The day that the document names, as "2026-03-04": the latest in its metadata, else the
        one in its source's name.
        """
        named = [str(self.metadata.get(key) or "") for key in DATE_KEYS]
        days = [found[0] for text in named if (found := ISO_DAY.match(text))]
        in_name = ISO_DAY.search(PurePath(self.source or "").name)
        return max(days, default=in_name[0] if in_name else None)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text: `text[start:end]`, under the heading it stands below, about `tokens`
    tokens long.
    """

    start: int
    end: int
    tokens: int
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit that is compressed, matched and read: characters `start` to `end` of one version of
    a document.

    `ready` is False until it has been compressed. `fidelity` is that of its stored memory (see
    Encoded); None: not measured.
    """

    id: int
    document_id: str
    version: int
    ordinal: int
    start: int
    end: int
    tokens: int
    text: str
    heading: str = ""
    ready: bool = False
    fidelity: float | None = None

    @property
    def content(self) -> str:
        """What the model reads: the heading, where there is one, and the passage's own text."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What made a memory. Memories of another fingerprint cannot be read, except that `keep` and
    `keep_at_least` may differ, and `quantization` between bf16 and fp32: the same weights, and far
    less apart than four bits are.

    `base`, `tokenizer`, `encoder` and `matcher` are SHA-256 prefixes; `model` is the name people
    know. Memories that were made before there was `keep_at_least` have 0 there, and the id that
    they had.
    """

    model: str
    base: str
    quantization: str
    tokenizer: str
    encoder: str
    matcher: str
    compressor: str
    keep: float
    format: int
    keep_at_least: int = 0

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that name this fingerprint."""
        named = {
            name: value for name, value in asdict(self).items() if name != "keep_at_least" or value
        }
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: Fingerprint) -> list[str]:
        """The fields that keep memories of `self` from being read by `other`, in words; empty when
        they can.
        """
        may = {"keep", "keep_at_least", "model"}
        if {self.quantization, other.quantization} == {"bf16", "fp32"}:
            may.add("quantization")
        pairs = {
            f.name: (getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
            if f.name not in may
        }
        return [
            f"{name}: {mine} != {theirs}"
            for name, (mine, theirs) in pairs.items()
            if mine != theirs
        ]


@dataclass(frozen=True, slots=True)
class PackedMemory:
    """A compressed passage as it is stored: named numpy arrays, whose meaning `kind` defines
    (docs/format.md).
    """

    kind: str
    tokens: int
    arrays: Mapping[str, NDArray[np.generic]]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(int(a.nbytes) for a in self.arrays.values())


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a compressor makes of one passage: the memory to read and the embedding to find it by,
    of length 1.

    `fidelity`, in [0, 1], says how much of the passage the model reads from its memory; None: not
    measured.
    """

    memory: PackedMemory
    embedding: Vector
    fidelity: float | None = None


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
class Receipt:
    """Proof of forgetting: what went, from which files, and what a scan of every byte of them found
    left of it.

    `complete` is False while another process reads the state before: the rest is erased at the next
    opening. `copies` are those that this product made and that are still there (backups, archives,
    what a repair laid aside): they may hold what went.
    """

    documents: Sequence[str]
    versions: int
    passages: int
    bytes_freed: int
    files_scanned: Sequence[str]
    traces_found: int
    complete: bool
    at: datetime
    copies: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    """The memory in numbers. `pending` passages wait for compression; `cold` ones are encoded again
    when needed.
    """

    documents: int
    versions: int
    passages: int
    pending: int
    cold: int
    tokens: int
    text_bytes: int
    memory_bytes: int
    file_bytes: int
    index: str
    model: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, iterated for its documents. `next_cursor` asks for the following page;
    None on the last.
    """

    documents: Sequence[Document]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is: documents stored (`added`, or `unchanged` when their content was there
    already) and compressed.

    Of an archive, `taken` of the compressed passages have the memory that it brought; `unproven`
    memories of it were not taken, because nothing proves that they are of the text beside them:
    these passages are compressed here.
    """

    added: int = 0
    unchanged: int = 0
    updated: int = 0
    passages: int = 0
    compressed: int = 0
    taken: int = 0
    unproven: int = 0

    def plus(self, **steps: int) -> Progress:
        """This progress with some counters increased."""
        return replace(self, **{name: getattr(self, name) + step for name, step in steps.items()})


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of a check-up: what was looked at, whether it is well, and what to do when it is
    not.
    """

    check: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which documents are meant; every given condition must hold. An empty filter means all current
    documents.

    `scope` includes everything beneath it; `outside` leaves a scope out, with everything beneath
    it. `where` maps a metadata key to a value, or to one operator: {"year": {">=": 2020}}, with ==,
    !=, <, <=, >, >=, in, exists. `source` may hold the wildcard *.
    """

    ids: Sequence[str] | None = None
    scope: str | None = None
    source: str | None = None
    where: Mapping[str, Scalar | Mapping[str, Scalar | Sequence[Scalar]]] = field(
        default_factory=dict
    )
    history: bool = False
    outside: str | None = None

    @property
    def empty(self) -> bool:
        """True when nothing is asked for, so that every current document fits."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation. `role` is "user", "assistant" or "system"."""

    role: str
    content: str


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


@dataclass(frozen=True, slots=True)
class Removed:
    """What a deletion took out: documents in all their versions, and the number of their
    passages.
    """

    versions: Sequence[Document]
    passages: int


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
