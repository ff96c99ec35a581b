"""A compressor whose memories and embeddings can be found again in files. Knows no test."""

from dataclasses import dataclass, field

import numpy as np

from cmt_sdk.testing.fakes import DIMENSION, FakeCompressor
from cmt_sdk.types import CompressedPassage, Encoded


@dataclass
class Marked(FakeCompressor):
    """Memories and embeddings of bytes that nothing else has; `made` remembers both by text."""

    made: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def compress(self, texts):
        """Random bytes for each text."""
        return [self._one(t) for t in texts]

    def _one(self, text):
        random = np.random.default_rng(list(text.encode()))
        key = random.standard_normal(DIMENSION).astype(np.float32)
        key /= np.linalg.norm(key)
        memory = random.integers(0, 256, 64, np.uint8)
        self.made[text] = memory.tobytes(), key.tobytes()
        return Encoded(CompressedPassage("fake", len(text.split()), {"bytes": memory}), key)
