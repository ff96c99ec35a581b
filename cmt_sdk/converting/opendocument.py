"""OpenDocument files (odt, ods, odp) to Markdown. Knows html as the step between.

Headings, paragraphs, lists, tables, notes and comments become html elements; the pages of a
presentation become headings, the rows of a workbook records.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from cmt_sdk.converting.html import to_markdown
from cmt_sdk.converting.result import Converted
from cmt_sdk.converting.rows import written
from cmt_sdk.converting.zips import Written, opened, parsed
from cmt_sdk.errors import InvalidDocument

TAGS = {
    "p": "p",
    "list": "ul",
    "list-item": "li",
    "list-header": "li",
    "table": "table",
    "table-row": "tr",
    "table-cell": "td",
    "notes": "div",
}
UNSEEN = frozenset(
    {
        "tracked-changes",
        "forms",
        "sequence-decls",
        "annotation-end",
        "automatic-styles",
        "scripts",
        "note-citation",
    }
    | {
        "covered-table-cell",
        "binary-data",
        "title",
        "desc",
        "hidden-text",
        "hidden-paragraph",
        "creator",
        "date",
    }
    | {"font-face-decls", "soft-page-break", "event-listeners"}
)
SPACES = {"s": " ", "tab": " ", "line-break": "<br>"}
MAX_REPEATS = 100  # cells or rows that one element stands for; more only fill the sheet
DEEPEST = 200  # elements within elements
MAX_CELLS = 1_000_000  # of one sheet
MAX_PARTS = 2_000_000  # pieces of html of one file


def from_opendocument(data: bytes, path: Path) -> Converted:
    """The text of a letter, a workbook or a presentation.

    Raises:
        InvalidDocument: The file is damaged or encrypted.
    """
    with opened(data, path) as parts:
        names = parts.namelist()
        manifest = parts.read("META-INF/manifest.xml") if "META-INF/manifest.xml" in names else b""
        if b"encryption-data" in manifest:
            raise InvalidDocument(
                f"{path} is encrypted: open it, save it without a password, and add that"
            )
        title = ""
        if "meta.xml" in names:
            title = " ".join(
                parsed(parts.read("meta.xml")).xpath("string(//*[local-name()='title'])").split()
            )
        root = parsed(parts.read("content.xml"))
        sheets = root.xpath("//*[local-name()='spreadsheet']/*[local-name()='table']")
        size = Written()
        text = "\n\n".join(_sheet(sheet, size) for sheet in sheets) if sheets else _letter(root)
        return Converted(text, {"title": title} if title else {})


def _letter(root: Any) -> str:
    html: list[str] = []
    _convert(root, html, 0)
    return to_markdown(f"<html><body>{''.join(html)}</body></html>")


def _convert(element: Any, html: list[str], depth: int) -> None:
    """Add the html of an element and of all in it, without the text after it."""
    name = _name(element)
    if depth > DEEPEST or len(html) > MAX_PARTS:
        raise RecursionError("its elements are too many, or nested too deep")
    if not name or name in UNSEEN:
        return
    if name in SPACES:
        html.append(SPACES[name])
        return
    if name in ("note", "annotation"):
        words = (" ".join(_words(child)) for child in element if _name(child) not in UNSEEN)
        html.append(f" [{escape(' '.join(words))}] ")
        return
    if name == "page":
        html.append(f"<h2>{escape(_attribute(element, 'name'))}</h2>")
    level = _attribute(element, "outline-level")
    tag = (
        f"h{min(6, int(level)) if level.isdecimal() and int(level) else 1}"
        if name == "h"
        else TAGS.get(name, "")
    )
    html.append(f"<{tag}>" if tag else "")
    html.append(escape(element.text or ""))
    for child in element:
        _convert(child, html, depth + 1)
        html.append(escape(child.tail or ""))
    html.append(f"</{tag}>" if tag else "")


def _sheet(table: Any, size: Written) -> str:
    """One table of a workbook."""
    rows: list[list[str]] = []
    count = 0
    for row in table.xpath(".//*[local-name()='table-row']"):
        cells = list(_cells(row))
        while cells and not cells[-1]:
            cells.pop()
        repeats = _repeats(row, "number-rows-repeated") if cells else 1
        size.add(repeats * sum(map(len, cells)))
        rows += [cells] * repeats
        count += repeats * len(cells)
        if count > MAX_CELLS:
            raise ValueError(f"a sheet of it has more than {MAX_CELLS:,} cells")
    return written(_attribute(table, "name"), rows)


def _cells(row: Any) -> Iterator[str]:
    for cell in row:
        if _name(cell) in ("table-cell", "covered-table-cell"):
            paragraphs = (" ".join(_words(child)) for child in cell if _name(child) == "p")
            text = " ".join(paragraphs).strip()
            yield from [text] * _repeats(cell, "number-columns-repeated")


def _words(element: Any) -> list[str]:
    words: list[str] = "".join(element.itertext()).split()
    return words


def _name(element: Any) -> str:
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def _attribute(element: Any, name: str) -> str:
    """An attribute by its name without the namespace."""
    return next(
        (value for key, value in element.attrib.items() if key.rsplit("}", 1)[-1] == name), ""
    )


def _repeats(element: Any, name: str) -> int:
    """The number of cells or rows that an element stands for."""
    count = _attribute(element, name)
    return max(1, min(int(count), MAX_REPEATS)) if count.isdecimal() and len(count) < 10 else 1
