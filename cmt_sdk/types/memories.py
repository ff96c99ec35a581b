"""Compressed passages: fingerprint, packed memory, embedding. Knows numpy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]


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
