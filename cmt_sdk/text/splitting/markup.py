"""Other markup languages: reStructuredText, AsciiDoc, Org, LaTeX, MediaWiki, Typst.

The rules of each find headings, and verbatim parts, which have no headings; the text between is
plain text. Knows no budget.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cmt_sdk.text.splitting.elements import Block, Heading, Kind, Rank
from cmt_sdk.text.splitting.plain import Line, body, lines_of, underline_of, width_of

Found = tuple[int, str]  # level and title of a heading


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of headings and verbatim parts in a markup language.

    `heading` gives level and title of a line, or None. `verbatim` are pairs of patterns: of a line
    that opens a part without headings, and of the line that closes it ("=": the same line).
    """

    heading: Callable[[str], Found | None]
    verbatim: Sequence[tuple[re.Pattern[str], str]]


def _equals(line: str) -> Found | None:
    found = re.match(r"(={1,6}|#{1,6})[ \t]+(\S.*?)(?:[ \t]+\1)?[ \t]*$", line)
    return (len(found[1]), found[2]) if found else None


def _wiki(line: str) -> Found | None:
    found = re.match(r"(={1,6})[ \t]*(?!=)(\S.*?)[ \t]*\1[ \t]*$", line)
    return (len(found[1]), found[2]) if found else None


def _typst(line: str) -> Found | None:
    found = re.match(r"[ \t]*(={1,6})[ \t]+(\S.*)$", line)
    return (len(found[1]), found[2].strip()) if found else None


def _stars(line: str) -> Found | None:
    title = re.match(r"#\+title:[ \t]*(\S.*)$", line, re.IGNORECASE)
    if title:
        return 0, title[1].strip()
    found = re.match(r"(\*+)[ \t]+(\S.*)$", line)
    return (len(found[1]), found[2].strip()) if found else None


ASCIIDOC = Marks(
    _equals,
    [(re.compile(r"(-{4,}|\.{4,}|\+{4,}|/{4,}|={4,}|\*{4,}|_{4,}|--|\|={3,}|`{3,}).*$"), "=")],
)
WIKI = Marks(
    _wiki,
    [(re.compile(r".*<(nowiki|pre|syntaxhighlight|source)\b(?!.*</\1)", re.IGNORECASE), r".*</")],
)
ORG = Marks(_stars, [(re.compile(r"[ \t]*#\+begin_(\w+)", re.IGNORECASE), r"(?i)[ \t]*#\+end_")])
TYPST = Marks(
    _typst,
    [
        (re.compile(r"[ \t]*`{3,}"), r"[ \t]*`{3,}[ \t]*$"),
        (re.compile(r"[ \t]*/\*(?!.*\*/)"), r".*\*/"),
    ],
)


def by_marks(marks: Marks) -> Callable[[str], Iterator[Heading | Block]]:
    """The rules of a language whose headings are single lines."""

    def read(text: str) -> Iterator[Heading | Block]:
        start = at = 0
        lines = lines_of(text)
        unclosed: set[str] = set()
        while at < len(lines):
            line = lines[at]
            stop = _verbatim_end(lines, at, marks, unclosed)
            found = marks.heading(line.text)
            if stop:
                yield from body(text, start, line.start)
                yield from _verbatim(lines[at:stop])
                start = lines[stop - 1].end
                at = stop
                continue
            if found:
                yield from body(text, start, line.start)
                yield Heading(line.start, line.end, *found)
                start = line.end
            at += 1
        yield from body(text, start, len(text))

    return read


def _verbatim(lines: Sequence[Line]) -> Iterator[Block]:
    """A verbatim part as one block; a table of AsciiDoc by its rows.

    The rows stand below the header row where a blank line follows it.
    """
    whole = Block(lines[0].start, lines[-1].end, Kind.CODE, keep=1.0)
    if not lines[0].text.startswith("|===") or len(lines) < 5 or not lines[2].blank:
        yield whole
        return
    inner = range(3, len(lines) - 1)
    # each cell in a line of its own, and a blank line between the rows
    is_grouped = any(lines[n].blank for n in inner)
    starts = [
        n for n in inner if not lines[n].blank and (not is_grouped or n == 3 or lines[n - 1].blank)
    ]
    yield Block(lines[0].start, lines[2].end, Kind.LINES, keep=1.0)
    for n, after in pairwise([*starts, len(lines)]):
        rank = Rank.CLAUSE if n == starts[0] else Rank.ITEM
        yield Block(
            lines[n].start, lines[after - 1].end, Kind.RECORD, rank, 1.0, (), lines[1].text.strip()
        )


