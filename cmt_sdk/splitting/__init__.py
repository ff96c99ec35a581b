"""Text to passages: cut at headings, paragraphs and sentences within a token budget. Pure: knows no tokenizer.

The text is first cut into atoms (sentences, list items, table rows, code blocks), all of them counted at once; atoms of one
section are then joined to passages of even length. A passage never crosses a heading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cmt_sdk.types import Span

Counter = Callable[[Sequence[str]], list[int]]

HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S.*)")
CLOSING_HASHES = re.compile(r"(?<=[ \t])#+$")
FENCE = re.compile(r"^ {0,3}(```|~~~)")
ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|approx|No|Fig|Vol|pp|Inc|Ltd|Co|Gen|Col|Lt|Sgt|Rev|Hon|e\.g|i\.e|cf|ca"
    r"|al|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)|\b[A-Z](?:\.[A-Z])*)\.$"
)
LONGEST_ABBREVIATION = len("approx.")
SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*(?=\s)|[。！？]+[」』”’]*")
LONGEST_HEADING = 20


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Section:
    heading: str
    atoms: list[_Piece]
    lines: list[_Piece]  # where the last parts of `heading` stand


def split(text: str, count_tokens: Counter, budget: int, *, title: str = "") -> list[Span]:
    """Spans of `text`, in order, none overlapping, each at most `budget` tokens long under its heading.

    `title` stands first in the heading of every span.

    Every character that is not white space lies in a span, except heading lines, which become the `heading` of the
    spans below them (one with nothing below, or too long for that, is text). Sizes are those of `count_tokens`.
    """
    sections = list(_sections(text))
    if title:
        sections = [replace(s, heading=_below(title, s.heading)) for s in sections]
    spans: list[Span] = []
    headings = count_tokens([s.heading for s in sections]) if sections else []
    for section, cost in zip(sections, headings, strict=True):
        heading, used = (section.heading, cost + 1) if 0 < cost <= min(LONGEST_HEADING, budget // 4) else ("", 0)
        if section.heading and not heading:
            heading, used = _shortened(section.heading, count_tokens, min(LONGEST_HEADING, budget // 4))
        said = {section.heading: len(section.lines), "": 0}.get(heading, 1)
        unsaid = section.lines[: len(section.lines) - said]
        spans += _filled(text, unsaid + section.atoms, heading, count_tokens, budget - used)
    return spans


def _below(title: str, heading: str) -> str:
    """The path of headings with the document's title at its top, where it does not stand there already."""
    if heading == title or heading.startswith(f"{title} > "):
        return heading
    return f"{title} > {heading}" if heading else title


def _shortened(heading: str, count_tokens: Counter, limit: int) -> tuple[str, int]:
    """The last parts of a heading's path that fit; nothing when not even the last does."""
    parts = heading.split(" > ")
    for first in range(1, len(parts)):
        rest = " > ".join(parts[first:])
        cost = count_tokens([rest])[0]
        if cost <= limit:
            return rest, cost + 1
    return "", 0


def _sections(text: str) -> Iterator[_Section]:
    path: list[tuple[int, str]] = []
    lines: list[_Piece] = []
    atoms: list[_Piece] = []
    for block, level in _blocks(text):
        if level is None:
            atoms += _sentences(text, block)
            continue
        if atoms or not (path and path[-1][0] < level):  # right below a higher one, it takes that one's line along
            yield from _section(path, lines, atoms)
            lines, atoms = [], []
        path = [(n, t) for n, t in path if n < level] + [(level, _title(text[block.start : block.end]))]
        lines = [*lines, _trimmed(text, block.start, block.end)]
    yield from _section(path, lines, atoms)


def _section(path: Sequence[tuple[int, str]], lines: list[_Piece], atoms: list[_Piece]) -> Iterator[_Section]:
    if atoms:
        yield _Section(" > ".join(t for _, t in path), atoms, lines)
    elif lines:
        yield _Section(" > ".join(t for _, t in path[:-1]), lines[-1:], lines[:-1])


def _title(heading: str) -> str:
    found = HEADING.match(heading)
    return CLOSING_HASHES.sub("", found[2].rstrip()).rstrip() if found else heading.split("\n")[0].strip()


def _blocks(text: str) -> Iterator[tuple[_Piece, int | None]]:
    """Paragraphs, code blocks (whole) and headings (with their level), in order."""
    lines = [m.span() for m in re.finditer(r"[^\n]+", text) if m[0].strip()]
    start: int | None = None
    end, fence = 0, ""
    for a, b in lines:
        line = text[a:b]
        blank_before = start is not None and "\n" in text[end:a].strip(" \t").replace("\n", "", 1)
        found = FENCE.match(line)
        if fence:
            end = b
            if found and found.group(1) == fence:
                yield _Piece(start or 0, end), None
                start, fence = None, ""
            continue
        heading = HEADING.match(line)
        if start is not None and (blank_before or heading or found):
            yield _Piece(start, end), None
            start = None
        if heading:
            yield _Piece(a, b), len(heading.group(1))
        elif _underline(line) and start is not None and text.find("\n", start, end) < 0 and a == end + 1:
            yield _Piece(start, b), _underline(line)
            start = None
        else:
            start, end = (a if start is None else start), b
            fence = found.group(1) if found else ""
    if start is not None:
        yield _Piece(start, end), None


