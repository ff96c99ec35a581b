"""The newest wins: which of the passages found say an older value of what a newer one says.

A small model that reads "I live in Paris." and "I live in Berlin now." together answers with
either, whatever their order and dates. So the choice is made before the reading: of passages that
say the same of the same, the newest is read, unless the question asks for what was before. Knows
no store and no model.
"""

from cmt_sdk.newest.pairs import CONTESTED, Pair, contested, of_the_same, oldest_first, settled, told_at
from cmt_sdk.newest.past import asks_for_before

__all__ = ["CONTESTED", "Pair", "asks_for_before", "contested", "of_the_same", "oldest_first", "settled", "told_at"]
