"""A passage as the model reads it: table rows as records, letters as people see them. Pure: knows
no store and no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from cmt_sdk.text.words.folding import legible
from cmt_sdk.types import Passage

CELL_END = re.compile(r"(?<!\\)\|")
DELIMITER = re.compile(r"[:+-]*-[:+-]*")
MOST_GROWTH = 2.0  # times the length of the rows: longer names of columns stay in the header


def render_passage(passage: Passage) -> str:
    """The content of a passage as it is compressed and read.

    Rows of a Markdown table become records, `- Season: Winter; Entry: 4 euros`: a small model takes
    the value of another row or column where a table names its columns once. The names are those
    of the row above a delimiter row (`|---|---|`), or of the last line of the heading, where the
    passage is from the middle of a table. Other lines with pipes stay as they are.
    """
    if "|" not in passage.text:
        return legible(passage.content)
    above, _, header = passage.heading.rpartition("\n")
    if not header.startswith("|"):
        above, header = passage.heading, ""
    lines: list[str] = []
    for is_row, run in groupby(
        passage.text.split("\n"), lambda line: line.lstrip().startswith("|")
    ):
        rows = list(run)
        if is_row and header and not lines:
            lines += _table([header, "|-|", *rows])
        else:
            lines += [header] if header and not lines else []
            lines += _table(rows) if is_row else rows
    return legible("\n".join([above, *lines] if above else lines))


def _table(rows: Sequence[str]) -> Sequence[str]:
    """Rows below their header as records; rows without one, or whose names are long, as they
    are.
    """
    if len(rows) < 3 or not _is_delimiter(rows[1]):
        return rows
    records = list(_records(_cells(rows[0]), rows[2:]))
    fit = sum(map(len, records)) <= MOST_GROWTH * sum(map(len, rows))
    return records if records and fit else rows


def _records(names: Sequence[str], rows: Sequence[str]) -> Iterator[str]:
    for row in rows:
        cells = _cells(row)
        named = zip([*names, *[""] * len(cells)], cells, strict=False)
        parts = [f"{name}: {cell}" if name else cell for name, cell in named if cell]
        if parts and not _is_delimiter(row):
            yield f"- {'; '.join(parts)}"


def _is_delimiter(row: str) -> bool:
    return all(DELIMITER.fullmatch(cell) for cell in _cells(row))


def _cells(row: str) -> list[str]:
    inner = row.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in CELL_END.split(inner)]