def _underline(line: str) -> int | None:
    """The level of a heading underlined like this, or None."""
    stripped = line.strip()
    if len(stripped) >= 3 and set(stripped) <= {"="}:
        return 1
    return 2 if len(stripped) >= 3 and set(stripped) <= {"-"} else None


def _sentences(text: str, block: _Piece) -> list[_Piece]:
    """Sentences of a paragraph; lines of lists and tables one by one; a code block whole."""
    body = text[block.start : block.end]
    if FENCE.match(body):
        return [_trimmed(text, block.start, block.end)]
    pieces = []
    for line in _lines(body):
        start = line.start
        for found in SENTENCE_END.finditer(body, line.start, line.end):
            tail = max(start, found.end() - LONGEST_ABBREVIATION - 1)  # to search all of it would take quadratic time
            if found.end() < line.end and not ABBREVIATION.search(body, tail, found.end()):
                pieces.append(_Piece(start, found.end()))
                start = found.end()
        pieces.append(_Piece(start, line.end))
    trimmed = (_trimmed(text, block.start + p.start, block.start + p.end) for p in pieces)
    return [p for p in trimmed if p.end > p.start]


def _lines(body: str) -> Iterator[_Piece]:
    """Runs of a paragraph's lines: a list item or a table row begins a new one."""
    start = 0
    for found in re.finditer(r"\n(?=\s*(?:[-*+•]\s|\d{1,3}[.)]\s|\|))", body):
        yield _Piece(start, found.start())
        start = found.end()
    yield _Piece(start, len(body))


def _trimmed(text: str, start: int, end: int) -> _Piece:
    body = text[start:end]
    return _Piece(start + len(body) - len(body.lstrip()), end - len(body) + len(body.rstrip()))


def _filled(text: str, atoms: Sequence[_Piece], heading: str, count_tokens: Counter, room: int) -> Iterator[Span]:
    """Atoms of one section joined to passages of about even length, each of them counted."""
    costs = count_tokens([text[a.start : a.end] for a in atoms])
    small: list[tuple[_Piece, int]] = []
    for atom, cost in zip(atoms, costs, strict=True):
        small += [(atom, cost)] if cost <= room else _cut(text, atom, cost, count_tokens, room)
    passages = -(-sum(c for _, c in small) // room)
    aim = sum(c for _, c in small) / max(1, passages)
    groups: list[list[tuple[_Piece, int]]] = []
    total = 0
    for piece, cost in small:
        if not groups or total + cost > room or total >= aim:
            groups.append([])
            total = 0
        groups[-1].append((piece, cost))
        total += cost
    for group in groups:
        yield from _counted(text, group, heading, count_tokens, room)


def _counted(text: str, group: Sequence[tuple[_Piece, int]], heading: str, count_tokens: Counter, room: int) -> Iterator[Span]:
    """The group as one span, or in halves where its parts together count more than apart."""
    start, end = group[0][0].start, group[-1][0].end
    (cost,) = count_tokens([text[start:end]])
    if cost <= room or len(group) == 1:
        whole = cost if not heading else cost + count_tokens([heading])[0] + 1
        yield Span(start, end, whole, heading)
        return
    middle = len(group) // 2
    yield from _counted(text, group[:middle], heading, count_tokens, room)
    yield from _counted(text, group[middle:], heading, count_tokens, room)


def _cut(text: str, atom: _Piece, cost: int, count_tokens: Counter, room: int) -> list[tuple[_Piece, int]]:
    """A sentence over the budget in pieces: at white space near its equal parts, else anywhere."""
    if cost <= room or atom.end - atom.start < 2:
        return [(atom, cost)]
    middle = (atom.start + atom.end) // 2
    gaps = [m.end() for m in re.finditer(r"\s+", text[atom.start : atom.end])]
    inside = [atom.start + g for g in gaps if 0 < g < atom.end - atom.start]
    at = min(inside, key=lambda g: abs(g - middle)) if inside else middle
    halves = [_trimmed(text, atom.start, at), _trimmed(text, at, atom.end)]
    counts = count_tokens([text[h.start : h.end] for h in halves])
    return [piece for half, n in zip(halves, counts, strict=True) for piece in _cut(text, half, n, count_tokens, room)]
