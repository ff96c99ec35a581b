"""Jupyter notebooks to Markdown: text, code and what the code printed. Knows no other format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmt_sdk.converting.result import Converted, damaged
from cmt_sdk.converting.text import decode

# a picture embedded in the text
EMBEDDED = re.compile(r"!\[([^\[\]]{0,500})\]\((?:data|attachment):[^)]*\)")
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def from_notebook(data: bytes, path: Path) -> Converted:
    """The cells in their order, without pictures.

    Raises:
        InvalidDocument: The file is no notebook.
    """
    try:
        notebook = json.loads(decode(data, path))
        sheets = notebook.get("worksheets") or [notebook]
        cells = [cell for sheet in sheets for cell in sheet["cells"]]
        metadata = notebook.get("metadata") or {}
        language = (metadata.get("language_info") or {}).get("name") or ""
        text = "\n\n".join(part for cell in cells for part in _cell(cell, str(language)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from error
    title = metadata.get("title")
    return Converted(
        text, {"title": title.strip()} if isinstance(title, str) and title.strip() else {}
    )


def _cell(cell: Mapping[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source", cell.get("input", ""))).strip()
    if cell.get("cell_type") == "heading":
        source = f"{'#' * int(cell.get('level', 1))} {source}"
    if cell.get("cell_type") != "code":
        source = EMBEDDED.sub(r"\1", source).strip()
        if source:
            yield source
        return
    if source:
        yield _fenced(source, language)
    for output in cell.get("outputs") or []:
        text = COLOURS.sub("", _output(output)).strip()
        if text:
            yield _fenced(text, "")


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _output(output: Mapping[str, Any]) -> str:
    """The text of one output; empty for a picture."""
    if output.get("output_type") in ("error", "pyerr"):
        return f"{output.get('ename', '')}: {output.get('evalue', '')}"
    if "text" in output:
        return _joined(output["text"])
    shown = output.get("data") or {}
    if any(kind.startswith("image/") for kind in shown):
        return ""  # its text is only "<Figure size 640x480>"
    return _joined(shown.get("text/markdown", shown.get("text/plain", "")))


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
