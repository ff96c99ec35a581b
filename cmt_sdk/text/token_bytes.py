"""The bytes that a token writes, from its name in the vocabulary. Knows no tokenizer.

Vocabularies name tokens in two ways: a character for each byte (GPT-2, Llama 3, Qwen), or as they
are written, with ▁ for a space and <0x0A> for a byte that is no character (Llama 2, Gemma).
"""

from __future__ import annotations

import re
from functools import cache

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "Ġ"  # a space, where each character stands for a byte


def token_bytes(name: str, *, by_bytes: bool) -> bytes:
    """The bytes of a token.

    Args:
        name: Its name.
        by_bytes: Whether each character of the name stands for a byte.
    """
    if by_bytes:
        return bytes(_bytes()[char] for char in name if char in _bytes())
    if byte := BYTE.fullmatch(name):
        return bytes([int(byte[1], 16)])
    return name.replace("▁", " ").encode()


@cache
def _bytes() -> dict[str, int]:
    """The byte that each character stands for: printable ones for themselves, the others moved up
    in their order (Radford et al. 2019, GPT-2).
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + number): byte for number, byte in enumerate(moved)
    }
