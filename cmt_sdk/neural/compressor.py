"""The compressor as the rest of the package sees it: a method for memories and an embedder for
embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cmt_sdk.neural.methods.base import CompressionMethod
from cmt_sdk.types import CompressedPassage, Encoded, Fingerprint, Vector


class Meter(Protocol):
    """Reads memories again and measures how much of their passages they give back."""

    def measure(
        self, contents: Sequence[str], memories: Sequence[CompressedPassage]
    ) -> list[float | None]:
        """Measure one fidelity per passage.

        Args:
            contents: The passages.
            memories: The memory of each.

        Returns:
            In the order given, fidelities in [0, 1]; None where one cannot be measured.
        """


class PassageEmbedder(Protocol):
    """Makes embeddings of passages, and of questions in the same space."""

    def vectors(self, texts: Sequence[str]) -> Vector:
        """Shape [n, dimension], rows of length 1."""

    def query(self, question: str) -> Vector:
        """Shape [dimension], of length 1."""


@dataclass(frozen=True)
class PassageCompressor:
    """Memories by `method`, embeddings by `embedder`, fidelities by `meter` where there is one, all
    over one frozen model.

    Attributes:
        method: Makes and checks memories.
        embedder: Makes embeddings.
        fingerprint: The identity of all parts: memories of another fingerprint are not read.
        meter: Measures fidelities; None to leave them out.
    """

    method: CompressionMethod
    embedder: PassageEmbedder
    fingerprint: Fingerprint
    meter: Meter | None = None

    def compress(self, texts: Sequence[str]) -> list[Encoded]:
        """Make one memory and one embedding per text, in the order given.

        Raises:
            InvalidInput: The model cannot hold a text.
        """
        memories = self.method.compress(texts)
        embeddings = self.embedder.vectors(texts)
        found = self.meter.measure(texts, memories) if self.meter else [None] * len(memories)
        return [
            Encoded(memory, embedding, fidelity)
            for memory, embedding, fidelity in zip(memories, embeddings, found, strict=True)
        ]

    def is_valid(self, memory: CompressedPassage) -> bool:
        """Whether a memory from elsewhere is complete and one that this model can read."""
        return self.method.is_valid(memory)

    def embed_question(self, question: str) -> Vector:
        """The question's embedding [dimension]."""
        return self.embedder.query(question)
