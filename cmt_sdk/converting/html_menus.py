"""Menus at the edges of a page, whatever their elements are called: blocks of nothing but links.

Knows links, headings and prose. Knows no names of classes and no words.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from cmt_sdk.converting.html_tree import HEADINGS, Element, drop, words

BLOCKS = frozenset(
    ["center", "dd", "div", "dl", "header", "footer", "ol", "p", "section", "table", "td", "ul"]
)
LISTS = frozenset(["dl", "ol", "p", "ul"])  # blocks that an article has, too
MIN_LINKS = 3  # of a menu
LINKED = 0.8  # share of links in a menu's letters
MAX_LINK_CHARACTERS = 30  # on average: a list of articles has full titles
PROSE = 30  # characters of a block without its links
WIDE = "\u2e80"  # first letter of the scripts of China, Japan and Korea: each counts as two
MORE = 2  # times the text of a menu that the rest of the page must have


def drop_menus(body: Element, host: str) -> None:
    """Drop the menus above a page's first and below its last prose.

    Links to places in the page itself are a table of contents, and stay. So do a list below a
    heading, and everything on a page that is mostly links.

    Args:
        body: The page. It is changed in place.
        host: The page's own host, or empty. Links to other hosts are no menu.
    """
    blocks = list(_blocks(body))
    prose = [number for number, (_, is_menu) in enumerate(blocks) if not is_menu]
    if not prose:
        return
    own = _own_size(body)
    above = [menu for menu, _ in blocks[: prose[0]]]
    below = [menu for menu, _ in blocks[prose[-1] + 1 :] if _is_apart(menu, host)]
    for menu in (*above, *below):
        if MORE * _size(menu) <= own and not _is_below_heading(menu):
            drop(menu)


def _blocks(body: Element) -> Iterator[tuple[Element, bool]]:
    """The outermost menus, and the elements that hold prose themselves, in order."""
    pending = [body]
    while pending:
        element = pending.pop()
        if element is not body and _is_menu(element):
            yield element, True
            continue
        if _prose(element) >= PROSE:
            yield element, False
        pending += [child for child in reversed(element) if isinstance(child.tag, str)]


def _is_menu(element: Element) -> bool:
    if element.tag not in BLOCKS:
        return False
    links = [link for link in element.iter("a") if link.get("href")]
    if len(links) < MIN_LINKS or any(link.get("href").startswith("#") for link in links):
        return False
    linked = sum(map(_size, links))
    return LINKED * _size(element) <= linked <= MAX_LINK_CHARACTERS * len(links)


def _size(element: Element) -> int:
    """The number of letters and digits of an element; an ideograph counts as two."""
    return sum(1 + (letter >= WIDE) for letter in words(element) if letter.isalnum())


def _own_size(body: Element) -> int:
    return _size(body) - sum(_size(link) for link in body.iter("a") if link.get("href"))


def _prose(element: Element) -> int:
    """The length of the text that an element holds itself, in it or in parts of its lines."""
    if element.tag == "a" and element.get("href"):
        return 0
    parts = [element.text or ""]
    for child in element:
        parts.append(child.tail or "")
        if child.tag not in BLOCKS and child.tag != "a" and isinstance(child.tag, str):
            parts.append(child.text or "")
    return len(" ".join(" ".join(parts).split()))


def _is_below_heading(element: Element) -> bool:
    """True where a block stands right after a heading, or after an element that ends with one."""
    before = element.getprevious()
    while before is not None and before.tag not in HEADINGS and len(before):
        before = before[-1]
    return before is not None and before.tag in HEADINGS and before.find(".//a") is None


def _is_apart(element: Element, host: str) -> bool:
    """True for links below the text that lead through the site, and are no list of the article."""
    if element.tag in LISTS or any(inner.tag in HEADINGS for inner in element.iter()):
        return False
    hosts = {_host(link.get("href")) for link in element.iter("a") if link.get("href")}
    return hosts <= {"", host}


def host_of(root: Element) -> str:
    """The host that a page names as its own; empty where it names none."""
    found = root.xpath("//link[@rel='canonical']/@href | //meta[@property='og:url']/@content")
    return _host(found[0]) if found else ""


def _host(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:  # a malformed address
        return address
