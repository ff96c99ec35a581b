"""Tables drawn with characters: rows between "|", reStructuredText's grids and columns.

Knows no budget.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, pairwise
from typing import Protocol

from cmt_sdk.text.splitting.elements import Block, Kind, Rank


class Row(Protocol):
    """A line of a text."""

    @property
    def start(self) -> int: ...  # noqa: D102
    @property
    def end(self) -> int: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102


PIPES = re.compile(r"[ \t]*\|.*\|?[ \t]*$")
RULE = re.compile(r"[ \t]*[|+]?[ \t]*:?[-=]+:?[ \t]*(?:[|+][ \t]*:?[-=]+:?[ \t]*)*[|+]?[ \t]*$")
GRID = re.compile(r"[ \t]*\+(?:[-=]+\+)+[ \t]*$")
HEADER_RULE = re.compile(r"[ \t]*\+(?:=+\+)+[ \t]*$")
TABULAR_END = re.compile(r"\\\\(?:\[[^\]]*\])?[ \t]*(?:\\\w+(?:\{[^}]*\})?)*$")
TABULAR_RULE = re.compile(r"[ \t]*\\(?:[a-z]*line|[a-z]+rule)\b")
MAX_TABLE_LINES = 1000  # searched for the end of a table of columns
COLUMNS = re.compile(r"[ \t]*=+(?:[ \t]+=+)+[ \t]*$")


def table_at(lines: Sequence[Row], at: int) -> tuple[list[Block], int] | None:
    """The rows of the table that begins at this line, and the line behind it; None without one."""
    line = lines[at].text
    if GRID.match(line):
        stop = _while(lines, at, re.compile(r"[ \t]*[|+]"))
        return _rows(lines, at, stop, separated=True), stop
    if COLUMNS.match(line):
        near = range(at, min(len(lines), at + MAX_TABLE_LINES))
        rules = list(islice((n for n in near if COLUMNS.match(lines[n].text)), 3))
        if len(rules) > 1:
            stop = (rules[2] if len(rules) > 2 and _is_near(lines, rules) else rules[1]) + 1
            return _rows(lines, at, stop, separated=False), stop
    if PIPES.match(line) and line.count("|") > 1:
        stop = _while(lines, at, PIPES)
        return _rows(lines, at, stop, separated=False), stop
    if "&" in line and _is_tabular(line):
        stop = next(
            (n for n in range(at, len(lines)) if not _is_tabular(lines[n].text)), len(lines)
        )
        return _rows(lines, at, stop, separated=False), stop
    return None


def _is_near(lines: Sequence[Row], rules: Sequence[int]) -> bool:
    """True where the third rule belongs to the same table: the second is right below a header."""
    return not any(not lines[n].text.strip() for n in range(rules[0], rules[1] + 1))


def _while(lines: Sequence[Row], at: int, pattern: re.Pattern[str]) -> int:
    return next((n for n in range(at, len(lines)) if not pattern.match(lines[n].text)), len(lines))


def _rows(lines: Sequence[Row], at: int, stop: int, *, separated: bool) -> list[Block]:
    """The header with its rules as one block, then the rows.

    With `separated` a row may have several lines.
    """
    rules = [n for n in range(at, stop) if _is_rule(lines[n].text)]
    drawn = frozenset(rules)
    heads = [n for n in rules if not separated or HEADER_RULE.match(lines[n].text)]
    first = at + 1 if at in drawn else at
    below = next((n for n in heads if n > first), None)
    has_header = below is not None and (separated or below == first + 1 or at in drawn)
    if not has_header or below is None:
        header = ""
        body = at
    else:
        header = " ".join(lines[n].text.strip() for n in range(first, below))
        body = below + 1
    starts = [
        n
        for n in range(body, stop)
        if n not in drawn and (not separated or n - 1 in drawn or n == body)
    ]
    found = [Block(lines[at].start, lines[body - 1].end, Kind.LINES, keep=1.0)] if body > at else []
    for n, after in pairwise([*starts, stop]):
        rank = Rank.CLAUSE if found and n == body else Rank.ITEM
        start = lines[at].start if not found else lines[n].start
        found.append(
            Block(
                start,
                lines[after - 1].end,
                Kind.RECORD,
                rank if found else Rank.PARAGRAPH,
                1.0,
                (),
                header,
            )
        )
    return found or [Block(lines[at].start, lines[stop - 1].end, Kind.LINES, keep=1.0)]


def _is_tabular(line: str) -> bool:
    """True for a row or a rule of a table in LaTeX."""
    return bool(TABULAR_RULE.match(line)) or (
        "&" in line and bool(TABULAR_END.search(line.rstrip()[-80:]))
    )


def _is_rule(line: str) -> bool:
    return bool(RULE.match(line) or COLUMNS.match(line) or TABULAR_RULE.match(line))
