"""Plain text: typed paragraphs, lists and tables, and titles where there is evidence.

The rules of other formats use `body` for the text between their own marks. Knows no budget.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cmt_sdk.text.splitting.elements import Block, Heading, Kind, Rank
from cmt_sdk.text.splitting.markdown import KEPT_ITEM, read_markdown
from cmt_sdk.text.splitting.tables import table_at

HASHES = re.compile(r" {0,3}(#{1,6})[ \t]+\S")
UNDERLINE = re.compile(r"([^\w\s])\1*[ \t]*$")
UNDERLINES = "=-~*^_#+\"'`:."  # the marks that plain text uses below a title
FENCE = re.compile(r" {0,3}(?:`{3,}[^`]*|~{3,}.*)$")
BULLET = re.compile(
    r"([ \t]*)([-+•◦▪▸‣·–*]|\*{2,5}|\.{1,5}|\d{1,3}[.)]|[a-zA-Z]\)|\(\w{1,3}\)|#\."
    r"|\\item\b(?:\[[^\]]*\])?)"
    r"(?:[ \t]+|$)(?:\[.\][ \t]+)?"
)
MAX_TITLE_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text, without its end."""

    start: int
    end: int
    text: str

    @property
    def indent(self) -> int:
        """Columns before the first character; a tab goes to the next multiple of eight."""
        expanded = self.text.expandtabs()
        return len(expanded) - len(expanded.lstrip())

    @property
    def blank(self) -> bool:
        """True for a line of white space."""
        return not self.text.strip()


def lines_of(text: str, start: int = 0, end: int | None = None) -> list[Line]:
    """The lines of a range of a text."""
    stop = len(text) if end is None else end
    lines = []
    while start < stop:
        found = text.find("\n", start, stop)
        after = stop if found < 0 else found
        lines.append(Line(start, after, text[start:after].rstrip("\r")))
        start = after + 1
    return lines


def read_plain(text: str) -> Iterator[Heading | Block]:
    """Plain text: Markdown where its lines with hashes are headings, else underlined titles."""
    lines = lines_of(text)
    yield from read_markdown(text) if _has_hash_headings(lines) else underlined(text, lines)


def _has_hash_headings(lines: Sequence[Line]) -> bool:
    """True where lines with hashes stand as headings do.

    They are below blank lines, and no two of one level are in a row.
    """
    found = [n for n, line in enumerate(lines) if HASHES.match(line.text)]
    return bool(found) and all(_stands_as_heading(lines, n) for n in found)


def _stands_as_heading(lines: Sequence[Line], at: int) -> bool:
    if at == 0 or lines[at - 1].blank:
        return not lines[at].text.startswith("#!")
    above = HASHES.match(lines[at - 1].text)
    here = HASHES.match(lines[at].text)
    return bool(above and here and len(above[1]) < len(here[1]))


def underlined(text: str, lines: Sequence[Line]) -> Iterator[Heading | Block]:
    """Titles with a line of one mark below, about as long as they are.

    Levels follow the order in which marks appear.
    """
    marks: list[str] = []
    start = 0
    for n, line in enumerate(lines[1:], 1):
        title = lines[n - 1]
        mark = underline_of(line)
        if (
            not mark
            or mark not in UNDERLINES
            or title.blank
            or title.indent > 3
            or underline_of(title)
        ):
            continue
        width = width_of(title.text.strip())
        if (
            width > MAX_TITLE_CHARACTERS
            or abs(len(line.text.strip()) - width) > 2
            or (n > 1 and not lines[n - 2].blank)
        ):
            continue
        marks += [] if mark in marks else [mark]
        yield from body(text, start, title.start)
        yield Heading(title.start, line.end, marks.index(mark) + 1, title.text.strip())
        start = line.end
    yield from body(text, start, len(text))


def underline_of(line: Line) -> str:
    """The mark of a line that repeats one mark; empty for other lines."""
    found = UNDERLINE.match(line.text)
    return found[1] if found and len(line.text.strip()) > 1 else ""


def width_of(text: str) -> int:
    """Columns that a text takes in a fixed-width font."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def body(text: str, start: int, end: int) -> Iterator[Block]:
    """Paragraphs, items of lists and rows of tables in a range of a text that has no headings."""
    lines = lines_of(text, start, end)
    at = 0
    above = ""
    while at < len(lines):
        if lines[at].blank:
            at += 1
            continue
        table = table_at(lines, at)
        if table:
            blocks, at = table
            yield from blocks
            continue
        if BULLET.match(lines[at].text):
            stop = _end_of_list(lines, at)
            yield from _items(lines[at:stop], above)
        else:
            stop = next(
                (n for n in range(at + 1, len(lines)) if _ends_paragraph(lines, n)), len(lines)
            )
            yield Block(lines[at].start, lines[stop - 1].end)
            last = lines[stop - 1].text.strip()
            above = last.rstrip(":：") if last.endswith((":", "：")) and stop == at + 1 else ""
        at = stop


def _ends_paragraph(lines: Sequence[Line], at: int) -> bool:
    """True for a line that belongs to no paragraph above it."""
    return lines[at].blank or bool(BULLET.match(lines[at].text)) or table_at(lines, at) is not None


def _end_of_list(lines: Sequence[Line], at: int) -> int:
    """The line behind a list: the first below a blank line that is no item and not indented."""
    base = lines[at].indent
    for n in range(at + 1, len(lines)):
        line = lines[n]
        if (
            not line.blank
            and lines[n - 1].blank
            and not BULLET.match(line.text)
            and line.indent <= base
        ):
            return n
    return len(lines)


def _items(lines: Sequence[Line], above: str) -> Iterator[Block]:
    """Each item with its continuation lines; `above` is the line that announces the list."""
    open_items: list[tuple[int, str]] = []
    before = -1  # the depth of the item above
    starts = [n for n, line in enumerate(lines) if BULLET.match(line.text)]
    for start, stop in pairwise([*starts, len(lines)]):
        mark = BULLET.match(lines[start].text)
        if not mark:
            continue
        depth = lines[start].indent + (len(mark[2]) - 1 if set(mark[2]) in ({"*"}, {"."}) else 0)
        open_items = [(d, name) for d, name in open_items if d < depth]
        name = lines[start].text[mark.end() :].strip().rstrip(":：")
        parents = tuple(name for name in (above, *(name for _, name in open_items)) if name)
        is_first = bool(open_items) and open_items[-1][0] == before
        rank = Rank.CLAUSE if is_first else Rank.NESTED if open_items else Rank.ITEM
        before = depth
        yield Block(
            lines[start].start, lines[stop - 1].end, Kind.TEXT, rank, KEPT_ITEM, parents, label=name
        )
        open_items.append((depth, name))
