"""The elements of a page as the few that Markdown knows, with spaces where words would fuse.

Knows what begins a line of its own, by its tag or its style. Writes no Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cmt_sdk.converting.html_tree import BLOCKS, Element, padded, texts, words

Style = Mapping[str, str]

DIVISIONS = [
    "address",
    "aside",
    "article",
    "center",
    "details",
    "dialog",
    "fieldset",
    "figure",
    "footer",
    "form",
    "header",
    "hgroup",
    "main",
    "nav",
    "search",
    "section",
]
RENAMED = {
    **dict.fromkeys(DIVISIONS, "div"),
    **dict.fromkeys(("summary", "legend", "figcaption"), "p"),
    **dict.fromkeys(("dir", "menu"), "ul"),
}
# around the number that a list's item shows
LABEL_START = "\ue003"
LABEL_END = "\ue004"
LABEL = "data-label"
START = re.compile(r"\d{1,9}")
NOTE_IDS = ("footnote-", "endnote-")
BLOCK_DISPLAYS = frozenset(
    {"block", "flex", "grid", "list-item", "table", "table-row", "flow-root"}
)
BOX_DISPLAYS = frozenset(
    {"inline-block", "inline-flex", "inline-grid", "inline-table", "table-cell"}
)
ON_THE_LINE = frozenset({"sup", "sub", "rt", "rb", "wbr", "br", "s", "del", "strike", "ins"})


def shape_blocks(root: Element, styles: Mapping[Element, Style]) -> None:
    """Rename blocks to those of Markdown, and separate text that stands apart on the page."""
    for element in list(root.iter()):
        if element.getparent() is None or element.tag in ("body", "head"):
            continue
        style = styles.get(element, {})
        if style.get("white-space", "").startswith(("pre", "break")) and element.tag != "pre":
            _break_lines(element)
        display = style.get("display", "")
        if element.tag not in BLOCKS:
            if display in BLOCK_DISPLAYS and _holds_text(element):
                element.tag = "div"
            elif (
                display in BOX_DISPLAYS
                or "-" in str(element.tag)
                or _is_item(element, styles)
                or _would_fuse(element)
            ):
                padded(element)
        elif element.tag in RENAMED:
            element.tag = RENAMED[element.tag]


def _break_lines(element: Element) -> None:
    """Turn line ends into line breaks, where a style keeps them."""
    for place in list(texts(element)):
        first, *rest = place.text.strip("\n").split("\n")
        place.write(first)
        previous = None if not place.is_tail else place.element
        for line in rest:
            new = element.makeelement("br")
            new.tail = line
            if previous is None:
                place.element.insert(0, new)
            else:
                previous.addnext(new)
            previous = new


def place_labels(root: Element) -> None:
    """Give each item of a list the number that it shows, where its text begins with one."""
    for place in list(texts(root)):
        start = place.text.find(LABEL_START)
        end = place.text.find(LABEL_END)
        if not 0 <= start < end:
            continue
        label = place.text[start + 1 : end]
        item = next(
            (a for a in (place.element, *place.element.iterancestors()) if a.tag == "li"), None
        )
        is_first = item is not None and words(item).startswith(LABEL_START)
        if item is not None and is_first and item.getparent().tag == "ol":
            item.set(LABEL, label)
            label = ""
        place.write(place.text[:start] + label + " " * bool(label) + place.text[end + 1 :])
    numbers: dict[Element, int] = {}  # of the items of each list, so far
    for item in root.iter("li"):
        around = item.getparent()
        number = numbers[around] = numbers.get(around, 0) + 1
        if (item.get("id") or "").startswith(NOTE_IDS):
            item.set(LABEL, f"[{number}]")
        elif around is not None and around.tag == "ol" and not item.get(LABEL):
            first = around.get("start") or "1"
            item.set(LABEL, f"{(int(first) if START.fullmatch(first) else 1) + number - 1}.")


def _holds_text(element: Element) -> bool:
    return element.tag not in ("br", "input", "img") and bool(words(element))


def _is_item(element: Element, styles: Mapping[Element, Style]) -> bool:
    """True for a child of a flexible box or a grid, which is a box of its own."""
    if element.tag == "br":
        return False
    around = styles.get(element.getparent(), {}).get("display", "")
    return around.removeprefix("inline-") in ("flex", "grid")


def _would_fuse(element: Element) -> bool:
    """True for an element whose first word would run into the last word before it.

    These are two links, two numbers, a name and a number, and a number in small print.
    """
    previous = element.getprevious()
    if element.tag == "small" and words(element)[:1].isdigit():
        before = element.getparent().text if previous is None else previous.tail
        return (before or "")[-1:].isdigit()
    if previous is None or previous.tail or previous.tag in BLOCKS:
        return False
    if element.tag == "a" and previous.tag == "a":
        return True
    if element.tag in ON_THE_LINE or not words(element)[:1].isdigit():
        return False
    if any(ancestor.tag in ("pre", "code") for ancestor in element.iterancestors()):
        return False
    last = words(previous).rpartition(" ")[2]
    is_same = element.get("class") is not None and element.get("class") == previous.get("class")
    return (last[-1:].isdigit() and not is_same) or (len(last) > 1 and last.isalpha())
