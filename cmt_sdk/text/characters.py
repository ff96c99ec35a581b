"""The characters that no text can hold here: NUL, which SQLite ends a text at, and lone surrogates,
which UTF-8 cannot encode. Imports nothing of this package.
"""

from __future__ import annotations

import re

NOT_TEXT = re.compile("[\0\ud800-\udfff]")
REMEDY = "decode it again, for example with errors='replace'"


def is_text(value: str) -> bool:
    """Return whether a string holds only characters that can be stored and searched."""
    return NOT_TEXT.search(value) is None


def clean_text(value: str, replacement: str = "\ufffd") -> str:
    """Return a string with each character that cannot be stored replaced."""
    return NOT_TEXT.sub(replacement, value)
