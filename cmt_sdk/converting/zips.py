"""Formats that are zip files with XML in them: opening them within bounds. Knows no format."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmt_sdk.converting.result import damaged
from cmt_sdk.errors import InvalidDocument

# bytes of all parts of a file but its media: 73 KB can hold as much, and take minutes
LARGEST_TEXT = 32_000_000
LARGEST_PART = 128_000_000  # bytes of one picture or film
MEDIA_GROWTH = 20  # times the file's own size: what all media unpack to; drawings shrink to a tenth
MOST_PARTS = 20_000
HEAD = 16
# What begins a picture, a film, a sound, a font or a file within the file, and no XML. A name says
# nothing: a part is found by what refers to it, whatever it is called.
MEDIA = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"RIFF",
    b"\x01\0\0\0",
    b"\xd7\xcd\xc6\x9a",
    b"\xd0\xcf\x11\xe0",
    b"PK\x03\x04",
    b"%PDF-",
    b"OTTO",
    b"\0\x01\0\0",
    b"true",
    b"wOFF",
    b"wOF2",
    b"ID3",
    b"\xff\xfb",
    b"OggS",
    b"\x1a\x45\xdf\xa3",
    b"fLaC",
    b"\x30\x26\xb2\x75",
    b"\x1f\x8b\x08",
    *(b"\0\0\0" + bytes([size]) + b"ftyp" for size in (0x14, 0x18, 0x1C, 0x20)),
)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile, zlib and the readers of these formats raise for a damaged file.
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    RecursionError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)


@contextmanager
def opened(data: bytes, path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file whose parts are of bearable size. What goes wrong within is InvalidDocument."""
    from lxml.etree import LxmlError

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            text_parts(parts)
            yield parts
    except InvalidDocument:
        raise
    except (*BROKEN, LxmlError) as error:
        raise damaged(path, error) from error


@dataclass(slots=True)
class Written:
    """Counts what a file becomes, where one piece of it can stand in many places. Raises ValueError
    beyond the limit.
    """

    size: int = 0

    def add(self, characters: int) -> None:
        """Count some more."""
        self.size += characters
        if self.size > LARGEST_TEXT:
            raise ValueError(
                f"its text has more than {LARGEST_TEXT:,} characters, repeated ones included"
            )


def text_parts(parts: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The parts that are no media, after all were found to unpack to a bearable size.

    They are judged by their first bytes and counted whatever they are called. Raises
    zipfile.BadZipFile.
    """
    found = parts.infolist()
    if len(found) > MOST_PARTS:
        raise zipfile.BadZipFile(f"it has {len(found):,} parts, the limit is {MOST_PARTS:,}")
    if any(part.flag_bits & 1 for part in found):
        raise zipfile.BadZipFile("it is encrypted")
    if any(part.compress_type not in METHODS for part in found):
        raise zipfile.BadZipFile("its parts are compressed in a way that this format does not have")
    largest = max((part.file_size for part in found), default=0)
    if largest > LARGEST_PART:
        raise zipfile.BadZipFile(
            f"a part of it unpacks to {largest:,} bytes, the limit is {LARGEST_PART:,}"
        )
    text = [part for part in found if not _is_media(parts, part)]
    size = sum(part.file_size for part in text)  # zipfile gives no more than these
    if size > LARGEST_TEXT:
        raise zipfile.BadZipFile(
            f"its text unpacks to {size:,} bytes, the limit is {LARGEST_TEXT:,}"
        )
    rest, most = sum(part.file_size for part in found) - size, _most_media(found)
    if rest > most:
        raise zipfile.BadZipFile(
            f"its pictures unpack to {rest:,} bytes, the limit for its size is {most:,}"
        )
    return text


def _is_media(parts: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    with parts.open(part) as opened_part:
        return opened_part.read(HEAD).startswith(MEDIA)


def _most_media(found: Sequence[zipfile.ZipInfo]) -> int:
    return LARGEST_TEXT + MEDIA_GROWTH * sum(part.compress_size for part in found)


def parsed(xml: bytes) -> Any:
    """The root of an XML text; entities of its own are not replaced."""
    from lxml import etree

    return etree.fromstring(
        xml, etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True)
    )
