"""Diverse search results: maximal marginal relevance over embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def normalized(vector: ArrayLike) -> NDArray[np.float32]:
    """Return the vector scaled to length 1, float32 [dimension]."""
    row = np.asarray(vector, np.float32)
    unit: NDArray[np.float32] = row / max(float(np.linalg.norm(row)), 1e-12)
    return unit


def maximal_marginal_relevance(
    query: NDArray[np.float32], rows: Sequence[NDArray[np.float32]], k: int, relevance: float
) -> list[int]:
    """Select k rows by maximal marginal relevance (Carbonell and Goldstein 1998).

    Args:
        query: The query's vector of length 1, [dimension].
        rows: The candidates' vectors of length 1, each [dimension].
        k: How many to select.
        relevance: Weight of the similarity to the query in [0, 1]; the rest is for diversity.

    Returns:
        The indices of the selected rows, in order of selection.
    """
    selected: list[int] = []
    if not rows:
        return selected
    matrix = np.stack(rows)  # (n, dimension)
    to_query = matrix @ query  # (n,)
    to_selected = np.zeros(len(rows), np.float32)  # (n,), the maximum over the selected rows
    while len(selected) < min(k, len(rows)):
        score = relevance * to_query - (1 - relevance) * to_selected
        score[selected] = -np.inf
        selected.append(int(score.argmax()))
        to_latest = matrix @ matrix[selected[-1]]
        is_first = len(selected) == 1
        to_selected = to_latest if is_first else np.maximum(to_selected, to_latest)
    return selected
