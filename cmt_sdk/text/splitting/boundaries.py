"""Places at which a text may be split, by kind. Knows no format, no token and no budget."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import regex

from cmt_sdk.text.splitting.elements import Kind, Rank

ABBREVIATION = regex.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|approx|No|Fig|Vol|pp|Inc|Ltd|Co|Gen|Col|Lt|Sgt|Rev|Hon|e\.g|i\.e|cf|ca"
    r"|al|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)|\b\p{L}(?:\.\p{L})*|(?<![\w.,:])\d{1,2})\.$"
)
MAX_ABBREVIATION = len("approx.")
SENTENCE_END = regex.compile(
    r"(?V1)(?<![.!?…])[.!?…]++[\"'\p{Pe}\p{Pf}]*+(?=\s)|[\p{Sentence_Terminal}--[.!?]]++[\"'\p{Pe}\p{Pf}]*+"
)
CLAUSE_END = regex.compile(
    r",(?=\s)(?!(?<=\d,)\s+\d)|[;:)\]}](?=\s)|(?<!\d)[,;}](?=[^\s\d,;}\])])|[，、"
    r"；：）】」』》](?!\d)|(?<=\s)[–—](?=\s)"
)
SPACES = regex.compile(
    r"(?<=[^\s\d+\p{Sc}])(?<!\b\d{1,2}\.)[^\S\u00a0\u202f]++(?!\p{Sc}?[+(-]?\d)|(?<=\d\s?\p{Sc})[^\S\u00a0\u202f]++(?!\d)"
)
NEAR_NUMBER = regex.compile(
    r"(?<=[^\s\d+(\p{Sc}])[^\S\u00a0\u202f]++(?=\p{Sc}?[+(-]?\d)|(?<=\d\.?)[^\S\u00a0\u202f]++(?!\d)"
)
JOINTS = regex.compile(
    r"(?V1)[\p{P}\p{S}--[#@]](?=[\p{L}\p{N}])(?!(?<=\d.)\d)|(?<=\p{Ll})(?=\p{Lu})"
)
WHITE = regex.compile(r"\s+")
BLANK_LINE = regex.compile(r"\n[^\S\n]*\n\s*")
LINE_END = regex.compile(r"\n\s*")
# flags are pairs of letters: \X looks back over all of them
GRAPHEME = regex.compile(r"\p{RI}{2}[\p{Grapheme_Extend}\u200d]*+|\X")
FIELD = regex.compile(
    r";[ \t]+(?=[^;]{1,80}?:[ \t])|;[ \t]+|,[ \t]*(?=\")|\t|(?<=\S)[ \t]*\|[ \t]*(?=\S)"
)
MIN_WRAP = 45  # characters of the longest line of wrapped prose
NEIGHBOURHOOD = 8  # characters on each side that decide whether a word is split there
ONE_IN = 16  # one in this number of graphemes ends where a word may be split

Finder = Callable[[str], Iterator[int]]


def ladder(text: str, kind: Kind) -> list[tuple[Rank, Finder]]:
    """The kinds of places at which to split this block, best first."""
    within: list[tuple[Rank, Finder]] = [
        (Rank.SENTENCE, sentence_ends),
        (Rank.CLAUSE, _ends(CLAUSE_END)),
        (Rank.SPACE, _ends(SPACES)),
        (Rank.NUMBER, _ends(NEAR_NUMBER)),
        (Rank.DIGITS, _ends(WHITE)),
        (Rank.JOINT, _ends(JOINTS)),
        (Rank.GRAPHEME, _chosen_graphemes),
        (Rank.GRAPHEME, _middle_grapheme),
        (Rank.LETTER, _middle),
    ]
    if kind is Kind.RECORD:
        return [(Rank.CLAUSE, _ends(FIELD)), *within]
    if kind is Kind.TEXT and is_wrapped(text):
        return within
    lines: list[tuple[Rank, Finder]] = [(Rank.ITEM, _entries), (Rank.NESTED, _ends(LINE_END))]
    return [
        (Rank.PARAGRAPH if kind is Kind.TEXT else Rank.ITEM, _ends(BLANK_LINE)),
        *lines,
        *within,
    ]


def is_wrapped(text: str) -> bool:
    """True for prose that a program wrapped, so that a line's end has no meaning.

    In such a paragraph the first word of a line would not have fitted on the line before, and many
    lines begin with a small letter.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return False
    width = max(map(len, lines))
    if width < MIN_WRAP:
        return False
    pairs = list(pairwise(lines))
    full = sum(len(line) + 1 + len(after.split(maxsplit=1)[0]) > width - 6 for line, after in pairs)
    small = sum(after[0].islower() for _, after in pairs)
    # the same name begins each line: a dialogue or a list
    if len({line.split(maxsplit=1)[0] for line in lines}) * 2 < len(lines):
        return False
    return full >= 0.8 * len(pairs) and small >= 0.34 * len(pairs)


def sentence_ends(body: str) -> Iterator[int]:
    """The ends of sentences, as positions in `body`.

    A point behind an abbreviation, an initial or a day ("3. Mai") ends none.
    """
    for found in SENTENCE_END.finditer(body):
        # a search of the full text would take quadratic time
        tail = max(0, found.end() - MAX_ABBREVIATION - 1)
        if found.end() < len(body) and not ABBREVIATION.search(body, tail, found.end()):
            yield found.end()


def _ends(pattern: regex.Pattern[str]) -> Finder:
    def places(body: str) -> Iterator[int]:
        return (m.end() for m in pattern.finditer(body) if 0 < m.end() < len(body))

    return places


def _entries(body: str) -> Iterator[int]:
    """The beginnings of lines that are not indented further than the first.

    Further indented lines continue the line above.
    """
    for found in LINE_END.finditer(body):
        indent = found.end() - 1 - body.rfind("\n", 0, found.end())
        if indent == 0 and found.end() < len(body):
            yield found.end()


def _chosen_graphemes(body: str) -> Iterator[int]:
    """Some of the places between graphemes, chosen by the characters around them.

    So a change of the text moves few of them.
    """
    for found in GRAPHEME.finditer(body):
        at = found.end()
        near = body[max(0, at - NEIGHBOURHOOD) : at + NEIGHBOURHOOD].encode(errors="replace")
        if at < len(body) and not _within_number(body, at) and zlib.crc32(near) % ONE_IN == 0:
            yield at


def _middle_grapheme(body: str) -> Iterator[int]:
    """The place between graphemes next to the middle, outside a number where there is one."""
    middle = len(body) // 2
    start = max(0, middle - 200)
    inside = [
        m.end()
        for m in GRAPHEME.finditer(body, start, middle + 200)
        if m.end() < min(len(body), middle + 200)
    ]
    if inside:
        yield min(inside, key=lambda at: (_within_number(body, at), abs(at - middle)))


def _middle(body: str) -> Iterator[int]:
    if len(body) > 1:
        yield len(body) // 2


def _within_number(body: str, at: int) -> bool:
    return body[at - 1].isdigit() and body[at].isdigit()


def pieces(body: str, finder: Finder) -> Sequence[tuple[int, int]]:
    """The ranges of `body` between the places that `finder` finds, white space included."""
    places = sorted({0, len(body), *finder(body)})
    return list(pairwise(places))
