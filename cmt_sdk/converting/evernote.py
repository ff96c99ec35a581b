"""Exports of Evernote (enex) to Markdown, each note under its title.

Knows html as the form of a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmt_sdk.converting.html import to_markdown
from cmt_sdk.converting.result import Converted, damaged
from cmt_sdk.converting.zips import BROKEN

DAY = re.compile(r"(\d{4})(\d\d)(\d\d)T")
TODO = re.compile(r"<en-todo\b([^>]{0,200}?)/?>(?:\s*</en-todo>)?")
PROLOGUE = re.compile(r"\A\s*(?:<\?xml[^>]*\?>\s*|<!DOCTYPE[^>]*>\s*)*")


def from_evernote(data: bytes, path: Path) -> Converted:
    """All notes of an export.

    Raises:
        InvalidDocument: The file is damaged.
    """
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    try:
        root = etree.fromstring(data, parser)
        notes = ["\n\n".join(_note(note)) for note in root.iter("note")]
        attached = [name for name in root.xpath("//resource//file-name/text()") if name.strip()]
    except (*BROKEN, etree.LxmlError) as error:
        raise damaged(path, error) from error
    names = f" ({', '.join(attached[:10])}{', ...' if len(attached) > 10 else ''})"
    left_out = [f"attached files are not read{names}: save and add them"] if attached else []
    if b"<en-crypt" in data:
        left_out.append("encrypted parts of notes are not read")
    return Converted("\n\n".join(notes), left_out=left_out)


def _note(note: Any) -> Iterator[str]:
    title = " ".join((note.findtext("title") or "").split())
    if title:
        yield f"## {title}"
    day = DAY.match(note.findtext("created") or "")
    tags = [tag.text.strip() for tag in note.iter("tag") if tag.text]
    about = [f"created: {'-'.join(day.groups())}"] if day else []
    about += [f"tags: {', '.join(tags)}"] if tags else []
    if about:
        yield "; ".join(about)
    html = TODO.sub(_box, PROLOGUE.sub("", note.findtext("content") or "", count=1))
    text = to_markdown(f"<html><body>{html}</body></html>").strip()
    if text:
        yield text


def _box(found: re.Match[str]) -> str:
    return "[x] " if 'checked="true"' in found[1] else "[ ] "
