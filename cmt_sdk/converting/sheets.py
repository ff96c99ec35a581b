"""Excel workbooks to lines that name their columns, by openpyxl. Knows no other format."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from cmt_sdk.converting.result import Converted
from cmt_sdk.converting.rows import written
from cmt_sdk.converting.zips import Written, opened

MIDNIGHT = time(0)
MAX_CELLS = 5_000_000  # of one sheet: a row with a single value in its last column has 16,384


def from_sheets(data: bytes, path: Path) -> Converted:
    """The values of all visible sheets, with the last results of formulas.

    Raises:
        InvalidDocument: The file is damaged, or a sheet has more cells than the limit.
    """
    from openpyxl import load_workbook

    # of parts that openpyxl does not know
    with opened(data, path), warnings.catch_warnings(action="ignore"):
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        texts: list[str] = []
        size = Written()
        hidden: list[str] = []
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                hidden.append(sheet.title)
                continue
            sheet.reset_dimensions()  # a file can claim a million empty columns
            texts.append(written(sheet.title, _rows(sheet, size)))
        title = " ".join(str(book.properties.title or "").split())
        book.close()
    left_out = [f"hidden sheets are not read ({', '.join(hidden)})"] if hidden else []
    return Converted(
        "\n\n".join(text for text in texts if text), {"title": title} if title else {}, left_out
    )


def _rows(sheet: Any, size: Written) -> Iterator[Sequence[str]]:
    was_empty = False
    count = 0
    for values in sheet.iter_rows(values_only=True):
        count += len(values)
        if count > MAX_CELLS:
            raise ValueError(
                f"a sheet of it has more than {MAX_CELLS:,} cells, empty ones included"
            )
        row = [_text(value) for value in values]
        size.add(sum(map(len, row)))  # many cells can show one text
        while row and not row[-1]:
            row.pop()
        if row or not was_empty:
            yield row
        was_empty = not row


def _text(value: object) -> str:
    """A cell as a reader sees it: no time of day for a date, no ".0" for an integer."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return (
            value.date().isoformat()
            if value.time() == MIDNIGHT
            else value.isoformat(" ", "minutes")
        )
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, float):
        return f"{value:.15g}"
    return " ".join(str(value).split())
