"""Search results as adapters need them: one passage per document, and ids of passages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cmt_sdk


def best_per_document(
    find: Callable[[int], Sequence[cmt_sdk.Match]],
    k: int,
    accepts: Callable[[cmt_sdk.Match], bool] = lambda _: True,
) -> list[cmt_sdk.Match]:
    """Return the best passage of each document, best first; at least k if there are as many.

    Several passages may come from one document, and `accepts` may refuse some. While fewer than k
    remain, the search is repeated with four times as many passages.

    Args:
        find: Searches for a number of passages, best first.
        k: Number of documents.
        accepts: Decides on the best passage of a document.
    """
    wanted = k
    while True:
        matches = find(wanted)
        best: dict[str, cmt_sdk.Match] = {}
        for match in matches:
            best.setdefault(match.document.id, match)
        accepted = [match for match in best.values() if accepts(match)]
        if len(accepted) >= k or len(matches) < wanted:
            return accepted
        wanted *= 4


def passage_key(match: cmt_sdk.Match) -> str:
    """Return an id for a passage that changes with the version of its document."""
    passage = match.passage
    return f"{match.document.id}:{passage.version}:{passage.ordinal}"
