"""A linear probe: hashed characters and a model's states become a score for each label.

Ridge regression in closed form, one solve for all labels. Scores are distances from a threshold
that cross-validation chooses: above 0 a label holds.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from cmt_sdk.types import Vector
from cmt_sdk.understanding.utterances import LABELS, Utterance

HASHED = 4096  # places for hashed character and word sequences
LONGEST = 600  # characters of a text that are hashed
RIDGE = 0.1
STATES_WEIGHT = 1.0  # of the states against the characters
FOLDS = 5


@dataclass(frozen=True)
class IntentProbe:
    """A fitted probe: scores = [characters, states] @ weights + bias.

    mean: [d] and scale: [d], which standardise the states; centre: [h + d], the features' mean;
    weights: [h + d, labels]; bias: [labels].
    """

    mean: Vector
    scale: Vector
    centre: Vector
    weights: Vector
    bias: Vector

    def scores(self, texts: Sequence[str], states: Vector) -> Vector:
        """Scores [n, labels] of n texts, whose states are [n, d]; a label holds above 0."""
        features = _features(texts, (states - self.mean) / self.scale)
        found: Vector = ((features - self.centre) @ self.weights + self.bias).astype(np.float32)
        return found

    def places(self, texts: Sequence[str], states: Vector) -> Vector:
        """Directions [n, h + d] of n texts: the more alike two of them are, the nearer to 1 is
        their product.
        """
        scaled = (states - self.mean) / self.scale
        scaled /= np.linalg.norm(scaled, axis=1, keepdims=True) + 1e-9
        found: Vector = np.concatenate([hashed(texts), scaled], axis=1) / np.sqrt(2)
        return found.astype(np.float32)

    def packed(self) -> bytes:
        """The probe as bytes, weights in half precision."""
        held = io.BytesIO()
        np.savez(held, **{f.name: getattr(self, f.name).astype(np.float16) for f in fields(self)})
        return held.getvalue()

    @classmethod
    def unpacked(cls, data: bytes) -> IntentProbe:
        """The probe of `packed`. Raises ValueError, KeyError, OSError for other bytes."""
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            return cls(**{f.name: held[f.name].astype(np.float32) for f in fields(cls)})


def fit(utterances: Sequence[Utterance], states: Vector) -> IntentProbe:
    """The probe for these messages, whose states are [n, d]; d may be 0."""
    mean = states.mean(0)
    scale = states.std(0) + 1e-6
    features = _features([u.text for u in utterances], (states - mean) / scale)
    wanted = np.array([[name in u.labels for name in LABELS.values()] for u in utterances])
    centre = features.mean(0)
    inner = features - centre
    kernel = inner @ inner.T
    dual, prior = _solved(kernel, wanted)
    bias = prior - _thresholds(kernel, wanted)
    return IntentProbe(
        mean, scale, centre, (inner.T @ dual).astype(np.float32), bias.astype(np.float32)
    )


def _solved(kernel: Any, wanted: Any) -> tuple[Any, Any]:
    """Dual weights [n, labels] and the mean of the targets [labels], which are 1 and -1."""
    targets = 2.0 * wanted - 1.0
    prior = targets.mean(0)
    return np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), targets - prior), prior


def _thresholds(kernel: Any, wanted: Any) -> Any:
    """For each label the threshold with the best F1 on messages that were left out of the fit."""
    parts = np.arange(len(wanted)) % FOLDS
    held_out = np.zeros(wanted.shape)
    for part in range(FOLDS):
        rest, left = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        dual, prior = _solved(kernel[np.ix_(rest, rest)], wanted[rest])
        held_out[left] = kernel[np.ix_(left, rest)] @ dual + prior
    candidates = np.linspace(-0.9, 0.5, 57)
    scores = np.array([_f1(held_out > c, wanted) for c in candidates])  # [candidates, labels]
    best = scores >= scores.max(0) - 1e-9
    return np.array([candidates[column].mean() for column in best.T])


def _f1(chosen: Any, wanted: Any) -> Any:
    return 2 * (chosen & wanted).sum(0) / np.maximum(1, chosen.sum(0) + wanted.sum(0))


def _features(texts: Sequence[str], states: Any) -> Any:
    """Characters and standardised states [n, h + d], the parts scaled to their weights."""
    width = max(1, states.shape[1])
    return np.concatenate([hashed(texts), states * np.sqrt(STATES_WEIGHT / width)], axis=1)


def hashed(texts: Sequence[str]) -> Vector:
    """Hashed sequences of characters and words, float32 [n, HASHED], rows of length 1."""
    rows = np.zeros((len(texts), HASHED), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for part in set(_parts(text)):
            code = zlib.crc32(part.encode(errors="replace"))
            row[code % HASHED] += 1.0 if code & 0x80000000 else -1.0
    scaled: Vector = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)
    return scaled


def _parts(text: str) -> Iterator[str]:
    """Sequences of one to five characters, words, pairs of words, how a text begins and ends."""
    cut = text.strip()[:LONGEST]
    spread = f" {re.sub(r'[0-9]', '0', cut.casefold())} "
    words = re.findall(r"\w+|[^\w\s]", spread)
    for size in range(1, 6):
        for at in range(len(spread) - size + 1):
            yield f"{size}:{spread[at : at + size]}"
    yield from (f"w:{word}" for word in words)
    yield from (f"b:{one} {two}" for one, two in pairwise(words))
    yield from (f"s:{' '.join(words[:size])}" for size in (1, 2, 3))
    yield from (f"e:{' '.join(words[-size:])}" for size in (1, 2))
    yield f"lines:{min(3, cut.count(chr(10)))}"
    yield f"words:{min(6, (1 + len(words)).bit_length())}"
