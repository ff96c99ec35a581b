"""A passage as the model reads it: table rows as records, letters as people see them. Pure: knows no
store and no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from cmt_sdk.words.folding import legible

CELL_END = re.compile(r"(?<!\\)\|")
DELIMITER = re.compile(r":?-+:?")


def render(content: str) -> str:
    """The content of a passage as it is compressed and read.

    Rows of a Markdown table become records, `- Season: Winter; Entry: 4 euros`: a small model takes
    the value of another row or column where a table names its columns once. The first row of a
    run names the columns; a passage from the middle of a table has the header in its heading.
    """
    if "|" not in content:
        return legible(content)
    lines: list[str] = []
    for is_table, run in groupby(content.split("\n"), lambda line: line.lstrip().startswith("|")):
        rows = list(run)
        lines += _records(rows) if is_table else rows
    return legible("\n".join(lines))


def _records(rows: Sequence[str]) -> Iterator[str]:
    """The lines of one table as records; a single line, or one without cells, stays as it is."""
    header, *body = (_cells(row) for row in rows)
    body = [cells for cells in body if not all(DELIMITER.fullmatch(c) for c in cells)]
    if len(header) < 2 or not body:
        yield from rows
        return
    for cells in body:
        names = [*header, *[""] * (len(cells) - len(header))]
        parts = (f"{n}: {c}" if n else c for n, c in zip(names, cells, strict=False) if c)
        yield f"- {'; '.join(parts)}"


def _cells(row: str) -> list[str]:
    inner = row.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in CELL_END.split(inner)]
