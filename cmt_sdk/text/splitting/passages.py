"""A text to its passages: group the elements of its format to sections, split the sections.

Knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from cmt_sdk.text.splitting.binary import binary_parts
from cmt_sdk.text.splitting.elements import (
    Block,
    Element,
    Heading,
    Kind,
    LeftOut,
    covering,
    trimmed,
)
from cmt_sdk.text.splitting.formats import MARKDOWN, RECORDS, Rules
from cmt_sdk.text.splitting.headings import MAX_PATH_TOKENS, SEPARATOR, Counter, Measure, path_of
from cmt_sdk.text.splitting.sections import Section, SectionSplitter
from cmt_sdk.types import Span

# of a passage of records: words find a long passage of like rows late (BM25 divides by the length),
# and a small model takes the value of a neighbouring row
MAX_RECORDS_TOKENS = 64
# tokens of a document that is one passage with all its sections: in passages of their own, sections
# of a few words are read without their neighbours, and the answer comes from the wrong one
SHORT_DOCUMENT = 100
FEW_SECTIONS = 5  # of such a document


@dataclass(slots=True)
class _Group:
    """Blocks that follow each other under the same headings."""

    headings: list[str]
    # where the last of `headings` stand, right above the blocks
    lines: list[Heading] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


def split(
    text: str, count_tokens: Counter, budget: int, *, title: str = "", rules: Rules = MARKDOWN
) -> list[Span]:
    """The passages of a text.

    Spans cover every character except white space, binary data (`binary_parts`) and heading lines.
    A heading line becomes the `heading` of the spans below it; with nothing below, or too long for
    that, it is text. In a document of at most SHORT_DOCUMENT tokens, and half of `budget`, only
    headings above all of it become the heading.

    Args:
        text: The text.
        count_tokens: Returns the number of tokens of each text.
        budget: The most tokens of a passage with its heading.
        title: The first part of the heading of every span.
        rules: The format's rules for headings and blocks; see `rules_for`.

    Returns:
        Spans in order, none overlapping, each at most `budget` tokens long under its heading.
    """
    if rules in RECORDS:
        budget = min(budget, MAX_RECORDS_TOKENS)
    measure = Measure(count_tokens)
    groups = list(_groups(text, covering(text, rules(text), binary_parts(text))))
    is_short = 1 < len(groups) <= FEW_SECTIONS and measure.of(text) <= min(
        budget // 2, SHORT_DOCUMENT
    )
    if is_short and rules not in RECORDS and not _are_alike(groups):
        groups = [_joined(text, groups)]
    measure.learn([SEPARATOR.join([title, *g.headings] if title else g.headings) for g in groups])
    splitter = SectionSplitter(text, measure, budget)
    return [
        span
        for group in groups
        for span in splitter.spans(_section(text, group, title, budget, measure))
    ]


def _joined(text: str, groups: Sequence[_Group]) -> _Group:
    """One group under the headings that all have in common; the other heading lines are text."""
    paths = [g.headings for g in groups]
    common = [names[0] for names in takewhile(_is_one, zip(*paths, strict=False))]
    blocks: list[Block] = []
    for group in groups:
        above = len(group.headings) - len(group.lines)
        blocks += [_line(text, line) for line in group.lines[max(0, len(common) - above) :]]
        blocks += group.blocks
    first = groups[0]
    return _Group(common, first.lines[: len(common) - len(first.headings) or None], blocks)


def _are_alike(groups: Sequence[_Group]) -> bool:
    """True for sections of like things, whose headings have the same words.

    They are kept apart, as records are.
    """
    last = [g.headings[-1] for g in groups if g.headings]
    return len(set(last)) < len(last)


def _is_one(names: Sequence[str]) -> bool:
    return len(set(names)) == 1


def _section(text: str, group: _Group, title: str, budget: int, measure: Measure) -> Section:
    """The group under the part of its path that fits; other heading lines are text."""
    path = path_of(title, group.headings, min(MAX_PATH_TOKENS, budget // 4), measure)
    above = len(group.headings) - len(group.lines)
    unsaid = [_line(text, line) for n, line in enumerate(group.lines) if above + n in path.unsaid]
    return Section(path, [*unsaid, *group.blocks], len(unsaid))


def _line(text: str, heading: Heading) -> Block:
    return Block(*trimmed(text, heading.start, heading.end), Kind.TEXT)


def _groups(text: str, elements: Iterable[Element]) -> Iterator[_Group]:
    path: list[tuple[int, str]] = []
    group = _Group([])
    for element in elements:
        if isinstance(element, Block):
            group.blocks.append(element)
            continue
        if isinstance(element, LeftOut):
            if group.blocks:
                yield group
                group = _Group([name for _, name in path])
            continue
        # a lower heading right below a higher one
        if group.blocks or not (path and path[-1][0] < element.level):
            yield from _closed(text, group)  # takes that one's line along
            group = _Group([])
        path = [(level, name) for level, name in path if level < element.level] + [
            (element.level, element.title)
        ]
        group = _Group([name for _, name in path], [*group.lines, element])
    yield from _closed(text, group)


def _closed(text: str, group: _Group) -> Iterator[_Group]:
    """The group; without blocks, its last heading is text below the headings above it."""
    if group.blocks:
        yield group
    elif group.lines:
        yield _Group(group.headings[:-1], group.lines[:-1], [_line(text, group.lines[-1])])
