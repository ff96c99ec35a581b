"""An engine without a language model that obeys the ports.

Hashed words are the vectors, the passage's bytes its compressed form. The reader answers with the
sentence that shares most words with the question, read from the compressed passages alone. Needs no
torch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.memory import Memory
from cmt_sdk.memory.assembly import assemble
from cmt_sdk.retrieval.embedding import Embedder, ExternalEmbedder
from cmt_sdk.text.prompt_messages import UNKNOWN
from cmt_sdk.types import (
    AnswerSpan,
    CompressedPassage,
    Encoded,
    Fingerprint,
    Piece,
    Prompt,
    Usage,
    Vector,
)
from cmt_sdk.understanding.utterances import LABELS

DIMENSION = 64
FINGERPRINT = Fingerprint("fake", "f" * 16, "bf16", "t" * 16, "plain", "plain", "kv", 0.25, 1)
FIRST_WORDS = {
    "hello": "chats",
    "thanks": "chats",
    "forget": "forgets",
    "yes": "agrees",
    "generate": "machine",
}


def words(text: str) -> list[str]:
    """Lower-case words of a text, the smallest ones left out."""
    return [w for w in re.findall(r"\w+", text.lower()) if len(w) > 2]


def hidden(text: str) -> CompressedPassage:
    """A text as a compressed passage of the fakes, which is not readable as text."""
    held = np.frombuffer(text.encode(), np.uint8) ^ np.uint8(0x55)
    return CompressedPassage("fake", len(text.split()), {"bytes": held})


@dataclass
class FakeCompressor:
    """Memories that hold the passage's own bytes; vectors that count hashed words."""

    fingerprint: Fingerprint = FINGERPRINT
    compressed: list[str] = field(default_factory=list)
    embedder: ExternalEmbedder | None = None

    def compress(self, texts: Sequence[str]) -> list[Encoded]:
        """One compressed passage per text. `compressed` records the texts.

        Args:
            texts: The passages.

        Returns:
            A compressed passage and a unit vector [64] for each.
        """
        self.compressed += texts
        embeddings = (
            self.embedder.vectors(texts)
            if self.embedder
            else [self.embed_question(t) for t in texts]
        )
        return [Encoded(hidden(t), vector) for t, vector in zip(texts, embeddings, strict=True)]

    def is_valid(self, memory: CompressedPassage) -> bool:
        """True where it holds a passage's bytes."""
        held = memory.arrays.get("bytes")
        return (
            memory.kind == "fake" and held is not None and held.dtype == np.uint8 and held.ndim == 1
        )

    def embed_question(self, question: str) -> Vector:
        """A unit vector, shape [64], or the embedder's."""
        if self.embedder:
            return self.embedder.query(question)
        vector = np.full(DIMENSION, 1e-3, np.float32)
        for word in words(question):
            vector[zlib.crc32(word.encode()) % DIMENSION] += 1.0
        normalised: Vector = vector / np.linalg.norm(vector)
        return normalised


class FakeReader:
    """Answers with the sentence of the notes that shares most words with the question.

    Where no sentence shares one, the heading answers.
    """

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """Stream the sentence in words, or the words for not knowing when nothing is shared."""
        held = [np.asarray(m.arrays["bytes"], np.uint8) for m in prompt.memories]
        texts = list(prompt.texts) or [bytes(h ^ np.uint8(0x55)).decode() for h in held]
        asked = set(words(prompt.question))
        sentences = [s.strip() for t in reversed(texts) for s in re.split(r"(?<=[.!?])\s+|\n", t)]
        best = max(
            sentences,
            key=lambda s: (len(asked & set(words(s))), s.endswith((".", "!", "?"))),
            default="",
        )
        shared = len(asked & set(words(best)))
        answer = best.split()[:max_tokens] if shared else UNKNOWN.split()
        for word in answer:
            yield Piece(word + " ")
        yield Piece(
            "", Usage(len(prompt.question.split()), len(answer), float(shared > 0), 0.0, 0.0, 0.0)
        )

    def word_likelihoods(
        self, question: str, memories: Sequence[CompressedPassage]
    ) -> list[list[float]]:
        """0 for each different word of the question that a passage holds, else -10."""
        texts = [
            bytes(np.asarray(m.arrays["bytes"], np.uint8) ^ np.uint8(0x55)).decode()
            for m in memories
        ]
        asked = list(dict.fromkeys(words(question)))
        return [[0.0 if word in words(text) else -10.0 for word in asked] for text in texts]

    def answer_spans(
        self, prompt: Prompt, text: str, words: Sequence[tuple[int, int]]
    ) -> list[AnswerSpan]:
        """Each word of a text: the later one is likelier, one of the question is unlikely."""
        found = [text[start:end] for start, end in words]
        return [
            AnswerSpan(word, -99.0 if word in prompt.question else float(n - len(found)), 1)
            for n, word in enumerate(found)
        ]


