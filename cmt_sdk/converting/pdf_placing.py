"""Puts form fields and typed notes into the lines of their page. Pure: knows no PDFium.

A field belongs to the words to its left, else to those to its right (a box that is ticked), else to
those above it; where there are none, its own name stands before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cmt_sdk.converting.pdf_marks import Mark
from cmt_sdk.converting.pdf_page import Box, Line

FILLERS = frozenset("_.\u2026 \u00a0")  # signs printed where a reader should write
ABOVE = 2.5  # a label stands at most this many heights of its own line above its field
APART = 8.0  # and a line that is this many heights away may be of another column
TIGHT = 2.0  # a box that is this near to the words on its right belongs to them
MAX_COMPARED = 1_000_000  # marks times lines of one page
QUESTIONS = (":", "?", "\uff1a", "\uff1f")  # ends of a label that needs no colon


def place(lines: list[Line], marks: Iterable[Mark]) -> None:
    """Put each mark into the line at its place, or into a new line.

    A page with very many marks gets them at its end: each mark is compared with each line.
    """
    printed = list(lines)
    ordered = sorted(marks, key=lambda m: (-m.box.top, m.box.left))
    if len(ordered) * (len(ordered) + len(lines)) > MAX_COMPARED:
        lines += [_line(mark, mark.name) for mark in ordered]
        return
    for mark in ordered:
        row = [line for line in printed if line.box.shares_row(mark.box)]
        line = _in_row(row, mark, APART)
        above = None if line else _above(printed, mark.box)
        if line is None and above is None:
            line = _in_row(row, mark, math.inf)
        if line is not None:
            _insert(line, mark)
        else:
            _add_line(lines, printed, above, mark)


def _in_row(row: Sequence[Line], mark: Mark, apart: float) -> Line | None:
    """The line of this row that the mark belongs to: the nearest to its left, else to its right."""
    reach = apart * max((line.box.height for line in row), default=1.0)
    left = [x for x in row if x.box.left <= mark.box.middle and mark.box.left - x.box.right < reach]
    right = [x for x in row if x.box.left > mark.box.middle and x.box.left - mark.box.right < reach]
    if mark.is_box and right:
        nearest = min(right, key=lambda x: x.box.left)
        if not left or nearest.box.left - mark.box.right < TIGHT * nearest.box.height:
            return nearest
    return max(left, key=lambda x: x.box.right) if left else None


def _above(printed: Sequence[Line], box: Box) -> Line | None:
    """The line that stands closely over a box."""
    over = [x for x in printed if x.box.left < box.right and x.box.right > box.left]
    near = [x for x in over if -0.5 < (x.box.bottom - box.top) / max(x.box.height, 1.0) < ABOVE]
    return min(near, key=lambda x: x.box.bottom) if near else None


def _insert(line: Line, mark: Mark) -> None:
    """Write the mark's text between the characters at its place, instead of printed rules there."""
    lefts = line.lefts
    start = sum(left < mark.box.middle for left in lefts)
    end = start
    while start > 0 and line.text[start - 1] in FILLERS:
        start -= 1
    while end < len(line.text) and line.text[end] in FILLERS:
        end += 1
    before = line.text[:start]
    after = line.text[end:]
    text = " ".join(part for part in (before, mark.text, after) if part)
    places = [mark.box.left] * (len(text) - len(before) - len(after))
    line.lefts = [*lefts[:start], *places, *lefts[end:]]
    line.text = text


def _add_line(lines: list[Line], printed: Sequence[Line], above: Line | None, mark: Mark) -> None:
    """Add a line for a mark, below its label or at its height, with the label or its name."""
    label = _words_above(above, mark.box) if above else ""
    label = label or mark.name
    if above:
        at = lines.index(above) + 1
    else:
        lower = (i for i, line in enumerate(lines) if line.box.top < mark.box.middle_height)
        at = next(lower, len(lines))
    while at < len(lines) and lines[at] not in printed and lines[at].box.top >= mark.box.top:
        at += 1
    lines.insert(at, _line(mark, label))


def _line(mark: Mark, label: str) -> Line:
    """A line of a mark alone, with its label."""
    colon = "" if not label or label.endswith(QUESTIONS) else ":"
    text = f"{mark.text} {label}" if mark.is_box else f"{label}{colon} {mark.text}"
    bare = text.strip()
    return Line(bare, mark.box, [mark.box.left] * len(bare))


def _words_above(line: Line, box: Box) -> str:
    """The words of a line that stand over a box."""
    over = [i for i, left in enumerate(line.lefts) if box.left - 3 <= left <= box.right]
    if not over:
        return ""
    start = over[0]
    while start > 0 and not line.text[start - 1].isspace() and not line.text[start].isspace():
        start -= 1
    return line.text[start : over[-1] + 1].strip().strip("_").strip()
