"""Tables of text and structured data to records that name their fields.

A row becomes one line, "- name: Bob Berg; street: 9 Oak Tree Road", so that every value stands next
to the name of its column wherever the text is split. Knows csv, json and json lines.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from cmt_sdk.converting.result import Converted
from cmt_sdk.converting.rows import record
from cmt_sdk.converting.text import from_text

Value: TypeAlias = "str | bool | list[Value] | dict[str, Value] | None"

DELIMITERS = ",;\t|"
SAMPLE = 200  # rows that decide the delimiter, the header and the lines above it
MAX_CELL_CHARACTERS = 4000  # of a cell with line breaks: more is an unclosed quotation mark
NUMBER = re.compile(r"[-+(]?[^\w\s]?\s?\d[\d\s.,'/:%)\u00a0\u202f-]*[^\W\d]{0,3}\.?")
YEAR = re.compile(r"(?:19|20)\d\d")
ADDRESS = re.compile(r"\S+@\S+\.\w+|\w+://")


def from_csv(data: bytes, path: Path) -> Converted:
    """The rows of a table as records; lines above its header stay as they are."""
    read = from_text(data, path)  # tables are often in another encoding than UTF-8
    text = read.text
    rows = _rows(text, path.suffix.lower())
    above, header, body = _parts(rows)
    if not header and max(map(len, rows), default=0) < 2:
        return read
    lines = [" ".join(cell for cell in row if cell) for row in above]
    if lines:
        lines.append("")
    lines += [record(zip(_names(header, len(row)), row, strict=True)) for row in body]
    return replace(read, text="\n".join(lines)) if body else read


def from_json(data: bytes, path: Path) -> Converted:
    """A JSON value as lines of text.

    Objects in lists become records below the path to the list, other values "path: value". Text
    that is no JSON stays as it is.
    """
    read = from_text(data, path)
    try:
        value = _parsed(read.text)
    except (ValueError, RecursionError):
        return from_json_lines(data, path)
    lines = list(_lines_of(value))
    return replace(read, text="\n".join(lines).strip()) if lines else read


def from_json_lines(data: bytes, path: Path) -> Converted:
    """Each line's value as a record; a line that is no json stays as it is."""
    read = from_text(data, path)
    return replace(read, text="\n".join(map(_line_record, read.text.split("\n"))))


def _line_record(line: str) -> str:
    try:
        value = _parsed(line)
    except (ValueError, RecursionError):
        return line
    return record(_flat(value)) if isinstance(value, dict | list) else line


# --- csv


def _rows(text: str, suffix: str) -> list[list[str]]:
    """The cells of all rows that are not empty."""
    named = re.match(r"sep=(.)\r?\n", text)
    if named:
        text = text[named.end() :]
    delimiter = named[1] if named else _delimiter(text, "\t" if suffix in (".tsv", ".tab") else "")
    rows = _read(text, delimiter, csv.QUOTE_MINIMAL)
    if _is_open(text, delimiter) or any(
        "\n" in cell and len(cell) > MAX_CELL_CHARACTERS for row in rows for cell in row
    ):
        rows = [
            [cell.strip().strip('"') for cell in row]
            for row in _read(text, delimiter, csv.QUOTE_NONE)
        ]
    cleaned = ([_clean(cell) for cell in row] for row in rows)
    return [row for row in cleaned if any(row)]


def _read(text: str, delimiter: str, quoting: Literal[0, 3]) -> list[list[str]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    lines = io.StringIO(text, newline="")
    return list(csv.reader(lines, delimiter=delimiter, quoting=quoting, skipinitialspace=True))


def _is_open(text: str, delimiter: str) -> bool:
    """True where a quotation mark is never closed."""
    try:
        for _ in csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
        ):
            pass
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _clean(cell: str) -> str:
    """A cell in one line."""
    return " ".join(re.sub(r"\s*\n\s*", " / ", cell.strip()).split())


def _delimiter(text: str, preferred: str) -> str:
    """The mark that gives the most rows of one length; `preferred` where it occurs."""
    if preferred and preferred in text:
        return preferred
    sample = "\n".join(text.split("\n", SAMPLE)[:SAMPLE])
    return max(DELIMITERS, key=lambda mark: _agreement(sample, mark))


def _agreement(sample: str, mark: str) -> tuple[float, int]:
    widths = Counter(len(row) for row in _read(sample, mark, csv.QUOTE_MINIMAL) if row)
    width, count = max(
        widths.items(),
        key=lambda item: (item[0] > 1, item[1] * (item[0] > 1), item[0]),
        default=(1, 0),
    )
    return (count / max(1, sum(widths.values())), width) if width > 1 else (0.0, 0)


