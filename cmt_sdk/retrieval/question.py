"""What a question may be. Pure strings: knows no store and no model."""

from __future__ import annotations

from cmt_sdk.errors import InvalidInput
from cmt_sdk.text.characters import REMEDY, is_text

LONGEST_QUESTION = 20_000  # characters


def check_question(text: str) -> None:
    """Raise InvalidInput for an empty or too long question, or one with NUL or a surrogate."""
    if not text.strip():
        raise InvalidInput("the question is empty")
    if len(text) > LONGEST_QUESTION:
        raise InvalidInput(
            f"the question has {len(text):,} characters, the limit is {LONGEST_QUESTION:,}: add"
            " what it quotes, then ask"
        )
    if not is_text(text):
        raise InvalidInput(f"the question holds NUL or a lone surrogate: {REMEDY}")
