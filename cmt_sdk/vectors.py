"""The values between the store and the index of embeddings. Knows numpy, no other room."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cmt_sdk.types import Vector


@dataclass(frozen=True, slots=True)
class Changes:
    """How often the set of embeddings has gained (a label, the last one given out) and lost; both
    only grow.
    """

    gained: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class VectorRows:
    """Embeddings as of one moment: [n, dimension] with their labels, rising, and the ids of their
    passages.

    `live` holds all labels that are alive, earlier ones too; None where nothing was lost since the
    caller last looked.
    """

    changes: Changes
    labels: Sequence[int]
    passages: Sequence[int]
    matrix: Vector
    live: Collection[int] | None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What passages are found by: one row of length 1 for each id in `passages`; matrix float32 [n,
    dimension].
    """

    passages: Sequence[int]
    matrix: Vector


@dataclass(frozen=True, slots=True)
class Generation:
    """An index file as the database knows it: only a file that matches its row in every field is
    trusted.
    """

    number: int
    file: str
    sha256: str
    dimension: int
    space: str
    count: int
    last_label: int
