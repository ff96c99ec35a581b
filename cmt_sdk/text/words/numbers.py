"""Numbers in a text, whatever their notation.

Knows separators and the names of powers of ten, no index and no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from cmt_sdk.text.words.names import SCALES

NUMBER = re.compile(
    r"(?<![\w.,'/:-])(?P<number>"
    r"\d{1,3}(?P<group>[ .,'])\d{3}(?:(?P=group)\d{3})*(?:[.,]\d{1,2})?"
    r"|\d{1,2}(?:,\d{2})+,\d{3}"  # of India
    r"|\d+[.,]\d+|\d+)"
    r"(?!\d|[.,'/:-]\d)(?P<tail>(?P<gap>[\s-]?)(?P<word>[^\W\d_]+\.?))?"
)
# Only with no space before them; m only next to a currency.
ATTACHED = {"k": 3, "K": 3, "M": 6, "B": 9, "bn": 9, "mn": 6, "m": 6}
CURRENCY = "€$£¥₹"
MAX_DIGITS = 15  # a longer run is an identifier


@dataclass(frozen=True, slots=True)
class Number:
    """A number and its place in the text.

    A number that can be read in two ways has its other value in a second Number.
    """

    start: int
    end: int
    value: Decimal

    @property
    def token(self) -> str:
        """Its index word: the digits of an integer; a point as the letter p."""
        return f"{self.value.normalize():f}".replace(".", "p")


@cache
def _scales() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for powers, names in SCALES.items():
        found |= dict.fromkeys(names.split(), powers)
    return found


def numbers(text: str) -> list[Number]:
    """The numbers in a text, in order, each with every value that it can be read as."""
    return [n for m in NUMBER.finditer(text) for n in _of(m, text)]


def _of(m: re.Match[str], text: str) -> Iterator[Number]:
    powers = _powers(m, text)
    end = m.end("number")
    if powers:
        end = m.start() + len(m[0].rstrip("."))
    for value in _values(m["number"]):
        for power in powers or (0,):
            scaled = value.scaleb(power)
            if len(scaled.as_tuple().digits) + max(power, 0) <= 2 * MAX_DIGITS:
                yield Number(m.start(), end, scaled)


def _powers(m: re.Match[str], text: str) -> tuple[int, ...]:
    word = (m["word"] or "").rstrip(".")
    if not word:
        return ()
    if not m["gap"] and word in ATTACHED:
        around = text[: m.start()].rstrip()[-1:] + text[m.end() :].lstrip()[:1]
        is_sure = word != "m" or any(c in CURRENCY for c in around)
        return (ATTACHED[word],) if is_sure else ()
    scales = _scales()
    first = "" if word[0].isascii() else word[0]  # 125万円
    return scales.get(word.casefold()) or scales.get(first, ())


def _values(number: str) -> list[Decimal]:
    """The possible values of digits with separators.

    One separator before three digits separates thousands or decimals.
    """
    separators = [c for c in number if not c.isdigit()]
    if not separators:
        is_value = len(number) <= MAX_DIGITS and not (number.startswith("0") and len(number) > 1)
        return [Decimal(number)] if is_value else []
    last = separators[-1]
    whole, _, rest = number.rpartition(last)
    plain = re.sub(r"\D", "", number)
    decimal = Decimal(f"{re.sub(r'[^0-9]', '', whole)}.{rest}")
    if len(set(separators)) > 1:
        return [decimal] if last in ".," else []
    if len(separators) > 1 or last in " '":
        return [Decimal(plain)]
    return [Decimal(plain), decimal] if len(rest) == 3 and not whole.startswith("0") else [decimal]
