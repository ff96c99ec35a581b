"""Html to Markdown: the part of a page that a reader sees. Knows no other format.

Headings, lists and tables stay, and so does the meaning of typography; pictures, link targets and
emphasis go.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cmt_sdk.converting.html_lines import collapse_spaces
from cmt_sdk.converting.html_main import keep_main
from cmt_sdk.converting.html_marks import write_formulas, write_marks
from cmt_sdk.converting.html_menus import host_of
from cmt_sdk.converting.html_seen import drop_unseen
from cmt_sdk.converting.html_shape import LABEL, place_labels, shape_blocks
from cmt_sdk.converting.html_styles import styles
from cmt_sdk.converting.html_tables import write_tables
from cmt_sdk.converting.html_tree import Element, TooDeep, parsed, words
from cmt_sdk.converting.result import Converted, damaged
from cmt_sdk.converting.text import check_text, decode
from cmt_sdk.errors import InvalidDocument

if TYPE_CHECKING:
    from bs4 import Tag
    from markdownify import MarkdownConverter

MARKER = re.compile(r"\d{1,9}[.)]|\[\d+\]")  # the beginning of a list's item, or of a note
# tags whose text stays and whose marks go
UNMARKED = ["a", "b", "del", "em", "i", "img", "s", "strong"]


def from_html(data: bytes, path: Path) -> Converted:
    """The main part of a page as Markdown, and its title.

    Raises:
        InvalidDocument: No parser accepts the page.
    """
    from bs4 import UnicodeDammit

    try:
        page = decode(data, path)
    except InvalidDocument:  # the encoding that the page names, or a guess
        page = UnicodeDammit(data, is_html=True).unicode_markup or ""
    check_text(page, math.inf, str(path))  # before the parser makes other characters of NULs
    try:
        root = parsed(page)
        if root is None:
            return Converted("")
        metadata = _metadata(root)
        style = styles(root)
        write_formulas(root)
        host = host_of(root)
        drop_unseen(root, style)
        keep_main(root, host)
        return Converted(_written(root, style), metadata)
    except (TooDeep, RecursionError) as error:
        raise damaged(path, error) from error


def to_markdown(html: str) -> str:
    """Markdown of a piece of html that has no style sheet, no menus and nothing hidden.

    Raises TooDeep.
    """
    root = parsed(html)
    return "" if root is None else _written(root, {})


def _written(root: Element, style: Mapping[Element, Mapping[str, str]]) -> str:
    from bs4 import BeautifulSoup, UnusualUsageWarning
    from lxml.html import tostring

    shape_blocks(root, style)
    write_marks(root, style)
    place_labels(root)
    collapse_spaces(root)
    write_tables(root)
    html = tostring(root, encoding="unicode")
    with warnings.catch_warnings(action="ignore", category=UnusualUsageWarning):
        page = BeautifulSoup(html, "lxml")
    return str(_converter().convert_soup(page)).strip()


def _converter() -> MarkdownConverter:
    """A converter to Markdown in which the items of lists keep the numbers that they show."""
    from markdownify import MarkdownConverter

    class Converter(MarkdownConverter):
        def convert_li(self, el: Tag, text: str, parent_tags: set[str]) -> str:
            if not (label := str(el.get(LABEL) or "")):
                return str(super().convert_li(el, text, parent_tags))  # type: ignore[misc]
            if not MARKER.fullmatch(label):
                label = f"- {label}"
            first, *rest = text.strip().splitlines() or [""]
            if not (first or rest):
                return "\n"
            gap = " " * (label.find(" ") + 1 or len(label) + 1)
            return "".join(
                f"{line}\n" for line in [f"{label} {first}", *(gap * bool(r) + r for r in rest)]
            )

    return Converter(
        heading_style="ATX",
        strip=UNMARKED,
        table_infer_header=True,
        escape_asterisks=False,
        escape_underscores=False,
    )


def _metadata(root: Element) -> dict[str, str]:
    """The title of a page: as it names itself to others, its title line, or its only h1."""
    named = root.xpath("//meta[@property='og:title' or @name='og:title']/@content")
    titled = [words(e) for e in root.xpath("//head/title | /html/title")]
    headings = [words(e) for e in root.iter("h1")]
    found = [*named, *titled, *(headings if len(headings) == 1 else [])]
    titles = [" ".join(title.split()) for title in found]
    return next(({"title": title} for title in titles if title), {})