def _parts(rows: Sequence[list[str]]) -> tuple[Sequence[list[str]], list[str], Sequence[list[str]]]:
    """The lines above the table, its header (empty where it has none) and its rows."""
    filled = sorted(sum(map(bool, row)) for row in rows[:SAMPLE])
    usual = filled[len(filled) // 2] if filled else 0
    first = next((n for n, row in enumerate(rows) if sum(map(bool, row)) >= max(2, 0.7 * usual)), 0)
    if usual < 2:
        first = 0
    if len(rows) > first and _is_header(rows[first], rows[first + 1 : SAMPLE]):
        return rows[:first], rows[first], rows[first + 1 :]
    return rows[:first], [], rows[first:]


def _is_header(row: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """True for a row of column names.

    These are no numbers except years and no addresses; each occurs once, and none occurs below.
    """
    named = [cell for cell in row if cell]
    values = [cell for cell in named if NUMBER.fullmatch(cell)]
    years = [cell for cell in values if YEAR.fullmatch(cell)]
    if not below or not named or any(ADDRESS.match(cell) for cell in named):
        return False
    if len(set(named)) < len(named) and not any(
        _is_number_column(below, n) for n, cell in enumerate(row) if cell
    ):
        return False
    if len(values) > len(years) or (years and len(years) < 2 and len(named) > 1):
        return False
    again = sum(cell in {r[n] for r in below if n < len(r)} for n, cell in enumerate(row) if cell)
    return again * 2 < len(named)


def _is_number_column(below: Sequence[Sequence[str]], at: int) -> bool:
    cells = [row[at] for row in below if at < len(row) and row[at]]
    return bool(cells) and all(NUMBER.fullmatch(cell) for cell in cells)


def _names(header: Sequence[str], width: int) -> list[str]:
    """A name for each of `width` cells; empty where the table has none."""
    names = [*header[:width], *[""] * (width - len(header))]
    if not header:
        return names
    return [name or f"column {n}" for n, name in enumerate(names, 1)]


# --- json


def _parsed(text: str) -> Value:
    """A json value that keeps numbers as they are written.

    Names that repeat keep all their values.
    """

    def merged(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
        values: dict[str, list[Value]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        return {name: found[0] if len(found) == 1 else found for name, found in values.items()}

    value: Value = json.loads(
        text, object_pairs_hook=merged, parse_float=str, parse_int=str, parse_constant=str
    )
    return value


def _lines_of(value: Value, path: str = "") -> Iterator[str]:
    """The lines of a value: its plain fields, then its tables, each below a line with its path."""
    if _is_table(value):
        if path:
            yield from ("", f"# {path}", "")
        yield from _table(value)
    elif isinstance(value, dict):
        tables = {
            name: v
            for name, v in value.items()
            if isinstance(v, dict | list) and not _is_plain_list(v)
        }
        for name, field in value.items():
            if name not in tables and (shown := _plain(field)):
                yield f"{_below(path, name)}: {shown}"
        for name, field in tables.items():
            yield from _lines_of(field, _below(path, name))
    elif isinstance(value, list) and not _is_plain_list(value):
        for item in value:
            yield from _lines_of(item, path) if isinstance(item, list) else [record(_flat(item))]
    elif shown := _plain(value):
        yield f"{path}: {shown}" if path else shown


def _is_table(value: Value) -> bool:
    """True for a list of objects, and for an object of two or more objects with like fields."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) for item in value)
    if (
        not isinstance(value, dict)
        or len(value) < 2
        or not all(isinstance(v, dict) and v for v in value.values())
    ):
        return False
    names = [set(v) for v in value.values() if isinstance(v, dict)]
    return len(set.intersection(*names)) * 2 >= len(set.union(*names))


def _table(value: Value) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield record([("", name), *_flat(item)])
    elif isinstance(value, list):
        for item in value:
            yield record(_flat(item))


def _flat(value: Value, path: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a value with their paths; objects within lists in brackets."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, _below(path, name))
    elif isinstance(value, list) and not _is_plain_list(value):
        inner = [", ".join(f"{n}: {v}" if n else v for n, v in _flat(item) if v) for item in value]
        yield path, ", ".join(f"({item})" for item in inner if item)
    else:
        yield path, _plain(value)


def _is_plain_list(value: Value) -> bool:
    return isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)


def _plain(value: Value) -> str:
    """A value without parts, or a list of such, in one line."""
    if isinstance(value, list):
        return ", ".join(shown for item in value if (shown := _plain(item)))
    if isinstance(value, bool):
        return "true" if value else "false"
    return _clean(value) if isinstance(value, str) else ""


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
