"""Pages of a pdf file to one running text.

Lines that repeat at one place of several pages, and page numbers, leave the running text; a
sentence or a word that continues on the next page is joined; hyphens at line ends go where they
only divide a word. Pure: knows lines and their places, no PDFium.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TypeAlias

from cmt_sdk.converting.pdf_page import LINE_HYPHEN, Box, Line

Rows: TypeAlias = Sequence[Sequence[int]]

# numbers of places that no height reaches
HEADS = 10**9
FEET = 10**9 + 100
OUTERMOST = 2  # rows at each edge that have a place by their rank
EDGE_ROWS = 4  # rows at the head and at the foot of a page that are looked at for repetition
MANY_PAGES = 8  # from this number on, a repeated line must stand on three pages
NUMBER = re.compile(r"\d+")
ROMAN = re.compile(r"(?<![^\W_])[ivxlc]{1,7}(?![^\W_])", re.IGNORECASE)
COUNTED = re.compile(r"<r?-?\d+>")  # the placeholder of the page number in `_counting_keys`
ROMAN_DIGITS = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
MAX_FOOT_CHARACTERS = 300  # of a line that may hold a page number
MAX_NUMBERS = 6  # of one line that are tried as page numbers
SENTENCE_ENDS = frozenset(
    ".!?:;\u2026\u3002\uff01\uff1f\uff0e\uff61\u061f\u06d4\u0964\u0965\u1362\u203c\u2047\u2048\u2049\u104b\u17d4"
)
CLOSERS = frozenset(("Pe", "Pf", "Pi"))  # categories of closing brackets and quotation marks
TAIL = 200  # characters at the end of a line that are searched for a broken word
GAP = 3.0  # words that are this many heights apart stand apart
ALIKE = 0.15  # heights of lines that differ by less than this part are of one size
BROKEN_WORD = re.compile(rf"(\S*?[^\W_])[-\u2010\u00ad{LINE_HYPHEN}]+\Z")
WORD = re.compile(r"[^\W_]+(?:[-\u2010\u2011][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Placed:
    """A line without the places of its characters.

    `has_gap`: the line has a wide space, as in "Tarn      13".
    """

    text: str
    box: Box
    has_gap: bool = False

    @classmethod
    def of(cls, line: Line) -> Placed:
        """The same line, smaller."""
        steps = (after - before for before, after in pairwise(line.lefts))
        return cls(line.text, line.box, max(steps, default=0.0) > GAP * line.box.height)


@dataclass(slots=True)
class Words:
    """The undivided words of a document with their counts; a word with hyphens counts as one."""

    counts: Counter[str] = field(default_factory=Counter)

    def __contains__(self, word: str) -> bool:
        return self.counts[word.casefold()] > 0


@dataclass(frozen=True, slots=True)
class Flow:
    """The running text, and the repeated lines of the heads and feet of pages, each once."""

    text: str
    heads: Sequence[str]
    feet: Sequence[str]
    bare: frozenset[int]  # pages on which nothing but repeated lines and page numbers stands

    def __str__(self) -> str:
        parts = ("\n".join(self.heads), self.text, "\n".join(self.feet))
        return "\n\n".join(part for part in parts if part)


def flow(pages: Sequence[Sequence[Placed]]) -> Flow:
    """The text of all pages."""
    repeated = Repeated(pages)
    body: list[list[Placed]] = []
    for number, page in enumerate(pages):
        gone = repeated.on(number)
        body.append([line for index, line in enumerate(page) if index not in gone])
    bare = frozenset(n for n, page in enumerate(pages) if page and not body[n])
    words = _words(body)
    parts: list[str] = []
    size = 0.0
    for page in body:
        own = _page_text(page, words)
        if not own:
            continue
        if parts:
            is_alike = abs(page[0].box.height - size) < ALIKE * size
            parts[-1] = _before_page(parts[-1], own, words, is_alike=is_alike)
        parts.append(own)
        size = page[-1].box.height
    return Flow("".join(parts).rstrip(LINE_HYPHEN), list(repeated.heads), list(repeated.feet), bare)


class Repeated:
    """The lines that repeat at the heads and feet of pages.

    `heads` and `feet` are those that are kept, once each.
    """

    def __init__(self, pages: Sequence[Sequence[Placed]]) -> None:
        self._pages = pages
        self._needed = 2 if len(pages) < MANY_PAGES else 3
        self._size = median([x.box.height for page in pages for x in page] or [0.0])
        self._edges = [
            (_edge_rows(page, is_head=True), _edge_rows(page, is_head=False)) for page in pages
        ]
        self._places = [
            _places(page, *edges) for page, edges in zip(pages, self._edges, strict=True)
        ]
        self._same: dict[tuple[str, int], set[int]] = defaultdict(set)
        self._counting: dict[tuple[str, int], set[int]] = defaultdict(set)
        for number, places in enumerate(self._places):
            for index, own in places.items():
                text = pages[number][index].text
                for place in own:
                    self._same[text, place].add(number)
                    for key in _counting_keys(text, number):
                        self._counting[key, place].add(number)
        self.heads: dict[str, None] = {}
        self.feet: dict[str, None] = {}
        self._kept: set[str] = set()

    def on(self, number: int) -> set[int]:
        """The indexes of the lines of a page that are not of its running text.

        Call it in the order of the pages.
        """
        gone: set[int] = set()
        for rows, kept in zip(self._edges[number], (self.heads, self.feet), strict=True):
            for row in rows:
                if gone.issuperset(row):
                    continue
                kinds = [self._kind(number, index, is_head=kept is self.heads) for index in row]
                if "" in kinds:
                    break
                gone.update(row)
                for index, kind in zip(row, kinds, strict=True):
                    self._keep(self._pages[number][index].text, kind, kept)
        return gone

    def _kind(self, number: int, index: int, *, is_head: bool) -> str:
        """The kind of a line: "same" (repeated), "counting" (a page number), "" (of the text)."""
        line = self._pages[number][index]
        places = self._places[number][index]
        if any(len(self._same[line.text, place]) >= self._needed for place in places):
            return "same"
        for key in _counting_keys(line.text, number):
            counts = any(len(self._counting[key, place]) >= self._needed for place in places)
            if counts and self._is_page_number(COUNTED.sub("", key), line, is_head=is_head):
                return "counting"
        return ""

    def _is_page_number(self, rest: str, line: Placed, *, is_head: bool) -> bool:
        """False for "Exercise 1", "Exercise 2" at the heads of pages, which are headings.

        `rest` is the line without the number that counts.
        """
        has_words = any(letter.isalpha() for letter in rest)
        has_total = str(len(self._pages)) in NUMBER.findall(rest)
        is_small = line.box.height < 0.95 * self._size
        return not is_head or not has_words or has_total or line.has_gap or is_small

    def _keep(self, text: str, kind: str, kept: dict[str, None]) -> None:
        """Remember a repeated line; of page numbers only the first, and only one with words."""
        mark = text
        if kind == "counting":
            mark = NUMBER.sub("#", ROMAN.sub("#", text))
            if not any(letter.isalpha() for letter in mark):
                return
        if mark not in self._kept:
            self._kept.add(mark)
            kept[text] = None


def _edge_rows(page: Sequence[Placed], *, is_head: bool) -> list[list[int]]:
    """The indexes of the lines in the first or last rows of a page, from the edge inwards."""
    heights = [line.box.bottom for line in page] or [0.0]
    middle = (max(heights) + min(heights)) / 2
    half = [i for i, line in enumerate(page) if (line.box.bottom >= middle) is is_head]
    order = sorted(half, key=lambda i: page[i].box.bottom, reverse=is_head)
    rows: list[list[int]] = []
    for index in order:
        box = page[index].box
        if rows and abs(page[rows[-1][0]].box.bottom - box.bottom) < box.height / 2:
            rows[-1].append(index)
        elif len(rows) == EDGE_ROWS:
            break
        else:
            rows.append([index])
    return rows


def _places(page: Sequence[Placed], heads: Rows, feet: Rows) -> dict[int, tuple[int, ...]]:
    """The places of the lines at the edges of a page, as numbers shared with other pages.

    Two of them are overlapping steps of height: lines less than 3 points apart share one. The
    outermost rows are at one place whatever their height, as feet can follow directly on a text.
    """
    places: dict[int, tuple[int, ...]] = {}
    for edge, rows in ((HEADS, heads), (FEET, feet)):
        for rank, row in enumerate(rows):
            for index in row:
                bottom = page[index].box.bottom
                steps = 2 * int(bottom // 6), 2 * int((bottom + 3) // 6) + 1
                places[index] = (*steps, edge + rank) if rank < OUTERMOST else steps
    return places


def _counting_keys(text: str, page: int) -> Iterator[str]:
    """The line with one of its numbers written as its distance from the page's number."""
    if len(text) > MAX_FOOT_CHARACTERS:
        return
    for found in list(NUMBER.finditer(text))[:MAX_NUMBERS]:
        if len(found[0]) < 6:
            yield f"{text[: found.start()]}<{int(found[0]) - page}>{text[found.end() :]}"
    for found in list(ROMAN.finditer(text))[:MAX_NUMBERS]:
        yield f"{text[: found.start()]}<r{_roman(found[0]) - page}>{text[found.end() :]}"


