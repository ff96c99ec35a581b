"""The compressor as the rest of the package sees it: a packer for memories and a matcher for
embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cmt_sdk.types import Encoded, Fingerprint, PackedMemory, Vector


class Packer(Protocol):
    """Makes memories of passages: `kv` or `soft`."""

    def pack(self, contents: Sequence[str]) -> list[PackedMemory]:
        """One memory a passage, in the order given."""

    def reads(self, memory: PackedMemory) -> bool:
        """Whether a memory from elsewhere is whole, and one that this model can read."""


class Meter(Protocol):
    """Reads memories again and says how much of their passages it finds."""

    def measure(
        self, contents: Sequence[str], memories: Sequence[PackedMemory]
    ) -> list[float | None]:
        """One fidelity in [0, 1] a passage, in the order given; None where it cannot be
        measured.
        """


class PassageEmbedder(Protocol):
    """Makes embeddings of passages, and of questions in the same space."""

    def vectors(self, texts: Sequence[str]) -> Vector:
        """Shape [n, dimension], rows of length 1."""

    def query(self, question: str) -> Vector:
        """Shape [dimension], of length 1."""


@dataclass(frozen=True)
class PassageCompressor:
    """Memories by `packer`, embeddings by `embedder`, fidelities by `meter` where there is one, all
    over one frozen model.
    """

    packer: Packer
    embedder: PassageEmbedder
    fingerprint: Fingerprint
    meter: Meter | None = None

    def compress(self, texts: Sequence[str]) -> list[Encoded]:
        """One memory and one embedding a text, in the order given."""
        memories, embeddings = self.packer.pack(texts), self.embedder.vectors(texts)
        found = self.meter.measure(texts, memories) if self.meter else [None] * len(memories)
        return [
            Encoded(memory, embedding, fidelity)
            for memory, embedding, fidelity in zip(memories, embeddings, found, strict=True)
        ]

    def reads(self, memory: PackedMemory) -> bool:
        """Whether a memory from elsewhere is whole, and one that this model can read."""
        return self.packer.reads(memory)

    def encode_query(self, question: str) -> Vector:
        """The question's vector, shape [dimension]."""
        return self.embedder.query(question)
