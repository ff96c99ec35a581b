"""Tables of a page: data as a full grid with a header row, layout as blocks of text.

Knows rows, cells and spans. Leaves the writing of Markdown to another module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cmt_sdk.converting.html_tree import BLOCKS, HEADINGS, Element, drop, steps, words

MAX_GRID_CELLS = 200_000  # only made-up spans give more
LEAST_GRID = 1_000  # cells that spans may fill in any table
FILLED = 20  # cells that spans may fill for each cell of a table
MAX_SPAN = 1000  # columns or rows, the limit of HTML
MAX_CELL_CHARACTERS = 80  # of a cell that stands in a line with its neighbours

PARTS = frozenset({"thead", "tbody", "tfoot", "tr", "td", "th"})

_END = re.compile(r"[.,;:!?]$")


def write_tables(root: Element) -> None:
    """Give every table the shape in which Markdown writes it; inner tables first."""
    for stray in list(root.iter("tr", "td", "th")):
        if next(stray.iterancestors("table"), None) is None:
            stray.tag = "div"
    for table in reversed(list(root.iter("table"))):
        rows = list(_rows(table))
        if not any(words(cell) for row in rows for cell in row) or _is_layout(table, rows):
            _dissolve(table, rows)
        else:
            _write_grid(table, rows)


def _rows(table: Element) -> Iterator[list[Element]]:
    """The rows of a table without those of inner tables; head first and foot last."""
    sections: dict[str, list[Element]] = {"thead": [], "tbody": [], "tfoot": []}
    for child in table:
        if child.tag == "tr":
            sections["tbody"].append(child)
        elif child.tag in sections:
            sections[child.tag] += [row for row in child if row.tag == "tr"]
    for row in sections["thead"] + sections["tbody"] + sections["tfoot"]:
        yield [cell for cell in row if cell.tag in ("td", "th")]


def _is_layout(table: Element, rows: list[list[Element]]) -> bool:
    """True for a table that only places texts on the page."""
    if table.get("role") in ("presentation", "none"):
        return not _is_regular(rows)
    cells = [cell for row in rows for cell in row]
    if any(len(row) == 1 for row in rows) and len(max(rows, key=len)) == 1:
        return True
    if any(cell.tag == "th" for cell in cells):
        return False
    if any(_holds_blocks(cell) for cell in cells):
        return True
    filled = [[words(cell) for cell in row if words(cell)] for row in rows]
    if sum(len(row) > 1 for row in filled) == 0:
        return True
    lengths = [len(text) for row in filled for text in row]
    return len([row for row in filled if row]) == 1 and max(lengths) > MAX_CELL_CHARACTERS


def _is_regular(rows: list[list[Element]]) -> bool:
    """True where, whatever the table's role, several rows have several short cells."""
    full = [row for row in rows if sum(1 for cell in row if words(cell)) > 1]
    cells = [cell for row in rows for cell in row]
    return len(full) > 1 and not any(_holds_blocks(cell) for cell in cells)


def _holds_blocks(cell: Element) -> bool:
    """True for a cell that is a part of a page: with headings, lists or several paragraphs."""
    paragraphs = 0
    for inner in cell.iterdescendants():
        if inner.tag in HEADINGS or inner.tag in ("ul", "ol", "dl", "table", "hr", "blockquote"):
            return True
        if inner.tag == "p" and words(inner):
            paragraphs += 1
    return (paragraphs > 1 and len(words(cell)) > 2 * MAX_CELL_CHARACTERS) or paragraphs > 4


def _dissolve(table: Element, rows: list[list[Element]]) -> None:
    """Turn a layout table into blocks: a row of short cells becomes a line, other cells blocks."""
    for row in rows:
        filled = [cell for cell in row if words(cell)]
        short = all(_is_short(cell) for cell in filled)
        if len(filled) > 1 and short and filled[0].getparent() is not None:
            line = filled[0].getparent()
            text = _line([words(cell) for cell in filled])
            for cell in list(line):
                drop(cell)
            line.text = text
            line.tag = "p"
    level = [table]
    while level:
        for element in level:
            element.tag = "div"
        level = [inner for element in level for inner in element if inner.tag in PARTS]
    for caption in table.findall("caption"):
        caption.tag = "p"


def _is_short(cell: Element) -> bool:
    blocks = any(e.tag in BLOCKS or e.tag == "br" for e in cell.iterdescendants() if words(e))
    breaks = any(True for _ in cell.iter("br"))
    return not blocks and not breaks and len(words(cell)) <= MAX_CELL_CHARACTERS


