"""One page of a pdf file as lines with their places, by PDFium. Knows no other page.

PDFium ends a line where the baseline changes, at a raised "5" too, and sets that "5" directly
behind the number before it. The places of the characters show what is raised: it becomes "10^5",
and the line goes on.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SMALLER = 0.85  # a raised character is at most this high, measured against the one before it
RAISED = 0.15  # and its foot stands at least this far above, measured in heights of that one
LINE_HYPHEN = "\x02"  # PDFium's sign for a hyphen at a line end, where it joins two lines
SPACES = frozenset(" \t\u00a0")
LINE_ENDS = frozenset("\r\n")
ENDS_AND_SPACES = SPACES | LINE_ENDS


class Box(NamedTuple):
    """A rectangle on the page as a reader holds it; y grows upwards."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def height(self) -> float:
        """From foot to head."""
        return self.top - self.bottom

    @property
    def middle(self) -> float:
        """The x of the middle."""
        return (self.left + self.right) / 2

    @property
    def middle_height(self) -> float:
        """The y of the middle."""
        return (self.bottom + self.top) / 2

    def shares_row(self, other: Box) -> bool:
        """True where half of the lower one stands at the height of the other."""
        shared = min(self.top, other.top) - max(self.bottom, other.bottom)
        return shared >= 0.5 * min(self.height, other.height) > 0

    def meets(self, other: Box) -> bool:
        """True where some of one lies on the other."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


NOWHERE = Box(0, 0, 0, 0)  # for marks that a file puts at infinity


@dataclass(slots=True, eq=False)
class Line:
    """A line of text. `lefts[i]` is the x at which `text[i]` begins."""

    text: str
    box: Box
    lefts: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Turn:
    """The map from the file's coordinates to those of the page as it is shown."""

    quarters: int
    seen: Box

    def box(self, left: float, bottom: float, right: float, top: float) -> Box:
        """This rectangle, turned."""
        if not math.isfinite(left + bottom + right + top):
            return NOWHERE
        if self.quarters == 1:
            return Box(bottom, -right, top, -left)
        if self.quarters == 2:
            return Box(-right, -top, -left, -bottom)
        if self.quarters == 3:
            return Box(-top, left, -bottom, right)
        return Box(left, bottom, right, top)

    @property
    def page(self) -> Box:
        """The visible part of the page, turned."""
        return self.box(self.seen.left, self.seen.bottom, self.seen.right, self.seen.top)


class Letter(NamedTuple):
    """One character; `box` is None for spaces and for what PDFium adds itself."""

    text: str
    box: Box | None


def turn_of(page: Any) -> Turn:
    """The rotation of a PdfPage."""
    left, bottom, right, top = page.get_cropbox()
    return Turn(page.get_rotation() // 90 % 4, Box(left, bottom, right, top))


def read_lines(text: Any, turn: Turn) -> list[Line]:
    """The lines of a page in the order of PDFium. `text` is a PdfTextPage."""
    lines: list[Line] = []
    letters: list[Letter] = []
    for letter in _joined(list(_letters(text, turn))):
        if letter.text == "\n":
            lines.append(_line(letters))
            letters = []
        elif letter.text != "\r":
            letters.append(letter)
            if letter.text == LINE_HYPHEN:
                lines.append(_line(letters))
                letters = []
    lines.append(_line(letters))
    return [line for line in lines if line.text]


def _letters(text: Any, turn: Turn) -> Iterator[Letter]:
    import ctypes

    from pypdfium2 import raw

    box = raw.FS_RECTF()
    place = ctypes.byref(box)
    high = ""
    for index in range(raw.FPDFText_CountChars(text.raw)):
        code = raw.FPDFText_GetUnicode(text.raw, index)
        letter = chr(code) if 0 < code <= 0x10FFFF else ""
        if "\ud800" <= letter <= "\udbff":  # the first half of a pair
            high = letter
            continue
        if "\udc00" <= letter <= "\udfff":
            pair = (high + letter).encode("utf-16", "surrogatepass")
            letter = pair.decode("utf-16", "replace")
        high = ""
        if letter == "\ufffe":
            letter = LINE_HYPHEN
        if (
            not letter
            or letter.isspace()
            or not raw.FPDFText_GetLooseCharBox(text.raw, index, place)
        ):
            yield Letter(letter, None)
            continue
        yield Letter(letter, turn.box(box.left, box.bottom, box.right, box.top))


def _joined(letters: list[Letter]) -> list[Letter]:
    """The letters with "^" before raised digits; raised and lowered letters end no line."""
    out: list[Letter] = []
    base: Box | None = None  # of the last letter that is neither raised nor lowered
    last: Box | None = None  # of the last letter
    for letter in letters:
        box = letter.box
        if box is None:
            out.append(letter)
            continue
        if base is not None and last is not None:
            shift = _shift(base, box)
            if shift and box.left - last.right < base.height and box.left > base.left:
                _rejoin(out)
                if shift > 0 and last is base and _is_number_mark(letter.text):
                    _raise(out)
                out.append(letter)
                last = box
                continue
            if (
                last is not base
                and _same_line(base, box)
                and -1 < box.left - last.right < base.height
            ):
                _rejoin(out)
        out.append(letter)
        base = box
        last = box
    return out


def _shift(base: Box, box: Box) -> int:
    """1 for a raised box, -1 for a lowered one, 0 for one on the line or of another line."""
    if box.height > SMALLER * base.height or box.top < base.bottom or box.bottom > base.top:
        return 0
    if box.bottom > base.bottom + RAISED * base.height:
        return 1
    return -1 if box.top < base.top - 2 * RAISED * base.height and box.bottom < base.bottom else 0


def _same_line(base: Box, box: Box) -> bool:
    return (
        abs(base.bottom - box.bottom) < 0.1 * base.height
        and abs(base.height - box.height) < 0.1 * base.height
    )


def _is_number_mark(letter: str) -> bool:
    return letter.isnumeric() or unicodedata.category(letter) in ("Pd", "Sm")


def _rejoin(out: list[Letter]) -> None:
    """Remove the line end that PDFium put before a change of the baseline; spaces stay."""
    behind = len(out)
    while behind and out[behind - 1].box is None and out[behind - 1].text in ENDS_AND_SPACES:
        behind -= 1
    out[behind:] = [letter for letter in out[behind:] if letter.text not in LINE_ENDS]


def _raise(out: list[Letter]) -> None:
    """Insert "^" directly behind the letter that carries a raised number."""
    while out and out[-1].box is None and out[-1].text in SPACES:
        out.pop()
    if out:
        out.append(Letter("^", None))


def _line(letters: list[Letter]) -> Line:
    """These letters as a line, without the white space around it."""
    text = "".join(letter.text for letter in letters)
    lefts: list[float] = []
    right = 0.0
    for letter in letters:
        left = right if letter.box is None else letter.box.left
        right = right if letter.box is None else max(right, letter.box.right)
        lefts += [left] * len(letter.text)
    start = len(text) - len(text.lstrip())
    bare = text.strip()
    boxes = [letter.box for letter in letters if letter.box is not None]
    return Line(bare, _around(boxes), lefts[start : start + len(bare)])


def _around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all."""
    if not boxes:
        return NOWHERE
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return Box(min(lefts), min(bottoms), max(rights), max(tops))