def _roman(numeral: str) -> int:
    values = [ROMAN_DIGITS[letter] for letter in numeral.lower()]
    return sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))


def _words(pages: Sequence[Sequence[Placed]]) -> Words:
    """All words except those divided by a line end."""
    words = Words()
    for page in pages:
        for line in page:
            found = [m[0].casefold() for m in WORD.finditer(line.text)]
            if found and BROKEN_WORD.search(line.text[-TAIL:]):
                found.pop()
            words.counts.update(found)
    return words


def _page_text(page: Sequence[Placed], words: Words) -> str:
    """The lines of a page, one beneath the other, with divided words joined."""
    parts: list[str] = []
    for line in page:
        if parts:
            is_broken = line.text[0].isalnum() and BROKEN_WORD.search(parts[-1][-TAIL:])
            parts[-1] = _before_word(parts[-1], line.text, words) if is_broken else f"{parts[-1]}\n"
        parts.append(line.text)
    return "".join(parts)


def _before_page(text: str, following: str, words: Words, *, is_alike: bool) -> str:
    """The text of a page and what separates it from the next: one line end, two, or nothing.

    A sentence without an end goes on, unless the next page begins in letters of another size, as
    headings do.
    """
    if BROKEN_WORD.search(text[-TAIL:]) and following[0].isalnum():
        return _before_word(text, following, words)
    return f"{text}\n" if is_alike and not _has_end(text) else f"{text}\n\n"