def _line(texts: list[str]) -> str:
    if len(texts) == 2:
        return " ".join(texts) if _END.search(texts[0]) else ": ".join(texts)
    return " | ".join(texts)


def _write_grid(table: Element, rows: list[list[Element]]) -> None:
    grid, heads = _grid(rows)
    grid = [row for row in grid if any(row)]
    header, body = _header(grid, heads)
    for caption in table.findall("caption"):
        caption.tag = "p"
        table.addprevious(caption)
        caption.tail = None
    for child in list(table):
        table.remove(child)
    table.text = None
    for number, cells in enumerate([header, *body]):
        row = table.makeelement("tr")
        table.append(row)
        for text in cells:
            cell = row.makeelement("td" if number else "th")
            cell.text = text.replace("|", "\\|")
            row.append(cell)


def _grid(rows: list[list[Element]]) -> tuple[list[list[str]], int]:
    """The texts of a table with each span filled, and the number of head rows at the top."""
    taken: dict[tuple[int, int], str] = {}
    starts: set[int] = set()
    widths: list[tuple[int, int, int]] = []
    heads = 0
    most = min(MAX_GRID_CELLS, LEAST_GRID + FILLED * sum(map(len, rows)))
    for y, row in enumerate(rows):
        x = 0
        for cell in row:
            while (y, x) in taken:
                x += 1
            starts.add(x)
            wide = _span(cell, "colspan", 1)
            high = _span(cell, "rowspan", len(rows) - y)
            high = min(high, len(rows) - y)
            if len(taken) + wide * high > most:
                wide = 1
                high = 1
            text = _cell_text(cell)
            widths.append((y, x, wide))
            for inner in range(wide * high):
                taken.setdefault((y + inner // wide, x + inner % wide), text)
            x += wide
        heads += heads == y and _is_head(row)
    heads = heads or _spanned_heads(rows)
    columns = sorted(starts)
    for y, x, wide in widths:  # a title over the whole width is written once
        if x == 0 and wide >= columns[-1] + 1 and len(columns) > 1 and y >= heads:
            for column in columns[1:]:
                taken[(y, column)] = ""
    grid = [[taken.get((y, x), "") for x in columns] for y in range(len(rows))]
    used = [n for n in range(len(columns)) if any(row[n] for row in grid)]
    return [[row[n] for n in used] for row in grid], heads


def _spanned_heads(rows: list[list[Element]]) -> int:
    """The number of rows that the first row's cells span, where some of them have sub-columns."""
    if not any(_span(cell, "colspan", 1) > 1 for cell in rows[0]):
        return 0
    highest = max(_span(cell, "rowspan", 1) for cell in rows[0])
    return highest if 1 < highest < len(rows) else 0


def _span(cell: Element, name: str, whole: int) -> int:
    try:
        span = int(cell.get(name) or 1)
    except ValueError:
        return 1
    return min(span, MAX_SPAN) if span > 0 else max(whole, 1)


def _is_head(row: list[Element]) -> bool:
    if not row:
        return False
    if row[0].getparent().getparent().tag == "thead":
        return True
    return all(cell.tag == "th" or not words(cell) for cell in row)


def _header(grid: list[list[str]], heads: int) -> tuple[list[str], list[list[str]]]:
    """The one header row and the rows beneath it."""
    heads = min(heads, len(grid) - 1)
    if heads > 0:
        columns = zip(*grid[:heads], strict=True)
        return [" ".join(dict.fromkeys(t for t in column if t)) for column in columns], grid[heads:]
    first = grid[0]
    if len(grid) == 1 or (any(re.search(r"\d", text) for text in first[1:]) and first[0]):
        return [""] * len(first), grid
    return first, grid[1:]


def _cell_text(cell: Element) -> str:
    """The text of a cell on one line."""
    parts: list[str] = [""]
    for event, element in steps(cell):
        is_border = element.tag in BLOCKS or element.tag == "br"
        is_cell = element.tag in ("td", "th") and element is not cell
        if is_cell and event == "end" and parts[-1].strip():
            parts[-1] = parts[-1].rstrip() + ", "
        elif is_border and not is_cell and element is not cell and parts[-1].strip():
            parts.append("")
        text = element.text if event == "start" else element.tail
        if text and not (event == "end" and element is cell):
            parts[-1] += text
    found = [" ".join(part.split()).strip().rstrip(",") for part in parts]
    if cell.tag == "th":
        return " ".join(part for part in found if part)
    line = ""
    for part in found:
        if part:
            gap = " " if not line or _END.search(line) or line.endswith("]") else "; "
            line += gap + part
    return line.strip()
