"""The newest wins: which passages state an older value of the thing that a newer one states.

A small model that reads "I live in Paris." and "I live in Berlin now." together answers with
either, whatever their order and dates. So the choice is made before the reading: of passages that
state a value of the same thing, the newest is read, unless the question asks for what was before.
Knows no store and no model.
"""

from cmt_sdk.understanding.newest.past import asks_for_before
from cmt_sdk.understanding.newest.probe import SURE, supersession_probe, text_of
from cmt_sdk.understanding.newest.same import (
    CONTESTED,
    LEAST,
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
