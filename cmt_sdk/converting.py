"""Files to documents: plain text as it is, html and docx as Markdown, pdf as its text. Knows files, no store and no model.

From a page or a letter it takes what a reader sees: headings, lists and tables, no pictures, link targets or emphasis.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.parsers.expat import ExpatError

from cmt_sdk.errors import InvalidDocument, InvalidInput, MissingExtra, NotFound, StorageDenied
from cmt_sdk.held import refuse_held
from cmt_sdk.types import Document

log = logging.getLogger(__name__)

TEXT = frozenset({".txt", ".md", ".markdown", ".rst", ".text", ".log", ".csv", ".tsv", ".json", ".org", ".tex"})

LARGEST_XML = 32_000_000  # bytes of a docx file's text with its markup: 73 KB can hold as much, and take minutes
LARGEST_FILE = 256_000_000  # bytes: whole files are held in memory while they are converted
UNMARKED = ["a", "b", "del", "em", "i", "img", "s", "strong", "video"]  # tags whose text stays and whose marks go
UNSEEN = ["noscript", "svg", "template"]  # tags that go with their text; markdownify drops scripts and styles itself
LINE_HYPHEN = re.compile("[\x02\ufffe]")  # what PDFium gives for a hyphen at a line's end, in newer and older releases

# What mammoth lets through from zipfile, zlib and expat; found by changing bytes of good files at random.
BROKEN_DOCX = (
    zipfile.BadZipFile, zlib.error, ExpatError, EOFError, OSError, RuntimeError,
    AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip
DOCX_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_pdfium_lock = threading.Lock()  # PDFium is not made for several threads


def check_text(text: str, limit: float, what: str) -> str:
    """The gate for every text that is to be remembered; returns it unchanged. Raises InvalidDocument."""
    if not text.strip():
        raise InvalidDocument(f"{what} is empty or only white space: there is nothing to remember")
    if "\0" in text:
        raise InvalidDocument(f"{what} holds NUL characters: that is binary data, not text")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidDocument(
            f"{what} holds a lone surrogate (U+{ord(text[error.start]):04X} at {error.start}): decode it again, "
            "for example with errors='replace'"
        ) from error
    if size > limit:
        raise InvalidDocument(
            f"{what} has {size:,} bytes, the limit is {limit:,}: cut it, or open the memory with max_document_bytes={size} "
            f"(`cmt config set max_document_bytes {size}`)"
        )
    return text


def read_document(path: str | os.PathLike[str]) -> Document:
    """The document in a file; its source is the file's absolute path.

    The suffix tells html, pdf and docx; every other file is taken for text. Raises NotFound, StorageDenied,
    InvalidDocument (binary, damaged, nothing in it), MissingExtra, InvalidInput (a file of an open memory).
    """
    path = Path(path)
    if _is_folder(path):
        raise InvalidDocument(f"{path} is a folder: add the files in it with read_documents or `cmt add {path}`")
    refuse_held(path)
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= LARGEST_FILE else b""
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise StorageDenied(f"{path} cannot be read: {error.strerror or error}") from error
    if size > LARGEST_FILE:
        raise InvalidDocument(f"{path} has {size:,} bytes, files are read up to {LARGEST_FILE:,}: split it, or add its text")
    source = path.resolve().as_posix()
    if any("\ud800" <= letter <= "\udfff" for letter in source):  # bytes that are no UTF-8
        raise InvalidDocument(f"{path}: its name, or that of a folder above it, is no UTF-8: rename it")
    text = _converted(data, path) if path.suffix.lower() in CONVERTERS else _decoded(data, path)
    return Document(text=check_text(text, math.inf, str(path)), source=source)


def read_documents(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Document]:
    """The documents in files and, sorted, in folders with all beneath them.

    In folders, hidden files, files of unknown kinds and, with a warning, those that cannot be read are passed over; a
    file that is named itself must be readable. Raises as `read_document` does, and StorageDenied for a closed folder.
    """
    for path in map(Path, paths):
        if not _is_folder(path):
            yield read_document(path)
            continue
        for file in _files_beneath(path):
            try:
                yield read_document(file)
            except (InvalidInput, MissingExtra, NotFound, StorageDenied) as error:
                log.warning("passed over: %s", error)


def _is_folder(path: Path) -> bool:
    """True for what can be seen to be a folder; Path.is_dir raises in a closed one."""
    return os.path.isdir(path)  # noqa: PTH112 - for that reason


def _files_beneath(folder: Path) -> Iterator[Path]:
    def closed(error: OSError) -> None:
        if error.filename == os.fspath(folder):
            raise StorageDenied(f"{folder} cannot be read: {error.strerror}") from error
        log.warning("passed over: %s cannot be read: %s", error.filename, error.strerror)

    for root, folders, files in os.walk(folder, onerror=closed):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for path in (Path(root) / name for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() in TEXT | CONVERTERS.keys() and not _is_special(path):
                yield path


def _is_special(path: Path) -> bool:
    """True for pipes, sockets and devices: reading them would wait for ever."""
    return os.path.exists(path) and not os.path.isfile(path)  # noqa: PTH110, PTH113 - Path's raise in a closed folder


def _decoded(data: bytes, path: Path) -> str:
    """Text in UTF-8, or in what its byte-order mark says; lines end as in Python."""
    encoding = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "UTF-8"
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidDocument(
            f"{path} is no {encoding} text ({error.reason} at byte {error.start}): if it is text in another encoding, "
            "save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _converted(data: bytes, path: Path) -> str:
    try:
        text = CONVERTERS[path.suffix.lower()](data, path)
    except ImportError as error:
        raise MissingExtra(f"reading {path.suffix} files", "files") from error
    if not text.strip():
        raise InvalidDocument(f"{path} holds no text (a scan, perhaps): run OCR over it, or add its text")
    return text


def _from_pdf(data: bytes, path: Path) -> str:
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        with _pdfium_lock, PdfDocument(data) as pdf:
            pages = [page.get_textpage().get_text_bounded() for page in pdf]
    except PdfiumError as error:
        raise _damaged(path, error) from error
    return LINE_HYPHEN.sub("", "\n\n".join(pages)).replace("\r\n", "\n")


def _from_docx(data: bytes, path: Path) -> str:
    from mammoth import convert_to_html

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            if (size := sum(part.file_size for part in parts.infolist() if part.filename.endswith(".xml"))) > LARGEST_XML:
                raise zipfile.BadZipFile(f"its text unpacks to {size:,} bytes, the limit is {LARGEST_XML:,}")
            if any(part.compress_type not in DOCX_COMPRESSION for part in parts.infolist()):
                raise zipfile.BadZipFile("its parts are compressed in a way that docx does not have")
        return _markdown(convert_to_html(io.BytesIO(data)).value)
    except BROKEN_DOCX as error:
        raise _damaged(path, error) from error


def _from_html(data: bytes, path: Path) -> str:
    from bs4 import ParserRejectedMarkup, UnicodeDammit

    try:
        page = _decoded(data, path)
    except InvalidDocument:
        page = UnicodeDammit(data, is_html=True).unicode_markup or ""  # the encoding that the page names, or a guess
    try:
        return _markdown(check_text(page, math.inf, str(path)))  # before the parser makes other characters of NULs
    except (ParserRejectedMarkup, RecursionError) as error:
        raise _damaged(path, error) from error


def _markdown(html: str) -> str:
    import lxml.html  # noqa: F401 - BeautifulSoup asks for it by name; html.parser nests paragraphs that are not closed
    from bs4 import BeautifulSoup, UnusualUsageWarning
    from markdownify import MarkdownConverter

    with warnings.catch_warnings(action="ignore", category=UnusualUsageWarning):  # of XHTML, of pages without a tag
        page = BeautifulSoup(html, "lxml")
    for tag in page(UNSEEN):
        tag.decompose()
    converter = MarkdownConverter(
        heading_style="ATX", strip=UNMARKED, table_infer_header=True, escape_asterisks=False, escape_underscores=False
    )
    return converter.convert_soup(page)


def _damaged(path: Path, error: Exception) -> InvalidDocument:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InvalidDocument(f"{path} cannot be read ({reason}): open it and save it again, or add its text")


CONVERTERS = {".html": _from_html, ".htm": _from_html, ".docx": _from_docx, ".pdf": _from_pdf}
