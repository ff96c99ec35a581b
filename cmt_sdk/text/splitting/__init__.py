"""Texts to passages: split at headings, blocks, lines and sentences within a token budget.

The rules of a text's format find headings and blocks; each section's blocks are then joined to
passages. A passage crosses no heading, except that a short document is one passage. Pure: knows no
tokenizer.
"""

from cmt_sdk.text.splitting.binary import binary_parts
from cmt_sdk.text.splitting.formats import Rules, rules_for
from cmt_sdk.text.splitting.passages import split

__all__ = ["Rules", "binary_parts", "rules_for", "split"]
