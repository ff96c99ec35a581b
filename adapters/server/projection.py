"""The map of a memory: embeddings in the plane, in clusters, and the nearest neighbours of each.
Knows no model and no HTTP.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import cmt_sdk
from cmt_adapters.server.schemas import MapPoint, MapValue

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]
MAX_CLUSTERS = 8
KMEANS_ROUNDS = 20  # of k-means, which has settled long before
NEIGHBOURS = 5
LABEL_CHARS = 60  # characters
TOLERANCE = 1e-5  # what rows of length 1 may differ by that are one


def map_of(memory: cmt_sdk.Memory, scope: str | None, limit: int) -> MapValue:
    """The passages of a scope that are compressed; of more than `limit`, those nearest to the
    middle.
    """
    embeddings = memory.embeddings(scope=scope)
    if not embeddings.passages:
        return MapValue(points=[], neighbours={})
    matches = memory.nearest(
        embeddings.matrix.mean(0), limit, scope=scope
    )  # which brings their texts and documents, without a model
    rows = {passage: row for row, passage in enumerate(embeddings.passages)}
    # added in between: they have no embedding here
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
    """The first two principal components, [n, dimension] to [n, 2] in [-1, 1]; what varies in one
    direction lies on a line.
    """
    centred = (vectors - vectors.mean(0)).astype(np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    axes = directions[:, :-3:-1]
    # else each machine may choose another side
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), range(axes.shape[1])])
    placed = np.zeros((len(vectors), 2), np.float32)
    placed[:, : axes.shape[1]] = centred @ axes
    widest = float(np.abs(placed).max())
    flat: Floats = placed / widest if widest > TOLERANCE else np.zeros_like(placed)
    return flat


def clusters(vectors: Floats, most: int) -> Whole:
    """A cluster for each of [n, dimension] rows of length 1, by k-means on the sphere; always the
    same for the same rows.
    """
    centres = vectors[:1]
    while len(centres) < min(most, len(vectors)):  # each the row that is farthest from those before
        centres = np.concatenate([centres, vectors[[(vectors @ centres.T).max(1).argmin()]]])
    of = np.zeros(len(vectors), np.int64)
    for _ in range(KMEANS_ROUNDS):
        of = (vectors @ centres.T).argmax(1)
        sums = np.stack([vectors[of == n].sum(0) for n in range(len(centres))])
        centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    named: Whole = np.unique(of, return_inverse=True)[1].astype(np.int64)
    return named


def neighbours(vectors: Floats, most: int) -> Whole:
    """The rows nearest to each of [n, dimension] rows by cosine, nearest first, [n, min(most, n -
    1)].
    """
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    found: Whole = np.argsort(-likeness, axis=1, kind="stable")[:, : min(most, len(vectors) - 1)]
    return found
