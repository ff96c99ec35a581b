"""Small files of many formats, built in code. Knows no reader."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence

OFFICE = "urn:oasis:names:tc:opendocument:xmlns"
SPACES = {"office": "office", "text": "text", "table": "table", "draw": "drawing"}
ODF = " ".join(f'xmlns:{short}="{OFFICE}:{name}:1.0"' for short, name in SPACES.items())
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    """A zip file of these parts."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return file.getvalue()


def odf(body: str, kind: str = "text", title: str = "", manifest: str = "") -> bytes:
    """An OpenDocument file with this body."""
    mime = f"application/vnd.oasis.opendocument.{kind}"
    tag = {"text": "text", "spreadsheet": "spreadsheet", "presentation": "presentation"}[kind]
    content = (
        "<office:document-content"
        f" {ODF}><office:body><office:{tag}>{body}</office:{tag}></office:body></office:document-content>"
    )
    meta = f'<m xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></m>'
    parts = {"mimetype": mime, "content.xml": content, "meta.xml": meta}
    return zipped(parts | ({"META-INF/manifest.xml": manifest} if manifest else {}))


def epub(chapters: Mapping[str, str], title: str, encryption: str = "") -> bytes:
    """A book of these pages, in this order, with a table of contents that is not read."""
    items = "".join(
        f'<item id="i{n}" href="text/{name}" media-type="application/xhtml+xml"/>'
        for n, name in enumerate(chapters)
    )
    refs = "".join(f'<itemref idref="i{n}"/>' for n in range(len(chapters)))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata'
        f' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata><manifest>{items}<item'
        ' id="nav" href="nav.xhtml" properties="nav"'
        ' media-type="application/xhtml+xml"/></manifest><spine><itemref'
        f' idref="nav"/>{refs}</spine></package>'
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "OEBPS/book.opf": package,
    }
    parts["OEBPS/nav.xhtml"] = "<html><body><p>CONTENTS</p></body></html>"
    pages = {
        f"OEBPS/text/{name}": f"<html><body>{body}</body></html>" for name, body in chapters.items()
    }
    return zipped(parts | pages | ({"META-INF/encryption.xml": encryption} if encryption else {}))


def notebook(cells: Sequence[Mapping[str, object]]) -> bytes:
    """A Jupyter notebook of these cells."""
    metadata = {"language_info": {"name": "python"}}
    return json.dumps(
        {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    ).encode()


def workbook(sheets: Mapping[str, Sequence[Sequence[object]]], hidden: Sequence[str] = ()) -> bytes:
    """An Excel workbook of these sheets."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        sheet.sheet_state = "hidden" if name in hidden else "visible"
        for row in rows:
            sheet.append(list(row))
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def slides(*pages: tuple[str, Sequence[str], str]) -> bytes:
    """A PowerPoint presentation of pages: a title, lines, speaker's notes."""
    from pptx import Presentation

    show = Presentation()
    for title, lines, notes in pages:
        page = show.slides.add_slide(show.slide_layouts[1])
        page.shapes.title.text = title
        page.placeholders[1].text = "\n".join(lines)
        if notes:
            page.notes_slide.notes_text_frame.text = notes
    file = io.BytesIO()
    show.save(file)
    return file.getvalue()
