"""Removes the hidden parts of a page: hidden elements, scripts, closed dialogues.

Knows which attributes and values of styles hide an element. Does not parse style sheets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cmt_sdk.converting.html_tree import Element, drop, padded, replace, words

UNSEEN = frozenset(
    [
        "applet",
        "audio",
        "canvas",
        "datalist",
        "embed",
        "frame",
        "frameset",
        "head",
        "iframe",
        "map",
        "noembed",
        "noframes",
        "noscript",
        "object",
        "param",
        "rp",
        "script",
        "style",
        "svg",
        "template",
        "title",
        "track",
        "video",
    ]
)
SMALLEST_FONT = 2.0  # CSS pixels
FAR = 900.0  # CSS pixels beyond the page's edge
TYPED = frozenset(
    [
        "color",
        "date",
        "datetime-local",
        "email",
        "month",
        "number",
        "range",
        "search",
        "tel",
        "text",
        "time",
        "url",
        "week",
    ]
)

_LENGTH = re.compile(r"(-?[\d.]+)\s*(px|pt|em|rem|%|vw|vh|)")
_EMPTY_CLIP = re.compile(
    r"rect\(\s*([01])(?:px)?[\s,]+([01])(?:px)?[\s,]+\1(?:px)?[\s,]+\2(?:px)?\s*\)"
    r"|rect\(\s*0(?:px)?[\s,]+0(?:px)?[\s,]+0(?:px)?[\s,]+0(?:px)?\s*\)"
    r"|inset\(\s*(?:50|100)%|circle\(\s*0"
)

Style = Mapping[str, str]


def drop_unseen(root: Element, styles: Mapping[Element, Style]) -> None:
    """Remove the parts that a reader does not see, and put the values of forms into the text."""
    _fields(root)
    whole = len(words(root)) or 1
    pending = [root]
    while pending:
        element = pending.pop()
        style = styles.get(element, {})
        if element.tag in ("html", "body"):
            pending += element
        elif element.tag in UNSEEN or _is_hidden(element) or _is_hidden_by(style):
            drop(element)
        elif _is_invisible(style):
            _drop_invisible(element, styles)
            pending += element
        elif not _is_passed_over(element, style) or len(words(element)) > whole / 2:
            pending += element
        else:
            drop(element)


def _fields(root: Element) -> None:
    for field in list(root.iter("input", "option", "textarea", "select", "button", "label")):
        kind = (field.get("type") or "text").lower()
        if field.tag == "option" and field.get("selected") is None:
            drop(field)
        elif field.tag != "input":
            padded(field)
        elif kind in TYPED and field.get("value") and field.get("hidden") is None:
            field.tag = "span"
            field.text = field.get("value")
            padded(field)
        elif kind not in ("checkbox", "radio"):
            replace(field, " ")


def _is_hidden(element: Element) -> bool:
    """True for an element that its own attributes hide."""
    if element.get("hidden") is not None and element.get("hidden") != "until-found":
        return True
    if element.get("popover") is not None:
        return True
    return element.tag == "dialog" and element.get("open") is None


def _is_hidden_by(style: Style) -> bool:
    """True for an element that its style hides with all that is in it."""
    if style.get("display") == "none" or _is_out_of_sight(style):
        return True
    if "clip" in style or "clip-path" in style:
        clips = style.get("clip", "") + " " + style.get("clip-path", "")
        if _EMPTY_CLIP.search(clips):
            return True
    cut_off = style.get("overflow", "") in ("hidden", "clip")
    flat = any(_pixels(style.get(name)) == 0 for name in ("height", "max-height", "width"))
    return (cut_off and flat) or style.get("transform", "").startswith("scale(0)")


def _is_out_of_sight(style: Style) -> bool:
    indent = _pixels(style.get("text-indent"))
    if indent is not None and indent < -FAR:
        return True
    if style.get("position") not in ("absolute", "fixed"):
        return False
    places = [_pixels(style.get(side)) for side in ("left", "top")]
    return any(place is not None and place < -FAR for place in places)


def _is_passed_over(element: Element, style: Style) -> bool:
    """True for faded-out elements and those hidden from screen readers.

    While a dialogue is open, this may be a full page.
    """
    if element.get("aria-hidden") == "true":
        return True
    return (opacity := style.get("opacity")) is not None and _pixels(opacity) == 0


def _is_invisible(style: Style) -> bool:
    """True for an element whose own text has no visible colour or size."""
    if style.get("visibility") in ("hidden", "collapse"):
        return True
    size = style.get("font-size", "")
    pixels = _pixels(size)
    if pixels == 0 or (pixels is not None and size.endswith("px") and pixels < SMALLEST_FONT):
        return True
    color = style.get("color")
    return color is not None and color in ("transparent", style.get("background-color"))


def _drop_invisible(element: Element, styles: Mapping[Element, Style]) -> None:
    """Remove an element, or its own text alone where a descendant is visible again."""
    style = styles.get(element, {})
    shown = [e for e in element.iterdescendants() if _is_shown_again(styles.get(e, {}), style)]
    if not shown:
        drop(element)
        return
    kept = {a for e in shown for a in (e, *e.iterancestors())}
    pending = [element]
    while pending:
        inner = pending.pop()
        inner.text = None
        for child in list(inner):
            if child not in kept:
                drop(child)
                continue
            child.tail = " "
            if child not in shown:
                pending.append(child)


def _is_shown_again(style: Style, around: Style) -> bool:
    if around.get("visibility") in ("hidden", "collapse"):
        return style.get("visibility") == "visible"
    size = _pixels(style.get("font-size"))
    return "font-size" in around and size is not None and size >= SMALLEST_FONT


def _pixels(length: str | None) -> float | None:
    """A length in CSS pixels; None for any other value."""
    if not length or (match := _LENGTH.match(length)) is None:
        return None
    try:
        number = float(match.group(1))
    except ValueError:
        return None
    return number * 16 if match.group(2) in ("em", "rem") else number
