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

# of all parts of a file but its media: 73 KB can unpack to this, and take minutes
MAX_TEXT_BYTES = 32_000_000
MAX_PART_BYTES = 128_000_000  # of one picture or film
MEDIA_GROWTH = 20  # the most that media unpack to, times the file; drawings shrink to a tenth
MAX_PARTS = 20_000
HEAD = 16
# The first bytes of pictures, films, sounds, fonts and embedded files; no XML has them. Names do
# not count: a document refers to its parts under any name.
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

# The errors that zipfile, zlib and the readers of these formats raise for a damaged file.
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
    """A zip file whose parts fit the limits.

    Raises:
        InvalidDocument: The file is damaged or exceeds a limit, also while it is open.
    """
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
    """Counts the characters of the result, where one part of a file can stand in many places."""

    size: int = 0

    def add(self, characters: int) -> None:
        """Count more characters.

        Raises:
            ValueError: They exceed MAX_TEXT_BYTES.
        """
        self.size += characters
        if self.size > MAX_TEXT_BYTES:
            raise ValueError(
                f"its text has more than {MAX_TEXT_BYTES:,} characters, repeated ones included"
            )


def text_parts(parts: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The parts that are no media, after a check that all unpack to bounded sizes.

    Their first bytes decide, never their names.

    Raises:
        zipfile.BadZipFile: A limit is exceeded, or the file is encrypted.
    """
    found = parts.infolist()
    if len(found) > MAX_PARTS:
        raise zipfile.BadZipFile(f"it has {len(found):,} parts, the limit is {MAX_PARTS:,}")
    if any(part.flag_bits & 1 for part in found):
        raise zipfile.BadZipFile("it is encrypted")
    if any(part.compress_type not in METHODS for part in found):
        raise zipfile.BadZipFile("its parts are compressed in a way that this format does not have")
    largest = max((part.file_size for part in found), default=0)
    if largest > MAX_PART_BYTES:
        raise zipfile.BadZipFile(
            f"a part of it unpacks to {largest:,} bytes, the limit is {MAX_PART_BYTES:,}"
        )
    text = [part for part in found if not _is_media(parts, part)]
    size = sum(part.file_size for part in text)  # zipfile gives no more than these
    if size > MAX_TEXT_BYTES:
        raise zipfile.BadZipFile(
            f"its text unpacks to {size:,} bytes, the limit is {MAX_TEXT_BYTES:,}"
        )
    rest = sum(part.file_size for part in found) - size
    most = _most_media(found)
    if rest > most:
        raise zipfile.BadZipFile(
            f"its pictures unpack to {rest:,} bytes, the limit for its size is {most:,}"
        )
    return text


def _is_media(parts: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    with parts.open(part) as opened_part:
        return opened_part.read(HEAD).startswith(MEDIA)


def _most_media(found: Sequence[zipfile.ZipInfo]) -> int:
    return MAX_TEXT_BYTES + MEDIA_GROWTH * sum(part.compress_size for part in found)


def parsed(xml: bytes) -> Any:
    """The root of an XML text; entities of its own are not replaced."""
    from lxml import etree

    return etree.fromstring(
        xml, etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True)
    )
