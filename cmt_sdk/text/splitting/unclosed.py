"""Unclosed fences and html, as rules for markdown-it-py. Knows no budget.

By CommonMark they reach to the end of the text. A fence that was left open must not swallow the
sections after it: it ends before the next line that is a heading rather than a comment in the code.
Html ends at the next blank line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock

    Rule = Callable[[StateBlock, int, int, bool], bool]

OPENING = re.compile(r"[ \t]*(`{3,}|~{3,})")
CLOSING = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*$")
HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+\S")
HTML_ENDS = (
    (re.compile(r"\s*<(?:script|pre|style|textarea)(?=\s|>|$)", re.IGNORECASE), "</"),
    (re.compile(r"\s*<!--"), "-->"),
    (re.compile(r"\s*<\?"), "?>"),
    (re.compile(r"\s*<!\[CDATA\["), "]]>"),
    (re.compile(r"\s*<![A-Za-z]"), ">"),
)


def unclosed_plugin(parser: MarkdownIt) -> None:
    """Replace the rules of fences and html blocks by rules that end where readers expect."""
    from markdown_it.rules_block import fence, html_block

    alt = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.at("fence", _fence_rule(fence), {"alt": alt})
    parser.block.ruler.at("html_block", _html_rule(html_block), {"alt": alt[:3]})


def _fence_rule(original: Rule) -> Rule:
    def rule(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        opening = OPENING.match(_line(state, start))
        if silent or state.level or not opening:
            return original(state, start, end, silent)
        mark = opening[1]
        known = state.env.get(f"unclosed {mark[0]}")
        if known and len(mark) >= known:
            return original(state, start, _next_section(state, start, end), silent)
        if not original(state, start, end, silent):
            return False
        if state.line < end or _closes(_line(state, end - 1), mark, is_same_line=end - 1 == start):
            return True
        state.env[f"unclosed {mark[0]}"] = len(mark)
        state.tokens.pop()
        return original(state, start, _next_section(state, start, end), silent)

    return rule


def _html_rule(original: Rule) -> Rule:
    def rule(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        line = _line(state, start)
        kind = next((n for n, (opening, _) in enumerate(HTML_ENDS) if opening.match(line)), None)
        if silent or state.level or kind is None:
            return original(state, start, end, silent)
        closing = HTML_ENDS[kind][1]
        if state.env.get(f"unclosed html {kind}") and closing not in line:
            return original(state, start, _next_blank(state, start, end), silent)
        if not original(state, start, end, silent):
            return False
        if state.line < end or closing in _line(state, end - 1):
            return True
        state.env[f"unclosed html {kind}"] = 1
        state.tokens.pop()
        return original(state, start, _next_blank(state, start, end), silent)

    return rule


def _line(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]


def _closes(line: str, mark: str, *, is_same_line: bool) -> bool:
    found = CLOSING.match(line)
    return found is not None and not is_same_line and found[1].startswith(mark)


def _next_section(state: StateBlock, start: int, end: int) -> int:
    """The next line that is a heading rather than a comment in code.

    It stands below a blank line; a heading of level 1 also above one.
    """
    for line in range(start + 2, end):
        found = (
            HEADING.match(_line(state, line))
            if not state.isEmpty(line) and state.sCount[line] < 4
            else None
        )
        if (
            found
            and state.isEmpty(line - 1)
            and (len(found[1]) > 1 or (line + 1 < end and state.isEmpty(line + 1)))
        ):
            return line
    return end


def _next_blank(state: StateBlock, start: int, end: int) -> int:
    return next((line for line in range(start + 1, end) if state.isEmpty(line)), end)
