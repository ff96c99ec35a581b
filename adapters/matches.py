"""Ids of passages, as adapters need them."""

from __future__ import annotations

import cmt_sdk


def passage_key(match: cmt_sdk.Match) -> str:
    """Return an id for a passage that changes with the version of its document."""
    passage = match.passage
    return f"{match.document.id}:{passage.version}:{passage.ordinal}"
