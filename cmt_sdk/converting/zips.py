"""Formats that are zip files with XML in them: opening them within bounds. Knows no format."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmt_sdk.converting.result import damaged
from cmt_sdk.errors import InvalidDocument

LARGEST_TEXT = 32_000_000  # bytes of all XML and html in a file: 73 KB can hold as much, and take minutes
LARGEST_PART = 128_000_000  # bytes of one other part, such as a picture
MARKUP = (".xml", ".rels", ".html", ".xhtml", ".htm", ".opf", ".ncx")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile, zlib and the readers of these formats raise for a damaged file.
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, RecursionError,
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, SyntaxError, TypeError, ValueError,
)  # fmt: skip


@contextmanager
def opened(data: bytes, path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file whose parts are of bearable size. What goes wrong within is InvalidDocument."""
    from lxml.etree import LxmlError

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            _check(parts)
            yield parts
    except InvalidDocument:
        raise
    except (*BROKEN, LxmlError) as error:
        raise damaged(path, error) from error


def _check(parts: zipfile.ZipFile) -> None:
    found = parts.infolist()
    size = sum(part.file_size for part in found if part.filename.lower().endswith(MARKUP))
    if size > LARGEST_TEXT:
        raise zipfile.BadZipFile(f"its text unpacks to {size:,} bytes, the limit is {LARGEST_TEXT:,}")
    largest = max((part.file_size for part in found), default=0)
    if largest > LARGEST_PART:
        raise zipfile.BadZipFile(f"a part of it unpacks to {largest:,} bytes, the limit is {LARGEST_PART:,}")
    if any(part.flag_bits & 1 for part in found):
        raise zipfile.BadZipFile("it is encrypted")
    if any(part.compress_type not in METHODS for part in found):
        raise zipfile.BadZipFile("its parts are compressed in a way that this format does not have")


def parsed(xml: bytes) -> Any:
    """The root of an XML text; entities of its own are not replaced."""
    from lxml import etree

    return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True))
