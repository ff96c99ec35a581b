"""Html to Markdown: what a reader sees of a page. Knows no other format.

Headings, lists and tables stay; pictures, link targets and emphasis go.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from cmt_sdk.converting.result import Converted, damaged
from cmt_sdk.converting.text import check_text, decode
from cmt_sdk.errors import InvalidDocument

UNMARKED = ["a", "b", "del", "em", "i", "img", "s", "strong", "video"]  # tags whose text stays and whose marks go
UNSEEN = ["noscript", "svg", "template"]  # tags that go with their text; markdownify drops scripts and styles itself


def from_html(data: bytes, path: Path) -> Converted:
    """The text of a page as Markdown. Raises InvalidDocument for one that no parser takes."""
    from bs4 import ParserRejectedMarkup, UnicodeDammit

    try:
        page = decode(data, path)
    except InvalidDocument:
        page = UnicodeDammit(data, is_html=True).unicode_markup or ""  # the encoding that the page names, or a guess
    try:
        return Converted(to_markdown(check_text(page, math.inf, str(path))))  # before the parser makes other characters of NULs
    except (ParserRejectedMarkup, RecursionError) as error:
        raise damaged(path, error) from error


def to_markdown(html: str) -> str:
    """Markdown of what a reader sees of this html."""
    import lxml.html  # noqa: F401 - BeautifulSoup asks for it by name; html.parser nests paragraphs that are not closed
    from bs4 import BeautifulSoup, UnusualUsageWarning
    from markdownify import MarkdownConverter

    with warnings.catch_warnings(action="ignore", category=UnusualUsageWarning):  # of XHTML, of pages without a tag
        page = BeautifulSoup(html, "lxml")
    for tag in page(UNSEEN):
        tag.decompose()
    converter = MarkdownConverter(
        heading_style="ATX", strip=UNMARKED, table_infer_header=True, escape_asterisks=False, escape_underscores=False
    )
    return converter.convert_soup(page)
