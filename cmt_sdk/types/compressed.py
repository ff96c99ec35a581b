"""Compressed passages: fingerprint, compressed passage, embedding. Knows numpy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]
# Below this fidelity the text of a passage is read in place of its compressed form. Over 80
# passages with three questions each (see neural/scoring.py) the text was better by 0.10 F1 (95 %:
# 0.02 to 0.17) between 0.85 and 0.9, by 0.05 and not surely between 0.9 and 0.95. Of passages that
# keep a quarter 4 in 100 lie below, of those that keep an eighth 46.
MIN_FIDELITY = 0.9


def is_poor(fidelity: float | None) -> bool:
    """Whether a compressed passage was measured and found poor; None stands for not measured."""
    return fidelity is not None and fidelity < MIN_FIDELITY


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What made a compressed passage. A model reads only compressed passages of its own
    fingerprint, except that `keep`, `keep_at_least` and `gates` may differ, and `quantization`
    between bf16, fp16 and fp32: the same weights, and far closer to each other than to four bits.
    Those in four-bit codes are read with any codec.

    Attributes:
        model: The name of the base model.
        base: SHA-256 prefix of its weights.
        quantization: "nf4", "bf16", "fp16" or "fp32".
        tokenizer: SHA-256 prefix of its tokenizer.
        encoder: SHA-256 prefix of the adapter that compresses.
        matcher: SHA-256 prefix of the head that embeds.
        compressor: "kv", or "soft-merged" with its compression.
        keep: The share of entries kept, 1 / compression; 1 for "soft".
        format: The number of the format of the arrays (docs/format.md).
        keep_at_least: Tokens of every passage whose entries are all kept. 0 in compressed passages
            that were made before this setting existed; their id stays.
        gates: SHA-256 prefix of the gates that scored the entries; "" where a second reading did.
        codec: SHA-256 prefix of the codec that encoded the entries; "" for four-bit codes.
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
    gates: str = ""
    codec: str = ""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that name this fingerprint."""
        later = ("keep_at_least", "gates", "codec")  # fields that earlier fingerprints do not have
        named = {name: value for name, value in asdict(self).items() if name not in later or value}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: Fingerprint) -> list[str]:
        """The fields that keep compressed passages of `self` from being read by `other`, as "name:
        mine != theirs"; empty if `other` can read them.
        """
        may = {"keep", "keep_at_least", "gates", "model"}
        if {self.quantization, other.quantization} <= {"bf16", "fp16", "fp32"}:
            may.add("quantization")
        if not self.codec:
            may.add("codec")
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


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CompressedPassage:
    """A compressed passage as it is stored.

    Attributes:
        kind: The format of the arrays, such as "kv" (docs/format.md).
        tokens: Source tokens.
        arrays: Named numpy arrays, whose meaning and shapes `kind` defines.
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
    """What a compressor makes of one passage.

    Attributes:
        compressed: The compressed passage, which is read.
        embedding: Float32 [dimension], of length 1, by which it is found.
        fidelity: In [0, 1], how much of the passage the model reads from its compressed form; None
            if it was not measured.
    """

    compressed: CompressedPassage
    embedding: Vector
    fidelity: float | None = None

    @property
    def cold(self) -> bool:
        """Whether the compressed form was dropped, and the embedding alone is left."""
        return not self.compressed.arrays