def _verbatim_end(lines: Sequence[Line], at: int, marks: Marks, unclosed: set[str]) -> int:
    """The line behind the verbatim part that this line opens.

    0 where it opens none, or one that is never closed.
    """
    for opening, closing in marks.verbatim:
        found = opening.match(lines[at].text)
        if not found or (
            closing == "=" and found[1] != lines[at].text.rstrip() and found[1][0] != "`"
        ):
            continue
        wanted = found[1].rstrip() if closing == "=" else closing
        if wanted in unclosed:
            continue
        for n in range(at + 1, len(lines)):
            if (
                lines[n].text.rstrip() == wanted
                if closing == "="
                else re.match(closing, lines[n].text)
            ):
                return n + 1
        unclosed.add(wanted)
    return 0


def read_rst(text: str) -> Iterator[Heading | Block]:
    """reStructuredText: titles with a line of one mark below, or above and below.

    Levels follow the order in which marks appear.
    """
    lines = lines_of(text)
    styles: list[tuple[str, bool]] = []
    start = 0
    at = 0
    while at < len(lines):
        over = (
            bool(underline_of(lines[at]))
            and _is_title(lines, at + 1)
            and underline_of(lines[at]) == _mark(lines, at + 2)
        )
        first = at
        last = at + 2 if over else at + 1
        title = lines[at + 1] if over else lines[at]
        mark = _mark(lines, last)
        above_free = first == 0 or lines[first - 1].blank or lines[first - 1].start < start
        if not (
            mark
            and above_free
            and (over or _is_title(lines, at))
            and _is_long_enough(lines[last], title)
        ):
            at += 1
            continue
        if not over and title.indent:
            at += 1
            continue
        styles += [] if (mark, over) in styles else [(mark, over)]
        yield from body(text, start, lines[first].start)
        yield Heading(
            lines[first].start, lines[last].end, styles.index((mark, over)) + 1, title.text.strip()
        )
        start = lines[last].end
        at = last + 1
    yield from body(text, start, len(text))


def _mark(lines: Sequence[Line], at: int) -> str:
    return underline_of(lines[at]) if at < len(lines) and not lines[at].indent else ""


def _is_title(lines: Sequence[Line], at: int) -> bool:
    return at < len(lines) and not lines[at].blank and not underline_of(lines[at])


def _is_long_enough(underline: Line, title: Line) -> bool:
    """True for a line as long as its title, or of four marks or more, as in docutils."""
    length = len(underline.text.strip())
    return length >= min(4, width_of(title.text.strip()))


SECTION = re.compile(
    r"\\(?P<name>part|chapter|(?:sub){0,2}section|(?:sub)?paragraph|title|frametitle)"
    r"\*?[ \t]*(?:\[[^\]]*\])?\s*\{"
)
LEVELS = {
    "title": 0,
    "part": 1,
    "chapter": 2,
    "section": 3,
    "subsection": 4,
    "subsubsection": 5,
    "frametitle": 5,
}
LEVELS |= {"paragraph": 6, "subparagraph": 7}
HIDDEN = re.compile(
    r"(?<!\\)%[^\n]*|\\begin\{(verbatim\*?|Verbatim|lstlisting|minted|comment)\}.*?\\end\{\1\}",
    re.DOTALL,
)
COMMAND = re.compile(r"\\[a-zA-Z]+\*?(?:\[[^\]]*\])?|[{}]")
MAX_TITLE_CHARACTERS = 1000


def read_latex(text: str) -> Iterator[Heading | Block]:
    """LaTeX: sections by their commands, none in comments and verbatim parts."""
    hidden = [m.span() for m in HIDDEN.finditer(text)]
    start = n = 0
    for found in SECTION.finditer(text):
        while n < len(hidden) and hidden[n][1] <= found.start():
            n += 1
        is_hidden = n < len(hidden) and hidden[n][0] <= found.start()
        end = _closing_brace(text, found.end())
        if is_hidden or not end or found.start() < start:
            continue
        title = " ".join(COMMAND.sub(" ", text[found.end() : end - 1]).split())
        if not title:
            continue
        yield from body(text, start, found.start())
        yield Heading(found.start(), end, LEVELS[found["name"]], title)
        start = end
    yield from body(text, start, len(text))


def _closing_brace(text: str, start: int) -> int:
    """The position behind the brace that closes the one before `start`; 0 where none does."""
    depth = 1
    for found in re.compile(r"(?<!\\)[{}]").finditer(text, start, start + MAX_TITLE_CHARACTERS):
        depth += 1 if found[0] == "{" else -1
        if not depth:
            return found.end()
    return 0
