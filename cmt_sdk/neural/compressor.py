"""The compressor as the rest of the package sees it: a packer for memories and a matcher for key vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cmt_sdk.neural.matching import Matcher
from cmt_sdk.types import Encoded, Fingerprint, PackedMemory, Vector


class Packer(Protocol):
    """Makes memories of passages: `kv` or `soft`."""

    def pack(self, contents: Sequence[str]) -> list[PackedMemory]:
        """One memory a passage, in the order given."""


@dataclass(frozen=True)
class PassageCompressor:
    """Memories by `packer`, key vectors by `matcher`, both over one frozen model."""

    packer: Packer
    matcher: Matcher
    fingerprint: Fingerprint

    def compress(self, texts: Sequence[str]) -> list[Encoded]:
        """One memory and one key vector a text, in the order given."""
        memories, keys = self.packer.pack(texts), self.matcher.vectors(texts)
        return [Encoded(memory, key) for memory, key in zip(memories, keys, strict=True)]

    def encode_query(self, question: str) -> Vector:
        """The question's vector, shape [dimension]."""
        vector: Vector = self.matcher.vectors([question])[0]
        return vector
