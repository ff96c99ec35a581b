"""The lines of a page as a reader sees them: texts between two borders of blocks.

Knows where a line ends and which elements stand in it. Changes nothing but white space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cmt_sdk.converting.html_tree import BLOCKS, Element, Place, steps

SPACES = re.compile(r"[ \t\n\r\f]+")
BOX = re.compile(r"\[[x ]\]$")
BREAKS = frozenset({"br", "hr"})


@dataclass(slots=True)
class Line:
    """One line: its texts, where each place of the tree begins in it, and its marked elements."""

    parts: list[str] = field(default_factory=list)
    size: int = 0
    places: list[tuple[Place, int, bool]] = field(default_factory=list)
    marks: list[tuple[Element, int, int]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text of the line."""
        return "".join(self.parts)


def lines(root: Element, is_marked: Callable[[Element], bool]) -> Iterator[Line]:
    """The lines beneath an element.

    Args:
        root: where to look.
        is_marked: chooses the elements whose extent is wanted. A place's third part is True for
            a text within one of them.

    Returns:
        Each line that has text. An element over several lines is marked in none of them.
    """
    line = Line()
    open_marks: list[tuple[Element, int, Line]] = []
    for event, element in steps(root):
        is_border = element.tag in BLOCKS or element.tag in BREAKS
        if is_border:
            if line.size:
                yield line
            line = Line()
        if event == "start":
            if is_marked(element):
                open_marks.append((element, line.size, line))
            _note(line, Place(element, is_tail=False), bool(open_marks))
            continue
        if open_marks and open_marks[-1][0] is element:
            _, begin, where = open_marks.pop()
            if where is line:
                line.marks.append((element, begin, line.size))
        if element is not root:
            _note(line, Place(element, is_tail=True), bool(open_marks))
    if line.size:
        yield line


def _note(line: Line, place: Place, is_marked: bool) -> None:
    if text := place.text:
        line.places.append((place, line.size, is_marked))
        line.parts.append(text)
        line.size += len(text)


def collapse_spaces(root: Element) -> None:
    """Reduce white space within lines to one space, and remove it at their beginnings."""
    for line in list(lines(root, lambda element: element.tag == "pre")):
        before = ""
        for place, _, is_pre in line.places:
            if is_pre:
                continue
            text = SPACES.sub(" ", place.text)
            if not before or before[-1] == " ":
                text = text.lstrip(" ")
            elif _would_fuse(before, text):
                text = f" {text}"
            place.write(text)
            before = text or before


def _would_fuse(before: str, text: str) -> bool:
    """True for a box or a number before a text or a fraction that stands apart on the page."""
    if before[-1].isdigit():
        return unicodedata.category(text[:1] or " ") == "No" and text[0] not in "⁰¹²³⁴⁵⁶⁷⁸⁹"
    return text[:1].isalnum() and BOX.search(before) is not None
