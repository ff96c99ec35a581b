"""The elements that a format's rules find in a text. Knows no format and no budget.

These are headings, blocks, and ranges to leave out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeAlias


class Rank(IntEnum):
    """How well a place suits a split: the lower, the better."""

    PARAGRAPH = 0
    ITEM = 1  # before a line, a record, a table row, an item of a list
    NESTED = 2  # before an item within an item
    SENTENCE = 3
    CLAUSE = 4  # behind a comma, a semicolon, a closing bracket; between two fields
    SPACE = 5
    NUMBER = 6  # white space with a digit on one side: "5 km", "4 March"
    DIGITS = 7  # white space with a digit on both sides: "020 7946"
    JOINT = 8  # within a word, behind a mark such as "/" or "-"
    GRAPHEME = 9
    LETTER = 10


class Kind(IntEnum):
    """The content of a block, which decides where a long one is split."""

    TEXT = 0  # a paragraph: sentences, or lines where its lines are no wrapped prose
    LINES = 1  # lines that each stand for themselves
    CODE = 2  # not split where it fits; else at blank lines, then at lines
    RECORD = 3  # not split where it fits; else between its fields


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading in `text[start:end]`; a lower level stands above a higher one."""

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text that stays together where it can.

    `rank` is that of the place before it. A passage that begins with this block has `parents` (the
    items above the block) and `header` (the header row of its table) in its heading; one that
    begins within it also `label`. A block of at most `keep` of the room in a passage is not split.
    """

    start: int
    end: int
    kind: Kind = Kind.TEXT
    rank: Rank = Rank.PARAGRAPH
    keep: float = 0.2
    parents: tuple[str, ...] = ()
    header: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of a text that belongs to no passage."""

    start: int
    end: int


Element: TypeAlias = Heading | Block | LeftOut


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without the white space at its ends."""
    body = text[start:end]
    return start + len(body) - len(body.lstrip()), end - len(body) + len(body.rstrip())


def covering(
    text: str, found: Iterable[Heading | Block], gaps: Sequence[tuple[int, int]]
) -> Iterator[Element]:
    """The elements of a text in order, so that they cover every character except white space.

    Args:
        text: The text.
        found: The elements found by the rules of its format, in order; text between them counts as
            paragraphs.
        gaps: The ranges to leave out, in order.
    """
    remaining = list(reversed(gaps))
    for element in _without_holes(text, found):
        while remaining and remaining[-1][1] <= element.start:
            yield LeftOut(*remaining.pop())
        if not remaining or remaining[-1][0] >= element.end:
            yield element
            continue
        block = element if isinstance(element, Block) else Block(element.start, element.end)
        start = block.start
        while remaining and remaining[-1][0] < block.end:
            first, last = remaining[-1]
            yield from _piece(text, block, start, first)
            yield LeftOut(first, last)
            start = last
            if last > block.end:
                break
            remaining.pop()
        yield from _piece(text, block, start, block.end)


def _without_holes(text: str, found: Iterable[Heading | Block]) -> Iterator[Heading | Block]:
    end = 0
    for element in found:
        if element.end <= end:
            continue
        start = max(end, element.start)
        if isinstance(element, Block) and not any(letter.isalnum() for letter in text[end:start]):
            start = end  # a mark alone, such as ">", belongs to the text after it
        if start > end:
            yield from _piece(text, Block(end, start), end, start)
        if isinstance(element, Heading):
            yield element
        else:
            yield from _piece(text, element, start, element.end)
        end = element.end
    yield from _piece(text, Block(end, len(text)), end, len(text))


def _piece(text: str, block: Block, start: int, end: int) -> Iterator[Block]:
    start, end = trimmed(text, start, end)
    if end > start:
        yield replace(block, start=start, end=end)