class FakeStateReader:
    """Reads no hidden states: characters alone decide the intent of a message."""

    name = "characters"

    def states(self, texts: Sequence[str]) -> Vector:
        """Float32 [n, 0]."""
        return np.zeros((len(texts), 0), np.float32)


@dataclass
class FakeEngine:
    """An Engine made of the fakes above."""

    compressor: FakeCompressor = field(default_factory=FakeCompressor)
    reader: FakeReader = field(default_factory=FakeReader)
    state_reader: FakeStateReader = field(default_factory=FakeStateReader)
    vector_weight: float = 1.0
    loaded: bool = True
    fork_safe: bool = True
    read_at_once: list[str] = field(default_factory=list)

    def uncompressed(self, texts: Sequence[str]) -> list[CompressedPassage]:
        """As the fake compressor makes them. `read_at_once` records the texts."""
        self.read_at_once += texts
        return [hidden(text) for text in texts]

    def intent_scores(self, texts: Sequence[str]) -> Vector:
        """Judge intents by the first word and the last sign alone.

        Questions ask; most other texts state facts.
        """
        wants = [FIRST_WORDS.get((words(t) or [""])[0], "tells") for t in texts]
        asks = [
            "asks" if t.rstrip().endswith(("?", "？")) else w
            for t, w in zip(texts, wants, strict=True)
        ]
        names = list(LABELS.values())
        return np.array([[1.0 if name == a else -1.0 for name in names] for a in asks], np.float32)

    def small_talk(self, text: str) -> list[tuple[float, str, str]]:
        """No small talk is near any text."""
        return [(0.0, text, text)]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Each word is a token."""
        return [len(t.split()) for t in texts]

    @classmethod
    def embedded(cls, embedder: Embedder) -> FakeEngine:
        """An engine whose embeddings a foreign embedder makes."""
        external = ExternalEmbedder(embedder)
        return cls(FakeCompressor(replace(FINGERPRINT, matcher=external.digest), embedder=external))

    @classmethod
    def of(cls, **fingerprint: Any) -> FakeEngine:
        """An engine whose fingerprint has these values."""
        return cls(FakeCompressor(replace(FINGERPRINT, **fingerprint)))


def open_fake(
    path: Path | DatabaseAddress,
    engine: FakeEngine | None = None,
    *,
    scope: str = "",
    create: bool = True,
    encrypted: bool = False,
    embedder: Embedder | None = None,
    **settings: Any,
) -> Memory:
    """Open a real Memory on disk, or in a database, with a fake language model.

    Args:
        path: The folder of the memory, or the address of its database.
        engine: The fake engine; a new one by default.
        scope: Of a database, only this scope.
        create: Create the memory where there is none.
        encrypted: Encrypt a new memory.
        embedder: Makes the embeddings, instead of the engine.
        settings: As for `cmt_sdk.open`.
    """
    engine = engine or (FakeEngine.embedded(embedder) if embedder else FakeEngine())
    parts = assemble(path, settings, scope=scope, create=create, encrypted=encrypted, engine=engine)
    return Memory(parts)
