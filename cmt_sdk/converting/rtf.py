"""Rich text files to text, by striprtf. Knows no other format."""

from __future__ import annotations

import re
from pathlib import Path

from cmt_sdk.converting.result import Converted, damaged

TITLE = re.compile(r"\{\\title ([^{}]{1,2000})\}")
DATA = re.compile(rb"\{\\\*?\\?(?:pict|objdata)\b[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")  # pictures, written in digits
HIDDEN = re.compile(rb"\{(?:\\[a-z]{1,20}-?\d{0,9} ?){0,50}?\\v(?![a-z0-9])[^{}]*\}")


def from_rtf(data: bytes, path: Path) -> Converted:
    """The text of a letter. Raises InvalidDocument for one that cannot be read."""
    from striprtf.striprtf import rtf_to_text

    source = HIDDEN.sub(b"", DATA.sub(b"", data)).decode("latin-1")
    try:
        text = rtf_to_text(source, encoding=_code_page(source), errors="replace")
        found = TITLE.search(source[:100_000])
        title = rtf_to_text(f"{{\\rtf1 {found[1]}}}", encoding=_code_page(source), errors="replace") if found else ""
    except (ValueError, LookupError, RecursionError, OverflowError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    title = " ".join(title.split())
    return Converted(text.replace("\r\n", "\n").strip(), {"title": title} if title else {})


def _code_page(source: str) -> str:
    """The encoding that the file names."""
    found = re.search(r"\\ansicpg(\d{1,5})", source[:10_000])
    return f"cp{found[1]}" if found and found[1] != "0" else "cp1252"
