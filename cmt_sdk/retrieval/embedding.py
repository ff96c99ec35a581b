"""Embeddings of the caller's embedding model, in place of the matching head. Knows one protocol
and numpy; knows no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.types import Vector


class Embedder(Protocol):
    """An embedding model of the caller, identified by its `name`: vectors of two models cannot be
    compared.
    """

    @property
    def name(self) -> str:
        """Its name, with everything that changes its vectors."""

    def embed_documents(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector per text, in the order given, all of one length."""

    def embed_query(self, text: str) -> Sequence[float]:
        """The question's vector in the same space."""


@dataclass(frozen=True)
class ExternalEmbedder:
    """An embedder as the compressor uses it: rows of length 1."""

    embedder: Embedder

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits for the fingerprint."""
        return hashlib.sha256(f"embedder:{self.embedder.name}".encode()).hexdigest()[:16]

    def vectors(self, texts: Sequence[str]) -> Vector:
        """Embed texts: float32 [n, dimension]. Raises InvalidSetting for a bad array."""
        return self._unit(self.embedder.embed_documents(list(texts)), len(texts))

    def query(self, question: str) -> Vector:
        """Embed a question: float32 [dimension]. Raises InvalidSetting for a bad array."""
        vector: Vector = self._unit([self.embedder.embed_query(question)], 1)[0]
        return vector

    def _unit(self, rows: Sequence[Sequence[float]], count: int) -> Vector:
        matrix = np.asarray(rows, np.float32)
        if matrix.ndim != 2 or len(matrix) != count or not np.isfinite(matrix).all():
            raise InvalidSetting(
                f"embedder={self.embedder.name!r} gave an array of shape {matrix.shape} for {count}"
                " texts: it must give one vector of finite numbers for each, all of one length"
            )
        # in float64: the square of a large float32 overflows
        lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
        unit: Vector = (matrix / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit
