"""Markdown by the rules of CommonMark, with tables, front matter and definition lists.

markdown-it-py parses the blocks. This module adds common expectations where the standard is strict:
an unclosed fence or comment does not swallow the sections after it, and a rule below several lines
makes no heading of them. Knows no budget.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from cmt_sdk.text.splitting.elements import Block, Heading, Kind, Rank

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

NEWLINE = re.compile(r"\r\n|\r|\n")
ITEM_MARKS = re.compile(r"\s*(?:(?:[-*+]|\d{1,9}[.)])\s+)+(?:\[.\]\s+)?(?:#{1,6}\s+)?")
QUOTE_MARKS = re.compile(r"(?:\s*>)+\s?")
CALLOUT = re.compile(r"\s*\[!\w+\][-+]?\s*")
TABLE = re.compile(r"\s*<table\b", re.IGNORECASE)
ROW = re.compile(r"<tr\b", re.IGNORECASE)
CELL = re.compile(r"<t[hd]\b[^>]*>(.*?)(?=</?t[hdr]\b|$)", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"<[^>]*>")
KEPT_ITEM = 0.5  # of the room in a passage: an item up to this size is not split
LEAVES = frozenset(
    {"paragraph_open", "heading_open", "fence", "code_block", "html_block", "hr", "front_matter"}
)
CODE = frozenset({"fence", "code_block", "html_block", "front_matter"})


@dataclass(slots=True)
class _Item:
    """An open item of a list, or a callout: its name, and the line where it begins."""

    line: int
    name: str = ""
    is_list_item: bool = True
    has_items: bool = False


@dataclass(slots=True)
class _Reader:
    """Walks over the tokens of one text."""

    text: str
    starts: Sequence[int]  # of the lines
    items: list[_Item] = field(default_factory=list)
    # for each open list: the line "...:" above it
    lead_ins: list[str] = field(default_factory=list)
    lists: int = 0  # that are open
    last: Block | None = None

    def blocks(self, tokens: Sequence[Token]) -> Iterator[Heading | Block]:
        """Headings and blocks, in order."""
        at = 0
        while at < len(tokens):
            token = tokens[at]
            if token.type in ("dl_open", "table_open"):
                close = _closing(tokens, at)
                yield from (
                    self._definitions(tokens[at:close])
                    if token.type == "dl_open"
                    else self._table(tokens[at:close])
                )
                self.last = None
                at = close
            elif token.type == "html_block" and TABLE.match(token.content):
                yield from self._html_table(*(token.map or (0, 0)))
                self.last = None
            elif token.type in LEAVES:
                found = self._leaf(token, tokens[at + 1] if at + 1 < len(tokens) else token)
                self.last = found if isinstance(found, Block) else None
                yield found
            else:
                self._container(token)
            at += 1

    def _container(self, token: Token) -> None:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            self.lists += 1
            self.lead_ins.append(self._lead_in())
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            self.lists -= 1
            self.lead_ins.pop()
        elif token.type in ("list_item_open", "blockquote_open"):
            self.items.append(
                _Item(token.map[0] if token.map else 0, is_list_item=token.type == "list_item_open")
            )
        elif token.type in ("list_item_close", "blockquote_close"):
            self.items.pop()
        if token.type.endswith(("list_close", "quote_close", "item_close")):
            self.last = None

    def _lead_in(self) -> str:
        """The paragraph right above a list that announces it."""
        body = self.text[self.last.start : self.last.end].strip() if self.last else ""
        if (self.items and self.items[-1].name) or not body.endswith((":", "：")) or "\n" in body:
            return ""
        return body.rstrip(":： ")

    def _leaf(self, token: Token, inline: Token) -> Heading | Block:
        first, last = token.map or (0, 0)
        if (
            token.type == "heading_open"
            and not token.level
            and "\n" not in inline.content
            and inline.content.strip()
        ):
            return Heading(*self._range(first, last), int(token.tag[1:]), inline.content.strip())
        kind = Kind.CODE if token.type in CODE else Kind.TEXT
        keep = 1.0 if token.type in CODE else 0.2
        parents = self._parents()
        if not self.items:
            return Block(*self._range(first, last), kind, keep=keep)
        item = self.items[-1]
        if item.name:  # a further block of the same item
            return Block(*self._range(first, last), kind, Rank.NESTED, keep, parents)
        rank = Rank.PARAGRAPH
        if item.is_list_item:
            first = min(first, item.line)
            keep = max(keep, KEPT_ITEM)
            is_first = self.lists > 1 and len(self.items) > 1 and not self.items[-2].has_items
            rank = Rank.ITEM if self.lists < 2 else Rank.CLAUSE if is_first else Rank.NESTED
            for above in self.items[:-1]:
                above.has_items = True
        item.name = self._name(first, item)
        return Block(*self._range(first, last), kind, rank, keep, parents, label=item.name)

    def _parents(self) -> tuple[str, ...]:
        """The names of the items around a block, outermost first; a plain quotation has none."""
        names = [item.name for item in self.items]
        return tuple(name for name in [*self.lead_ins[:1], *names] if name.strip())

    def _name(self, line: int, item: _Item) -> str:
        """The name of an item: the words of its first line."""
        start, end = self._range(line, line + 1)
        words = QUOTE_MARKS.sub("", self.text[start:end], count=1)
        if item.is_list_item:
            return ITEM_MARKS.sub("", words, count=1).strip().rstrip(":：") or " "
        found = CALLOUT.match(words)
        return words[found.end() :].strip() or " " if found else " "

    def _definitions(self, tokens: Sequence[Token]) -> Iterator[Block]:
        """A term with its definitions is one block."""
        depth = tokens[0].level + 1
        terms = [t.map[0] for t in tokens if t.type == "dt_open" and t.level == depth and t.map]
        ends = sorted(
            t.map[1] for t in tokens if t.type == "dd_open" and t.level == depth and t.map
        )
        for term, after in zip(terms, [*terms[1:], None], strict=True):
            at = len(ends) if after is None else bisect_right(ends, after)
            last = ends[at - 1] if at and ends[at - 1] > term else term + 1
            name = self.text[slice(*self._range(term, term + 1))].strip()
            rank = Rank.PARAGRAPH if term == terms[0] else Rank.ITEM
            yield Block(*self._range(term, last), Kind.CODE, rank, 1.0, self._parents(), label=name)

    def _table(self, tokens: Sequence[Token]) -> Iterator[Block]:
        """The header row, then each row with the header row as its `header`."""
        rows = [t.map[0] for t in tokens if t.type == "tr_open" and t.map]
        header = self.text[slice(*self._range(rows[0], rows[0] + 1))].strip()
        parents = self._parents()
        yield Block(*self._range(rows[0], rows[0] + 2), Kind.LINES, keep=1.0, parents=parents)
        for row in rows[1:]:
            rank = Rank.CLAUSE if row == rows[1] else Rank.ITEM
            yield Block(*self._range(row, row + 1), Kind.RECORD, rank, 1.0, parents, header)

    def _html_table(self, first: int, last: int) -> Iterator[Block]:
        """The rows of a table in html; a first row with `<th>` is the header of the others."""
        start, end = self._range(first, last)
        rows = [start + m.start() for m in ROW.finditer(self.text[start:end])][1:]
        places = [start, *rows, end]
        head = self.text[start : places[1]]
        header = (
            " | ".join(" ".join(TAG.sub(" ", cell).split()) for cell in CELL.findall(head))
            if "<th" in head.lower()
            else ""
        )
        for n, (a, b) in enumerate(pairwise(places)):
            rank = (Rank.PARAGRAPH, Rank.CLAUSE)[n] if n < 2 else Rank.ITEM
            yield Block(a, b, Kind.CODE, rank, 1.0, self._parents(), header if n else "")

    def _range(self, first: int, last: int) -> tuple[int, int]:
        """The characters of the lines from `first` to before `last`."""
        end = len(self.text)
        return self.starts[first] if first < len(self.starts) else end, (
            self.starts[last] if last < len(self.starts) else end
        )


def read_markdown(text: str) -> Iterator[Heading | Block]:
    """The headings and blocks of Markdown."""
    starts = [0, *(m.end() for m in NEWLINE.finditer(text))]
    reader = _Reader(text, starts)
    for element in reader.blocks(_parser().parse(text)):
        yield (
            element
            if isinstance(element, Heading)
            else replace(element, label=element.label.strip())
        )


def _closing(tokens: Sequence[Token], at: int) -> int:
    """The position of the token that closes the one at `at`."""
    wanted = tokens[at].type.replace("_open", "_close")
    return next(
        n
        for n in range(at, len(tokens))
        if tokens[n].type == wanted and tokens[n].level == tokens[at].level
    )


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.deflist import deflist_plugin
    from mdit_py_plugins.front_matter import front_matter_plugin

    from cmt_sdk.text.splitting.unclosed import unclosed_plugin

    parser = (
        MarkdownIt("commonmark")
        .enable("table")
        .use(deflist_plugin)
        .use(front_matter_plugin)
        .use(unclosed_plugin)
    )
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser
