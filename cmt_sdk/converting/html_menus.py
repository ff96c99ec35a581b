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
LISTS = frozenset(["dl", "ol", "p", "ul"])  # what an article has, too
FEWEST = 3  # links of a menu
LINKED = 0.8  # the part of a menu's letters that are links
LONGEST_LINK = 30  # characters, on average: a list of articles has whole titles
PROSE = 30  # characters of a block without its links
WIDE = "\u2e80"  # where the scripts of China, Japan and Korea begin: a letter says as much as two
MORE = 2  # times the text of a menu: what the page must say beside it


def drop_menus(body: Element, host: str) -> None:
    """Drops the menus above a page's first and below its last prose.

    Links to places in the page itself are a table of contents, and stay. So does a list below a
    heading, and all of a page that has little to say but links.

    Args:
        body: the page. It is changed in place.
        host: that of the page, empty where it names none: links to another one are no menu.
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
    waiting = [body]
    while waiting:
        element = waiting.pop()
        if element is not body and _is_menu(element):
            yield element, True
            continue
        if _prose(element) >= PROSE:
            yield element, False
        waiting += [child for child in reversed(element) if isinstance(child.tag, str)]


def _is_menu(element: Element) -> bool:
    if element.tag not in BLOCKS:
        return False
    links = [link for link in element.iter("a") if link.get("href")]
    if len(links) < FEWEST or any(link.get("href").startswith("#") for link in links):
        return False
    linked = sum(map(_size, links))
    return LINKED * _size(element) <= linked <= LONGEST_LINK * len(links)


def _size(element: Element) -> int:
    """The letters and digits of an element, an ideograph as two; marks between links are none."""
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
    """Whether what stands before a block is a heading, or ends with one."""
    before = element.getprevious()
    while before is not None and before.tag not in HEADINGS and len(before):
        before = before[-1]
    return before is not None and before.tag in HEADINGS and before.find(".//a") is None


def _is_apart(element: Element, host: str) -> bool:
    """Whether links below the text lead through the site, and are no list of the article."""
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
    except ValueError:  # what stands there is no address
        return address
