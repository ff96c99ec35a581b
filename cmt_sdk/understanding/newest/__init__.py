"""The newest wins: which passages state an older value of the thing that a newer one states.

A small model that reads "I live in Paris." and "I live in Berlin now." together answers with
either, whatever their order and dates. So this package compares pairs of passages, and its callers
choose. Before the reading (Supersession.choose_by_time): of passages that state values of one fact
the newest leads, or the oldest where the question asks for what was before. After the reading
(answering/renewing.py), unless a generator writes: of short statements of a conversation, whose
pairs the probe can judge, the words of the newer one replace the answer from the older one. Knows
no store and no model.
"""

from cmt_sdk.understanding.newest.past import asks_for_before
from cmt_sdk.understanding.newest.probe import SURE, supersession_probe, text_of
from cmt_sdk.understanding.newest.same import (
    CONTESTED,
    LEAST,
    are_statements,
    contested,
    in_order,
    is_newer,
    is_same_fact,
    is_short,
    is_statement,
    newest_first,
    oldest_first,
    renews,
    stated_at,
)

__all__ = [
    "CONTESTED",
    "LEAST",
    "SURE",
    "are_statements",
    "asks_for_before",
    "contested",
    "in_order",
    "is_newer",
    "is_same_fact",
    "is_short",
    "is_statement",
    "newest_first",
    "oldest_first",
    "renews",
    "stated_at",
    "supersession_probe",
    "text_of",
]
