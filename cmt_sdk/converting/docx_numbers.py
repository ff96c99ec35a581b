"""The numbers before paragraphs of a docx file as text: `§ 3`, `1.2`, `b)`.

Knows the counters and patterns of numbering definitions. Does not know what a list looks like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cmt_sdk.converting.docx_package import Element, attribute, child, found, is_on, local
from cmt_sdk.converting.docx_styles import Styles

MOST_LETTERS = 50  # "aaa" and so on: Word repeats the letter, a made-up count repeats it for ever
ROMAN = [
    (1000, "m"),
    (900, "cm"),
    (500, "d"),
    (400, "cd"),
    (100, "c"),
    (90, "xc"),
    (50, "l"),
    (40, "xl"),
    (10, "x"),
    (9, "ix"),
    (5, "v"),
    (4, "iv"),
    (1, "i"),
]


class Numbers:
    """Counts the numbered paragraphs of one document."""

    def __init__(self, root: Element | None, styles: Styles) -> None:
        self._styles = styles
        self._levels: dict[str, Mapping[int, Element]] = {}
        self._lists: dict[str, str] = {}
        self._starts: dict[tuple[str, int], int] = {}
        self._counts: dict[str, dict[int, int]] = {}
        if root is not None:
            self._read(root)

    def _read(self, root: Element) -> None:
        for abstract in (e for e in root if local(e) == "abstractNum"):
            levels = {int(attribute(e, "ilvl") or 0): e for e in abstract if local(e) == "lvl"}
            self._levels[attribute(abstract, "abstractNumId") or ""] = levels
        for number in (e for e in root if local(e) == "num"):
            num_id = attribute(number, "numId") or ""
            self._lists[num_id] = attribute(child(number, "abstractNumId"), "val") or ""
            for override in found(number, "lvlOverride"):
                start = attribute(child(override, "startOverride"), "val")
                if start and start.isdigit():
                    self._starts[num_id, int(attribute(override, "ilvl") or 0)] = int(start)

    def label(self, paragraph: Element) -> str | None:
        """The number before a paragraph; None for one without a number, such as a bullet."""
        numbering = self._styles.numbering(paragraph)
        num_id = attribute(child(numbering, "numId"), "val") or ""
        abstract = self._lists.get(num_id, "")
        levels = self._levels.get(abstract, {})
        level = self._level(paragraph, numbering, levels)
        if level not in levels:
            return None
        definition = levels[level]
        counts = self._counts.setdefault(abstract, {})
        if (start := self._starts.pop((num_id, level), None)) is not None:
            counts[level] = start - 1
        counts[level] = counts.get(level, _start(definition) - 1) + 1
        for deeper in [n for n in counts if n > level]:
            del counts[deeper]
        if _format(definition) in ("bullet", "none"):
            return None
        return self._written(definition, levels, counts)

    def _level(
        self, paragraph: Element, numbering: Element | None, levels: Mapping[int, Element]
    ) -> int:
        if numbering is None:
            return -1
        own = attribute(child(numbering, "ilvl"), "val")
        if own is not None and own.isdigit():
            return int(own)
        style_id = attribute(child(paragraph, "pPr", "pStyle"), "val")
        for style in self._styles.chain(style_id):
            for level, definition in levels.items():
                named = attribute(child(definition, "pStyle"), "val")
                if named and named == attribute(style, "styleId"):
                    return level
        return 0

    def _written(
        self, definition: Element, levels: Mapping[int, Element], counts: dict[int, int]
    ) -> str:
        pattern = attribute(child(definition, "lvlText"), "val") or ""
        legal = is_on(child(definition, "isLgl"))

        def number(match: re.Match[str]) -> str:
            level = int(match.group(1)) - 1
            if level not in levels:
                return ""
            count = counts.setdefault(level, _start(levels[level]))
            return counted(count, "decimal" if legal else _format(levels[level]))

        return re.sub(r"%([1-9])", number, pattern).strip()


def _start(definition: Element) -> int:
    value = attribute(child(definition, "start"), "val")
    return int(value) if value and value.isdigit() else 1


def _format(definition: Element) -> str:
    return attribute(child(definition, "numFmt"), "val") or "decimal"


def counted(count: int, style: str) -> str:
    """A count in one of Word's number formats; digits for a format that is not listed here."""
    if style.endswith("Letter") and 0 < count <= 26 * MOST_LETTERS:
        text = chr(ord("a") + (count - 1) % 26) * ((count - 1) // 26 + 1)
    elif style.endswith("Roman") and 0 < count < 4000:
        text = ""
        for value, letters in ROMAN:
            text += letters * (count // value)
            count %= value
    else:
        return f"{count:02}" if style == "decimalZero" else str(count)
    return text.upper() if style.startswith("upper") else text