def _has_end(text: str) -> bool:
    """True where the last sentence ends, before any brackets and quotation marks."""
    tail = text[-TAIL:].rstrip()
    while tail and tail[-1] not in SENTENCE_ENDS and unicodedata.category(tail[-1]) in CLOSERS:
        tail = tail[:-1]
    return not tail or tail[-1] in SENTENCE_ENDS


def _before_word(text: str, following: str, words: Words) -> str:
    """A text whose last word is divided, with the link to its other part."""
    broken = BROKEN_WORD.search(text[-TAIL:])
    if broken is None:
        return text.rstrip(LINE_HYPHEN)
    start = text[: len(text) - (len(broken[0]) - len(broken[1]))]
    found = WORD.match(following)
    return start + _link(broken[1], found[0] if found else "", following, words)


def _link(ending: str, beginning: str, following: str, words: Words) -> str:
    """The link between the two parts of a word: a hyphen, a hyphen and a space, or nothing.

    Where neither "user-friendly" nor "userfriendly" stands elsewhere in the document, the parts are
    joined: their spelling is unknown.
    """
    tail = re.split(r"[^\w\-\u2010\u2011]", ending)[-1]
    if not beginning:
        return "-"
    first = beginning[0]
    if f"{tail}-{beginning}" in words:
        return "-"
    if f"{tail}{beginning}" in words:
        return ""
    part = re.split(r"[-\u2010\u2011]", tail)[-1]
    if first.isdigit() or part[-1:].isdigit() or len(part) == 1 or len(beginning) == 1:
        return "-"
    if first.isupper():
        return "" if part.isupper() and len(part) > 1 and _is_capitals(following) else "-"
    if len(beginning) <= 4 and beginning in words and _is_listed(following, beginning):
        return "- "
    return "-" if "-" in beginning else ""


def _is_capitals(line: str) -> bool:
    """True for a line in capitals, as headings have them."""
    letters = [letter for letter in line.split("\n", 1)[0] if letter.isalpha()]
    return len(letters) > 6 and all(letter.isupper() for letter in letters)


def _is_listed(following: str, beginning: str) -> bool:
    """True where the hyphen stands for the end of a later word: "Vor-" and "und Nachteile"."""
    following = following[len(beginning) :].lstrip()
    return following[:1].isupper() or "-" in following.split(maxsplit=1)[0] if following else False
