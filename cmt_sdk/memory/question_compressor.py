"""A compressor that embeds questions without the frozen model. The frozen model is loaded when a
passage is to be compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cmt_sdk.ports import Compressor
from cmt_sdk.types import CompressedPassage, Encoded, Fingerprint, Vector


@dataclass(frozen=True)
class QuestionCompressor:
    """Embeds questions by `embed`; leaves all else to the compressor of the frozen model.

    Attributes:
        fingerprint: Of the compressed passages, the same by either.
        embed: A question's embedding [dimension].
        frozen: Gives the compressor of the frozen model; loads it.
    """

    fingerprint: Fingerprint
    embed: Callable[[str], Vector]
    frozen: Callable[[], Compressor]

    def compress(self, texts: Sequence[str]) -> list[Encoded]:
        """See ports.Compressor."""
        return self.frozen().compress(texts)

    def is_valid(self, memory: CompressedPassage) -> bool:
        """See ports.Compressor."""
        return self.frozen().is_valid(memory)

    def embed_question(self, question: str) -> Vector:
        """See ports.Compressor."""
        return self.embed(question)
