"""Formats of lines: settings, code, logs, subtitles, rows and records. Knows no budget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from cmt_sdk.text.splitting.elements import Block, Heading, Kind, Rank
from cmt_sdk.text.splitting.plain import Line, lines_of

SECTION = re.compile(r"(\[{1,2})[ \t]*([^\[\]\r\n]+?)[ \t]*\]{1,2}[ \t]*(?:[#;].*)?$")
COMMENT = re.compile(r"\s*(?:#|//|--|;|%|\"\"\"|/?\*|<!--|REM\b|@)")
CLOSING = re.compile(r"\s*(?:[\])}>]|end\b|fi\b|done\b|esac\b|else\b|</)")
STAMP = re.compile(
    r"\W{0,3}(?:[A-Z]{1,8}\W{1,3})?(?:\w{3}[ ,]+)?"
    r"(?:\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d\d(?:\d\d)?|\w{3}"
    r" +\d\d?|\d\d?:\d\d|\d{9,13}\b|<\d{1,3}>)"
)
RECORD = re.compile(r"- \S")
TITLE = re.compile(r"(#{1,6}) (\S.*)$")
MAX_ROW_LINES = 200  # of a row whose quotation mark is not closed
ESTIMATE = 500  # lines that decide whether every entry begins with a time


def read_settings(text: str) -> Iterator[Heading | Block]:
    """Settings in sections, as ini and toml have them; a comment is text."""
    for line in lines_of(text):
        found = SECTION.match(line.text)
        if found:
            yield Heading(line.start, line.end, 1, found[2])


def read_nested(text: str) -> Iterator[Heading | Block]:
    """Lines under the less indented lines above them: yaml, json and code. No headings."""
    above: list[tuple[int, str]] = []
    previous: Line | None = None
    for line in lines_of(text):
        if not line.blank:
            # in yaml as much as two columns of indentation
            is_step = line.text.lstrip().startswith("- ")
            above = [(indent, name) for indent, name in above if indent < line.indent]
            parents = tuple(name for _, name in above if name)
            yield Block(line.start, line.end, Kind.LINES, _rank(line, previous), 1.0, parents)
            is_comment = bool(COMMENT.match(line.text) or CLOSING.match(line.text))
            above.append((line.indent + is_step, "" if is_comment else _name(line)))
        previous = line


def _name(line: Line) -> str:
    return line.text.strip().removeprefix("- ").rstrip("{[(: \t").strip("\"'")


def _rank(line: Line, previous: Line | None) -> Rank:
    """How well the place before this line suits a split.

    It does badly behind a comment and before a closing bracket.
    """
    if (
        previous
        and not previous.blank
        and (COMMENT.match(previous.text) or CLOSING.match(line.text))
    ):
        return Rank.CLAUSE
    # the line above names the lines after it
    if previous and not previous.blank and previous.indent < line.indent:
        return Rank.CLAUSE
    if previous and previous.blank:
        return Rank.ITEM if line.indent else Rank.PARAGRAPH
    return Rank.NESTED if line.indent else Rank.ITEM


def read_log(text: str) -> Iterator[Heading | Block]:
    """A log: an entry is a line with its continuation, such as a stack trace. No headings."""
    lines = lines_of(text)
    sample = [line for line in lines[:ESTIMATE] if not line.blank]
    stamped = sum(bool(STAMP.match(line.text)) for line in sample)
    by_stamp = stamped >= 2 and stamped * 20 >= len(sample)
    starts = [
        n
        for n, line in enumerate(lines)
        if not line.blank and _begins_entry(line, by_stamp=by_stamp)
    ]
    yield from _records(lines, starts, Kind.LINES)


def _begins_entry(line: Line, *, by_stamp: bool) -> bool:
    return bool(STAMP.match(line.text)) if by_stamp else not line.indent


def read_cues(text: str) -> Iterator[Heading | Block]:
    """Subtitles: a cue with its times and words is one block. No headings."""
    lines = lines_of(text)
    starts = [
        n for n, line in enumerate(lines) if not line.blank and (n == 0 or lines[n - 1].blank)
    ]
    yield from _records(lines, starts, Kind.LINES)


def read_rows(text: str) -> Iterator[Heading | Block]:
    """Rows and records: a converter's records ("- name: ..." below "# title"), else csv rows.

    A row whose quoted cells span several lines is one block; the first row is the header of the
    others.
    """
    lines = lines_of(text)
    first = next((line.text.lstrip() for line in lines if not line.blank), "")
    if any(RECORD.match(line.text) for line in lines[:ESTIMATE]):
        yield from read_written(text)
    elif first.startswith(("{", "[")):
        is_json_lines = (
            sum(line.text.startswith("{") and line.text.endswith("}") for line in lines) > 1
        )
        yield from (
            _records(lines, range(len(lines)), Kind.RECORD) if is_json_lines else read_nested(text)
        )
    else:
        yield from _records(lines, _row_starts(lines), Kind.RECORD, header=first.strip())


def read_written(text: str) -> Iterator[Heading | Block]:
    """Records as converters write them: each is a line, below the "# title" of its table."""
    for line in lines_of(text):
        title = TITLE.match(line.text)
        if title:
            yield Heading(line.start, line.end, len(title[1]), title[2].strip())
        elif not line.blank:
            label = re.split(r";\s", line.text.removeprefix("- "), maxsplit=1)[0]
            yield Block(line.start, line.end, Kind.RECORD, Rank.ITEM, 1.0, label=label)


def _row_starts(lines: Sequence[Line]) -> list[int]:
    """The indexes of the lines with which rows begin, outside quotation marks."""
    starts = []
    at = 0
    while at < len(lines):
        starts.append(at)
        stop = at + 1
        open_marks = lines[at].text.count('"') % 2
        while open_marks and stop < min(len(lines), at + MAX_ROW_LINES):
            open_marks = (open_marks + lines[stop].text.count('"')) % 2
            stop += 1
        at = at + 1 if open_marks else stop  # an unclosed mark is a plain character
    return starts


def _records(
    lines: Sequence[Line], starts: Sequence[int], kind: Kind, *, header: str = ""
) -> Iterator[Block]:
    """A block for each of these lines with the lines up to the next.

    `header` stands above all but the first.
    """
    previous_blank = True
    for n, (at, stop) in enumerate(pairwise([*starts, len(lines)])):
        rank = Rank.PARAGRAPH if previous_blank else Rank.ITEM
        label = lines[at].text.strip() if kind is Kind.LINES else ""
        yield Block(
            lines[at].start, lines[stop - 1].end, kind, rank, 1.0, (), header if n else "", label
        )
        previous_blank = lines[stop - 1].blank
