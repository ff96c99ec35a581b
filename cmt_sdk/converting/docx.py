"""Docx files to Markdown, by mammoth. Knows html as the step between."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from xml.parsers.expat import ExpatError

from cmt_sdk.converting.html import to_markdown
from cmt_sdk.converting.result import Converted, damaged

LARGEST_XML = 32_000_000  # bytes of a docx file's text with its markup: 73 KB can hold as much, and take minutes

# What mammoth lets through from zipfile, zlib and expat; found by changing bytes of good files at random.
BROKEN_DOCX = (
    zipfile.BadZipFile, zlib.error, ExpatError, EOFError, OSError, RuntimeError,
    AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip
DOCX_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def from_docx(data: bytes, path: Path) -> Converted:
    """The text of a docx file as Markdown. Raises InvalidDocument for a damaged one."""
    from mammoth import convert_to_html

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            if (size := sum(part.file_size for part in parts.infolist() if part.filename.endswith(".xml"))) > LARGEST_XML:
                raise zipfile.BadZipFile(f"its text unpacks to {size:,} bytes, the limit is {LARGEST_XML:,}")
            if any(part.compress_type not in DOCX_COMPRESSION for part in parts.infolist()):
                raise zipfile.BadZipFile("its parts are compressed in a way that docx does not have")
        return Converted(to_markdown(convert_to_html(io.BytesIO(data)).value))
    except BROKEN_DOCX as error:
        raise damaged(path, error) from error
