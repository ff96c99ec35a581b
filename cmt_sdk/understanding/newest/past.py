"""Whether a question asks for what was before: "Where did I live before?", not "Where do I live?".

A linear probe on hashed characters and words, fitted within milliseconds to the labelled questions
of `questions.tsv` (nine languages; a line: 1 or 0, the language, the question). A question in the
past tense alone does not ask for what was before: "What was my password again?".
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np

from cmt_sdk.types import Vector

HASHED = 2048  # places for sequences of characters, and for words
LONGEST = 400  # characters of a question, from its end, that are looked at
RIDGE = 0.1


def asks_for_before(question: str) -> bool:
    """True where the question is, by the probe, one for an earlier state of what has changed."""
    centre, weights, bias = _fitted()
    return float((_hashed(question) - centre) @ weights + bias) > 0.0


@cache
def _fitted() -> tuple[Vector, Vector, float]:
    """The features' mean [HASHED], the weights [HASHED] and the bias, by ridge regression on the
    labels.
    """
    lines = (files(__package__) / "questions.tsv").read_text(encoding="utf-8").splitlines()
    labelled = [(line[0] == "1", line.split("\t", 2)[2]) for line in lines]
    rows = np.stack([_hashed(question) for _, question in labelled])
    targets = np.array([1.0 if is_past else -1.0 for is_past, _ in labelled], np.float32)
    centre, bias = rows.mean(0), float(targets.mean())
    inner = rows - centre
    dual = np.linalg.solve(
        inner @ inner.T + RIDGE * np.eye(len(rows), dtype=np.float32), targets - bias
    )
    return centre, inner.T @ dual, bias


def _hashed(question: str) -> Vector:
    """What a question is made of, float32 [HASHED], of length 1."""
    row = np.zeros(HASHED, np.float32)
    for part in set(_parts(question.strip()[-LONGEST:])):
        code = zlib.crc32(part.encode(errors="replace"))
        row[code % HASHED] += 1.0 if code & 0x80000000 else -1.0
    scaled: Vector = row / (np.linalg.norm(row) + 1e-9)
    return scaled


def _parts(question: str) -> Iterator[str]:
    """Its sequences of one to five characters and its words, every digit alike."""
    spread = f" {re.sub(r'[0-9]', '0', question.casefold())} "
    for size in range(1, 6):
        for at in range(len(spread) - size + 1):
            yield spread[at : at + size]
    yield from (f"w:{word}" for word in re.findall(r"\w+", spread))
