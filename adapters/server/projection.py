"""The map of a memory: embeddings projected to the plane, in clusters, with nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import cmt_sdk
from cmt_adapters.server.schemas import MapPoint, MapValue

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
MAX_CLUSTERS = 8
KMEANS_ROUNDS = 20  # k-means converges earlier
NEIGHBOURS = 5
LABEL_CHARS = 60
TOLERANCE = 1e-5  # rows of length 1 that differ by less are equal


def map_of(memory: cmt_sdk.Memory, scope: str | None, limit: int) -> MapValue:
    """Return the compressed passages of a scope as points.

    If there are more than `limit`, those nearest to the mean are taken.
    """
    embeddings = memory.embeddings(scope=scope)
    if not embeddings.passage_ids:
        return MapValue(points=[], neighbours={})
    # `nearest` returns texts and documents without loading a model
    matches = memory.nearest(embeddings.matrix.mean(0), limit, scope=scope)
    rows = {passage: row for row, passage in enumerate(embeddings.passage_ids)}
    # passages that were added in between have no embedding here
    matches = [m for m in matches if m.passage.id in rows]
    vectors = embeddings.matrix[[rows[m.passage.id] for m in matches]]
    near = neighbours(vectors, NEIGHBOURS)
    ids = [m.passage.id for m in matches]
    points = [
        MapPoint(
            passage_id=match.passage.id,
            document_id=match.document.id,
            source=match.document.source,
            x=float(place[0]),
            y=float(place[1]),
            cluster=int(cluster),
            label=" ".join(match.passage.text[: 4 * LABEL_CHARS].split())[:LABEL_CHARS],
        )
        for match, place, cluster in zip(
            matches, plane(vectors), clusters(vectors, MAX_CLUSTERS), strict=True
        )
    ]
    return MapValue(
        points=points,
        neighbours={i: [ids[n] for n in row] for i, row in zip(ids, near, strict=True)},
    )


def plane(vectors: Floats) -> Floats:
    """Project vectors to their first two principal components.

    Args:
        vectors: [n, dimension].

    Returns:
        [n, 2], scaled to [-1, 1]. Vectors that vary in one direction are on a line.
    """
    centred = (vectors - vectors.mean(0)).astype(np.float64)  # (n, dimension)
    _, directions = np.linalg.eigh(centred.T @ centred)  # (dimension, dimension), ascending
    axes = directions[:, :-3:-1]  # (dimension, 2), the largest first
    # fix the sign, which otherwise depends on the machine
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), range(axes.shape[1])])
    placed = np.zeros((len(vectors), 2), np.float32)
    placed[:, : axes.shape[1]] = centred @ axes
    widest = float(np.abs(placed).max())
    flat: Floats = placed / widest if widest > TOLERANCE else np.zeros_like(placed)
    return flat


def clusters(vectors: Floats, most: int) -> Integers:
    """Cluster rows by spherical k-means; deterministic.

    Args:
        vectors: Rows of length 1, [n, dimension].
        most: Maximum number of clusters.

    Returns:
        The cluster of each row, [n].
    """
    centres = vectors[:1]
    while len(centres) < min(most, len(vectors)):  # next: the row farthest from all centres
        centres = np.concatenate([centres, vectors[[(vectors @ centres.T).max(1).argmin()]]])
    of = np.zeros(len(vectors), np.int64)
    for _ in range(KMEANS_ROUNDS):
        of = (vectors @ centres.T).argmax(1)
        sums = np.stack([vectors[of == n].sum(0) for n in range(len(centres))])
        centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    named: Integers = np.unique(of, return_inverse=True)[1].astype(np.int64)
    return named


def neighbours(vectors: Floats, most: int) -> Integers:
    """Return the nearest rows of each row by cosine, nearest first.

    Args:
        vectors: Rows of length 1, [n, dimension].
        most: Maximum number of neighbours.

    Returns:
        Row numbers, [n, min(most, n - 1)].
    """
    similarity = vectors @ vectors.T  # (n, n)
    np.fill_diagonal(similarity, -np.inf)
    order: Integers = np.argsort(-similarity, axis=1, kind="stable")
    return order[:, : min(most, len(vectors) - 1)]
