"""Rich text files to text, by striprtf. Knows no other format."""

from __future__ import annotations

import re
from pathlib import Path

from cmt_sdk.converting.result import Converted, damaged

TITLE = re.compile(r"\{\\title ([^{}]{1,2000})\}")
# pictures, written in digits
DATA = re.compile(rb"\{\\\*?\\?(?:pict|objdata)\b[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
HIDDEN = re.compile(rb"\{(?:\\[a-z]{1,20}-?\d{0,9} ?){0,50}?\\v(?![a-z0-9])[^{}]*\}")

FONTS = re.compile(r"\{[^{}]{0,200}\\fonttbl")
BRACE = re.compile(r"[{}]")
FONT = re.compile(r"\\f(\d{1,5})(?!\d)|\\fcharset(\d{1,3})(?!\d)")


def from_rtf(data: bytes, path: Path) -> Converted:
    """The text of a letter.

    Raises:
        InvalidDocument: The file cannot be read.
    """
    from striprtf.striprtf import rtf_to_text

    source = _short_fonts(HIDDEN.sub(b"", DATA.sub(b"", data)).decode("latin-1"))
    try:
        text = rtf_to_text(source, encoding=_code_page(source), errors="replace")
        found = TITLE.search(source[:100_000])
        title = (
            rtf_to_text(f"{{\\rtf1 {found[1]}}}", encoding=_code_page(source), errors="replace")
            if found
            else ""
        )
    except (
        ValueError,
        LookupError,
        RecursionError,
        OverflowError,
        TypeError,
        AttributeError,
    ) as error:
        raise damaged(path, error) from error
    title = " ".join(title.split())
    return Converted(text.replace("\r\n", "\n").strip(), {"title": title} if title else {})


def _short_fonts(source: str) -> str:
    """The file with a font table that names character sets alone.

    striprtf takes quadratic time to find them in a long table.
    """
    found = FONTS.search(source)
    if found is None:
        return source
    depth = 1
    end = len(source)
    for brace in BRACE.finditer(source, found.end()):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            end = brace.start()
            break
    font = ""
    sets: dict[str, str] = {}
    for entry in FONT.finditer(source, found.end(), end):
        if entry[1]:
            font = entry[1]
        elif font:
            sets.setdefault(font, entry[2])
    table = "\n".join(f"{{\\f{name}\\fcharset{number} x;}}" for name, number in sets.items())
    return source[: found.end()] + table + source[end:]


def _code_page(source: str) -> str:
    """The encoding that the file names."""
    found = re.search(r"\\ansicpg(\d{1,5})", source[:10_000])
    return f"cp{found[1]}" if found and found[1] != "0" else "cp1252"
