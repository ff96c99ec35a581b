"""Rows of a sheet to lines that name their columns. Pure: knows no file format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

FEWEST_COLUMNS = 2  # of a table with a header


def written(name: str, rows: Iterable[Sequence[str]]) -> str:
    """A sheet under its name. Rows below a header are "- column: value; column: value"."""
    lines = list(_lines(list(rows)))
    heading = [f"## {name}", ""] if name and lines else []
    return "\n".join([*heading, *lines])


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a sheet. An empty row ends a table; the next may have its own header."""
    header: Sequence[str] = ()
    for index, row in enumerate(rows):
        filled = [value for value in row if value]
        if not filled:
            header = ()
            continue
        if not header and _is_header(row, rows[index + 1] if index + 1 < len(rows) else ()):
            header = row
        elif header:
            yield record(zip([*header, *[""] * len(row)], row, strict=False))
        else:
            yield f"- {'; '.join(filled)}" if len(filled) > 1 else filled[0]


def _is_header(row: Sequence[str], following: Sequence[str]) -> bool:
    """True for a row of names, each once, above a row that fills as many columns or fewer."""
    names = [value for value in row if value]
    if len(names) < FEWEST_COLUMNS or len(set(names)) < len(names):
        return False
    if any(not any(letter.isalpha() for letter in name) for name in names):
        return False
    below = [value for value in following if value]
    return bool(below) and len(following) <= len(row) + 1


def record(fields: Iterable[tuple[str, str]]) -> str:
    """One line that names its fields; empty ones are left out."""
    return "- " + "; ".join(
        f"{name}: {value}" if name else value for name, value in fields if value
    )
