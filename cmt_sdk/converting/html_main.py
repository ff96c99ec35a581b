"""The main part of a page without menus, banners, side bars and footers, found by readability.

Knows elements of navigation and the density of links. Does not know what the text is about.
"""

from __future__ import annotations

import logging
import re
from copy import deepcopy

from cmt_sdk.converting.html_menus import drop_menus
from cmt_sdk.converting.html_tree import HEADINGS, Element, drop, words

NUMBER = "data-place"
FRAMES = frozenset({"nav", "menu"})
ASIDES = frozenset({"aside", "footer", "button", "nav", "menu"})
ROLES = frozenset(
    ["navigation", "search", "menu", "menubar", "banner", "contentinfo", "complementary", "toolbar"]
)
LISTS = frozenset({"ol", "ul", "dl"})
LINKED = 0.4  # share of links in a block's text from which on it is a menu
LINKED_LIST = 0.8  # the same for a list
MAIN = 0.3  # share of a page's text that an element named its main part must have
MAX_NOTICE_CHARACTERS = 200
CONTENTS = HEADINGS | {"table", "ul", "ol", "dl"}
KEPT = 0.6  # share of a page's own text that an article must have
MAX_PAGE_CHARACTERS = 3_000_000  # for readability

_NOTICE = re.compile(
    r"consent|gdpr|breadcrumb|skip-?(?:link|to)|cookie[-_]?(?:banner|bar|notice|law|popup|modal"
    r"|message|alert|wall|dialog|overlay|policy|info|hint|box)",
    re.IGNORECASE,
)
_CHROME = re.compile(
    r"cookie|consent|gdpr|sidebar|breadcrumb|shar(?:e|ing)\b|social|related|newsletter|subscribe"
    r"|promo|advert|(?:^|[\s_-])ads?(?:$|[\s_-])|outbrain|taboola|recommend|comment|disqus|footer"
    r"|masthead|popup|modal|pagination|pager|sponsor|toolbar|(?:^|[\s_-])nav|menu|banner",
    re.IGNORECASE,
)


def keep_main(root: Element, host: str = "") -> None:
    """Remove everything around the main part of a page.

    Menus and notices about cookies always go. Side bars, footers and the like go where the page
    names its main part, or where readability finds an article that is most of its text.

    Args:
        root: The page without its hidden elements. It is changed in place.
        host: The page's own host, from `html_menus.host_of`.
    """
    body = root.find("body")
    if body is not None:
        drop_menus(body, host)
    if body is None or not any(_is_chrome(e) for e in body.iterdescendants()):
        return
    _drop_frames(body)
    if not any(_is_chrome(e) for e in body.iterdescendants()):
        return
    size = len(words(body))
    kept = _article(root, body) if 0 < size < MAX_PAGE_CHARACTERS else set()
    if kept and _is_whole(body, kept):
        _prune(body, kept)


def _drop_frames(body: Element) -> None:
    """Drop menus and notices, and all elements around the part that a page calls its main one."""
    size = len(words(body))
    main = _main(body)
    if main is None or len(words(main)) < MAIN * size:
        around: set[Element] = set()
    else:
        inside = {*main.iter(), *main.iterancestors()}
        others = [e for e in body.iterdescendants() if e not in inside and e.find(".//h1") is None]
        around = {e for e in others if e.tag == "header" or _is_chrome(e)}
    for element in list(body.iterdescendants()):
        if element in around or (_is_frame(element) and len(words(element)) < size / 2):
            drop(element)


def _main(body: Element) -> Element | None:
    """The one element that a page names as its main part."""
    for path in (".//main", ".//*[@role='main']", ".//article"):
        if len(found := body.xpath(path)) == 1:
            return found[0]
    return None


def _name(element: Element) -> str:
    return f"{element.get('class') or ''} {element.get('id') or ''}"


def _is_frame(element: Element) -> bool:
    """True for an element that is certainly a menu or a notice."""
    if element.tag in FRAMES or element.get("role") in ("navigation", "search", "menubar"):
        return True
    if _NOTICE.search(_name(element)):
        return True
    is_short = len(words(element)) < MAX_NOTICE_CHARACTERS
    held = {inner.tag for inner in element.iter()}
    return is_short and "cookie" in _name(element).lower() and not held & CONTENTS


def _is_chrome(element: Element) -> bool:
    if element.tag in ASIDES or element.get("role") in ROLES:
        return True
    return _CHROME.search(_name(element)) is not None


def _link_density(element: Element) -> float:
    length = len(words(element))
    linked = sum(len(words(link)) for link in element.iter("a") if link.get("href"))
    return linked / length if length else 0.0


def _article(root: Element, body: Element) -> set[Element]:
    """The elements that readability keeps, with those around them; none where it finds nothing."""
    from readability import Document
    from readability.readability import Unparseable

    logging.getLogger("readability.readability").addFilter(lambda _: False)
    elements = list(body.iterdescendants())
    for number, element in enumerate(elements):
        element.set(NUMBER, str(number))
    try:
        summary = Document(deepcopy(root)).summary()
    except Unparseable:
        return set()
    found = {elements[int(n)] for n in re.findall(rf'{NUMBER}="(\d+)"', summary)}
    around = {ancestor for element in found for ancestor in element.iterancestors()}
    return found | around


def _frame(body: Element, kept: set[Element]) -> Element:
    """The smallest element that all of the article is in."""
    frame = body
    while True:
        inner = [child for child in frame if child in kept]
        if len(inner) != 1 or (len(words(inner[0])) < KEPT * len(words(frame)) and _own(frame)):
            return frame
        frame = inner[0]


def _own(element: Element) -> bool:
    return bool((element.text or "").strip() or any((c.tail or "").strip() for c in element))


def _is_whole(body: Element, kept: set[Element]) -> bool:
    """False where the article lacks much of the text outside menus and the like."""
    frame = _frame(body, kept)
    lost = 0
    element = frame
    while element is not body:
        siblings = [*element.itersiblings(), *element.itersiblings(preceding=True)]
        lost += sum(_own_text(sibling) for sibling in siblings)
        element = element.getparent()
    return lost <= (1 - KEPT) * (lost + len(words(frame)))


def _own_text(element: Element) -> int:
    """The length of an element's text outside menus and the like."""
    if _is_menu(element):
        return 0
    if not any(_is_menu(child) for child in element):
        return len(words(element))
    return sum(_own_text(child) for child in element)


def _prune(body: Element, kept: set[Element]) -> None:
    """Drop everything around the article, and menus and the like within it."""
    frame = _frame(body, kept)
    for element in [frame, *frame.iterancestors()]:
        if element is body:
            break
        for sibling in list(element.itersiblings()) + list(element.itersiblings(preceding=True)):
            drop(sibling)
    pending = [frame]
    while pending:
        for child in list(pending.pop()):
            if child in kept:
                pending.append(child)
            elif _is_menu(child):
                drop(child)


def _is_menu(element: Element) -> bool:
    """True for an element that looks like a menu or a banner."""
    length = len(words(element))
    if not length or element.tag in HEADINGS:
        return False
    if element.tag in ("aside", "footer") and element.find(".//a") is None:
        return _CHROME.search(_name(element)) is not None
    if _is_chrome(element) or any(
        _is_chrome(inner) and len(words(inner)) > length / 2 for inner in element.iterdescendants()
    ):
        return True
    previous = element.getprevious()
    if element.tag in LISTS and previous is not None and previous.tag in HEADINGS:
        return False
    is_list = element.tag in LISTS or element.find(".//ol") is not None
    return _link_density(element) > (LINKED_LIST if is_list else LINKED)
