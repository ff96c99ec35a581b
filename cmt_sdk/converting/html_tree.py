"""A page as a tree of elements, and the small changes that other modules make to it.

Knows the kinds of elements that HTML has. Knows no style sheet and no Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

Element: TypeAlias = Any  # an HtmlElement of lxml, which has no types

DEEPEST = 150  # levels of elements: the converter to Markdown calls itself three times a level
PARSED_DEPTH = 2000  # levels from which on the parser drops text
BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "dialog",
        "dir",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hgroup",
        "hr",
        "legend",
        "li",
        "main",
        "menu",
        "nav",
        "ol",
        "p",
        "pre",
        "search",
        "section",
        "summary",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
UNWRAPPED = frozenset(["b", "big", "em", "font", "i", "small", "span", "strong", "u"])

_CONTROL = re.compile("[\0-\b\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*>")


class TooDeep(ValueError):
    """The elements of a page are nested too deep to be read."""


def parsed(html: str) -> Element | None:
    """The root element of a page; None for an empty one.

    Raises:
        TooDeep: Elements are nested more than DEEPEST levels.
    """
    from lxml.etree import ParserError
    from lxml.html import HTMLParser, document_fromstring

    parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        root = document_fromstring(_DECLARATION.sub("", html).encode(), parser=parser)
    except ParserError:  # nothing but comments and white space
        return None
    _flatten(root)
    for place in texts(root):
        place.write(_CONTROL.sub("", place.text.replace("\xad", "")))
    return root


def _flatten(root: Element) -> None:
    """Remove the wrappers of elements that are nested too deep, such as fonts never closed."""
    levels = _levels(root)
    if len(levels) > PARSED_DEPTH:
        raise TooDeep(f"its elements are nested more than {PARSED_DEPTH:,} deep")
    if len(levels) <= DEEPEST:
        return
    for level in reversed(levels[DEEPEST // 2 :]):
        for element in level:
            if element.tag in UNWRAPPED:
                unwrap(element)
    if len(_levels(root)) > DEEPEST:
        raise TooDeep(f"its elements are nested more than {DEEPEST} deep")


def _levels(root: Element) -> list[list[Element]]:
    """The elements of each level, from the root down."""
    levels = [[root]]
    while level := [child for element in levels[-1] for child in element]:
        levels.append(level)
    return levels


class Place(NamedTuple):
    """A text of the tree: before an element's first child, or after the element's end."""

    element: Element
    is_tail: bool

    @property
    def text(self) -> str:
        """The text at this place."""
        found = self.element.tail if self.is_tail else self.element.text
        return found or ""

    def write(self, text: str) -> None:
        """Put this text there."""
        if self.is_tail:
            self.element.tail = text
        else:
            self.element.text = text


def texts(root: Element) -> Iterator[Place]:
    """The places of all texts beneath an element, in the order of reading."""
    for event, element in steps(root):
        if event == "start" and element.text:
            yield Place(element, is_tail=False)
        elif event == "end" and element is not root and element.tail:
            yield Place(element, is_tail=True)


def steps(root: Element) -> Iterator[tuple[str, Element]]:
    """Every start and end of an element, in the order of reading."""
    from lxml.etree import iterwalk

    yield from iterwalk(root, events=("start", "end"))


def words(element: Element) -> str:
    """The text beneath an element with single spaces."""
    return " ".join("".join(element.itertext()).split())


def drop(element: Element) -> None:
    """Remove an element with all that is in it. Numbers on both sides stay apart."""
    if (parent := element.getparent()) is None:
        return
    tail = element.tail or ""
    previous = element.getprevious()
    before = (parent.text if previous is None else previous.tail) or ""
    if before[-1:].isdigit() and tail[:1].isdigit():
        element.tail = f" {tail}"
    element.drop_tree()


def replace(element: Element, text: str) -> None:
    """Put a text in the place of an element."""
    tail = element.tail
    element.clear()
    element.tag = "span"
    element.text = text
    element.tail = tail


def padded(element: Element) -> None:
    """Put spaces around an element, so that its words do not run into its neighbours."""
    element.tail = " " + (element.tail or "")
    _append(element.getparent(), element.getprevious(), " ")


def unwrap(element: Element) -> None:
    """Put the contents of an element in its place.

    lxml's own call counts all elements before it.
    """
    parent = element.getparent()
    last = element.getprevious()
    _append(parent, last, element.text)
    for inner in list(element):
        element.addprevious(inner)
        last = inner
    _append(parent, last, element.tail)
    element.tail = None
    parent.remove(element)


def _append(parent: Element, last: Element | None, text: str | None) -> None:
    """Add a text behind an element, or at the beginning of its parent."""
    if not text:
        return
    if last is None:
        parent.text = (parent.text or "") + text
    else:
        last.tail = (last.tail or "") + text


def kinds(element: Element) -> set[str]:
    """The words of an element's class attribute."""
    return set((element.get("class") or "").split())
