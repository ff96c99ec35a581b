"""Binary data within a text: data: addresses and base64. Knows no format and no budget."""

from __future__ import annotations

import regex

DATA = regex.compile(
    r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+=-]+)*,[^\s\"'<>()\[\]]{48,}+", regex.IGNORECASE
)
LINK_OPENING = regex.compile(r"!?\[[^\[\]\n]*\](?:\(|:[ \t]*)<?$|!\[[^\[\]\n]*\]\($")
LINK_CLOSING = regex.compile(r">?(?:[ \t]+\"[^\"\n]*\")?\)|>")
BASE64 = regex.compile(
    r"(?<![\w+/=-])[A-Za-z0-9+/_-]{200,}+={0,2}"
    r"|(?m:^)(?:[ \t>]*[A-Za-z0-9+/]{60,}+\r?\n){3,}+[A-Za-z0-9+/]*+={0,2}"
)
REST = regex.compile(r"\s+[A-Za-z0-9+/]{16,}+={0,2}(?=\s)")
CLASSES = regex.compile(r"[a-z]+|[A-Z]+|[0-9]+")
MARKS = regex.compile(r"[^a-zA-Z0-9]+")
MAX_LINK_CHARACTERS = 300  # of the text of a link before a data: address
# mean run of one class (small, capital, digit): 1.6 in base64, more in words and paths
MAX_MEAN_RUN = 2.5


def binary_parts(text: str) -> list[tuple[int, int]]:
    """The ranges of `text` that hold binary data, in order, without overlaps.

    A Markdown picture keeps its description: the text before "](".

    Args:
        text: The text.

    Returns:
        Pairs of start and end, in characters.
    """
    found = [_address(text, m.start(), m.end()) for m in DATA.finditer(text)]
    for m in BASE64.finditer(text):
        body = MARKS.sub("", m[0])
        if len(body) / max(1, len(CLASSES.findall(body))) <= MAX_MEAN_RUN:
            rest = REST.match(text, m.end())
            found.append((m.start(), rest.end() if rest else m.end()))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and (start <= merged[-1][1] or text[merged[-1][1] : start].isspace()):
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _address(text: str, start: int, end: int) -> tuple[int, int]:
    """The range of a data: address with the marks of the link around it."""
    before = text[max(0, start - MAX_LINK_CHARACTERS) : start]
    opening = LINK_OPENING.search(before)
    if not opening:
        return start, end
    closing = LINK_CLOSING.match(text, end)
    marks = opening[0]
    is_definition = "]:" in marks
    has_description = bool(marks.lstrip("!").split("]")[0].strip("[ ")) and not is_definition
    kept = marks.index("]") if has_description else 0
    return start - len(marks) + kept, closing.end() if closing else end
