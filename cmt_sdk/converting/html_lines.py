"""The lines of a page as a reader sees them: texts between two borders of blocks.

Knows where a line ends and which elements stand in it. Changes nothing but white space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cmt_sdk.converting.html_tree import BLOCKS, Element, Place, steps

SPACES = re.compile(r"[ \t\n\r\f]+")
BOX = re.compile(r"\[[x ]\]$")
BREAKS = frozenset({"br", "hr"})


@dataclass(slots=True)
class Line:
    """One line: its text, where each place of the tree begins in it, and its marked elements."""

    text: str = ""
    places: list[tuple[Place, int, bool]] = field(default_factory=list)
    marks: list[tuple[Element, int, int]] = field(default_factory=list)


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
            if line.text:
                yield line
            line = Line()
        if event == "start":
            if is_marked(element):
                open_marks.append((element, len(line.text), line))
            _note(line, Place(element, is_tail=False), bool(open_marks))
            continue
        if open_marks and open_marks[-1][0] is element:
            _, begin, where = open_marks.pop()
            if where is line:
                line.marks.append((element, begin, len(line.text)))
        if element is not root:
            _note(line, Place(element, is_tail=True), bool(open_marks))
    if line.text:
        yield line


def _note(line: Line, place: Place, is_marked: bool) -> None:
    if text := place.text:
        line.places.append((place, len(line.text), is_marked))
        line.text += text


def collapse_spaces(root: Element) -> None:
    """Makes one space of white space within lines, and none of it at their beginnings."""
    for line in list(lines(root, lambda element: element.tag == "pre")):
        before = ""
        for place, _, is_pre in line.places:
            if is_pre:
                continue
            text = SPACES.sub(" ", place.text)
            if not before or before[-1] == " ":
                text = text.lstrip(" ")
            elif BOX.search(before) and text[:1].isalnum():
                text = f" {text}"
            place.write(text)
            before = text or before
