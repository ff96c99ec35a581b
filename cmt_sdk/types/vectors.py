"""Values that the store and the index of embeddings exchange. Imports numpy alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cmt_sdk.types import Vector


@dataclass(frozen=True, slots=True)
class ChangeCounters:
    """The state of the set of embeddings. Both numbers only grow.

    Attributes:
        gained: the label given out last.
        lost: how often the set has lost embeddings.
    """

    gained: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class VectorRows:
    """Embeddings as of one moment.

    Attributes:
        changes: The counters of that moment.
        labels: One per row, rising.
        passage_ids: The id of the passage of each row.
        matrix: Float32 [n, dimension].
        live: All labels in use, earlier ones too; None if none was lost since the caller last
            looked.
    """

    changes: ChangeCounters
    labels: Sequence[int]
    passage_ids: Sequence[int]
    matrix: Vector
    live: Collection[int] | None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors that passages are found by.

    Attributes:
        passage_ids: The id of the passage of each row.
        matrix: Float32 [n, dimension]; each row has length 1.
    """

    passage_ids: Sequence[int]
    matrix: Vector


@dataclass(frozen=True, slots=True)
class Generation:
    """An index file as the database records it: only a file that fits every field is trusted."""

    number: int
    file: str
    sha256: str
    dimension: int
    space: str
    count: int
    last_label: int
