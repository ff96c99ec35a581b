"""The style sheets of a page, as far as they change the text that a reader sees.

Knows the cascade of CSS for a wide screen. Does not know which values hide or strike a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cmt_sdk.converting.html_tree import Element

PROPERTIES = frozenset(
    [
        "background-color",
        "clip",
        "clip-path",
        "color",
        "display",
        "font-size",
        "height",
        "left",
        "max-height",
        "opacity",
        "overflow",
        "position",
        "text-decoration",
        "text-decoration-line",
        "text-indent",
        "top",
        "transform",
        "vertical-align",
        "visibility",
        "white-space",
        "width",
    ]
)
SCREEN_WIDTH = 1280.0  # CSS pixels
MAX_MATCHES = 10_000_000  # selectors times elements that are compared: some seconds
GROUPS = frozenset({"media", "supports", "layer", "container"})

_NAMES = re.compile(r"([.#])(-?[A-Za-z_][\w-]*)")
_WIDTH = re.compile(r"\(\s*(min|max)-width\s*:\s*([\d.]+)(px|r?em)\s*\)")
_NEGATED = re.compile(r":(?:not|is|where|has)\(")


class _Rule(NamedTuple):
    important: bool
    specificity: tuple[int, int, int, int]
    elements: list[Element]
    name: str
    value: str


def styles(root: Element) -> Mapping[Element, Mapping[str, str]]:
    """The declared values of the properties above, for each element that has any."""
    rules = list(_inline(root))
    sheets = [e.text or "" for e in root.iter("style") if _fits(e.get("media") or "")]
    left = MAX_MATCHES
    names = _names(root)
    size = sum(1 for _ in root.iter())
    for sheet in sheets:
        for selector, declared in _selectors(sheet):
            if not _may_match(selector, names):
                continue
            left -= size
            if left < 0:
                break
            rules += _matched(root, selector, declared)
    found: dict[Element, dict[str, str]] = {}
    for rule in sorted(rules, key=lambda r: (r.important, r.specificity)):
        for element in rule.elements:
            found.setdefault(element, {})[rule.name] = rule.value
    return found


def _inline(root: Element) -> Iterator[_Rule]:
    from tinycss2 import parse_blocks_contents

    for element in root.iter():
        if style := element.get("style"):
            for name, value, important in _declarations(parse_blocks_contents(style)):
                yield _Rule(important, (1, 0, 0, 0), [element], name, value)


def _declarations(parsed: Iterable[Any]) -> Iterator[tuple[str, str, bool]]:
    from tinycss2 import serialize

    for node in parsed:
        if node.type == "declaration" and node.lower_name in PROPERTIES:
            value = serialize(node.value).strip().lower()
            yield node.lower_name, value, node.important


def _selectors(sheet: str) -> Iterator[tuple[str, list[tuple[str, str, bool]]]]:
    """Each selector of a sheet with its declarations, those in fitting media among them."""
    from tinycss2 import parse_blocks_contents, parse_rule_list, parse_stylesheet, serialize

    pending = [parse_stylesheet(sheet, skip_comments=True, skip_whitespace=True)]
    while pending:
        for rule in pending.pop():
            if rule.type == "at-rule" and rule.lower_at_keyword in GROUPS and rule.content:
                if rule.lower_at_keyword != "media" or _fits(serialize(rule.prelude)):
                    pending.append(parse_rule_list(rule.content))
            elif rule.type == "qualified-rule":
                contents = parse_blocks_contents(rule.content)
                if declared := list(_declarations(contents)):
                    yield serialize(rule.prelude), declared


def _fits(media: str) -> bool:
    """True for a media query that a wide screen fulfils."""
    return any(_query_fits(query) for query in media.lower().split(",")) or not media.strip()


def _query_fits(query: str) -> bool:
    if "print" in query or "speech" in query or "prefers-" in query or "not " in query:
        return False
    for bound, number, unit in _WIDTH.findall(query):
        width = float(number) * (1 if unit == "px" else 16)
        if width > SCREEN_WIDTH if bound == "min" else width < SCREEN_WIDTH:
            return False
    return True


def _names(root: Element) -> set[str]:
    names: set[str] = set()
    for element in root.iter():
        names.update("." + name for name in (element.get("class") or "").split())
        if identifier := element.get("id"):
            names.add("#" + identifier)
    return names


def _may_match(selector: str, names: set[str]) -> bool:
    """False for a selector whose alternatives all name classes that the page does not have."""
    if _NEGATED.search(selector):
        return True
    return any(
        all(mark + name in names for mark, name in _NAMES.findall(part))
        for part in selector.split(",")
    )


def _matched(
    root: Element, selector: str, declared: list[tuple[str, str, bool]]
) -> Iterator[_Rule]:
    from cssselect import ExpressionError, HTMLTranslator, SelectorError, parse

    try:
        alternatives = parse(selector)
    except SelectorError:
        return
    for alternative in alternatives:
        if alternative.pseudo_element:
            continue
        try:
            path = HTMLTranslator().selector_to_xpath(alternative, translate_pseudo_elements=False)
        except (ExpressionError, SelectorError):
            continue
        elements = root.xpath(path)
        if elements:
            for name, value, important in declared:
                yield _Rule(important, (0, *alternative.specificity()), elements, name, value)
