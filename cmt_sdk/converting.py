"""Files to documents: plain text as it is, html, pdf and docx through markitdown. Knows files, no store and no model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cmt_sdk.errors import InvalidDocument, MissingExtra, NotFound, StorageDenied
from cmt_sdk.types import Document

log = logging.getLogger(__name__)

TEXT = frozenset({".txt", ".md", ".markdown", ".rst", ".text", ".log", ".csv", ".tsv", ".json", ".org", ".tex"})
CONVERTED = frozenset({".html", ".htm", ".pdf", ".docx"})


def check_text(text: str, limit: int, what: str) -> str:
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
            f"{what} has {size:,} bytes, the limit is {limit:,}: cut it, or open the memory with max_document_bytes={size}"
        )
    return text


def read_document(path: str | os.PathLike[str]) -> Document:
    """The document in a file; its source is the file's absolute path.

    Raises NotFound, StorageDenied, InvalidDocument (binary, unreadable, no known suffix), MissingExtra.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InvalidDocument(f"{path} is a folder: add the files in it with read_documents or `cmt add {path}`")
        suffix = path.suffix.lower()
        text = _converted(path) if suffix in CONVERTED else _decoded(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise StorageDenied(f"{path} cannot be read: {error.strerror or error}") from error
    return Document(text=text, source=path.resolve().as_posix())


def read_documents(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Document]:
    """The documents in files and, sorted, in folders with all beneath them.

    In folders, hidden files, files of unknown kinds and, with a warning, those that cannot be read are passed over; a
    file that is named itself must be readable. Raises as `read_document` does, and StorageDenied for a closed folder.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield read_document(path)
            continue
        for file in _files_beneath(path):
            try:
                yield read_document(file)
            except (InvalidDocument, MissingExtra, NotFound, StorageDenied) as error:
                log.warning("passed over: %s", error)


def _files_beneath(folder: Path) -> Iterator[Path]:
    def closed(error: OSError) -> None:
        if error.filename == os.fspath(folder):
            raise StorageDenied(f"{folder} cannot be read: {error.strerror}") from error
        log.warning("passed over: %s cannot be read: %s", error.filename, error.strerror)

    for root, folders, files in os.walk(folder, onerror=closed):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for path in (Path(root) / name for name in sorted(files) if not name.startswith(".")):
            special = path.exists() and not path.is_file()  # reading a pipe would wait for ever
            if path.suffix.lower() in TEXT | CONVERTED and not special:
                yield path


def _decoded(data: bytes, path: Path) -> str:
    """Text in UTF-8, or in what its byte-order mark says; lines end as in Python."""
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"{path} is no {encoding} text ({error.reason} at byte {error.start})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _converted(path: Path) -> str:
    try:
        from markitdown import FileConversionException, MarkItDown, UnsupportedFormatException
    except ImportError as error:
        raise MissingExtra(f"reading {path.suffix} files", "files") from error
    try:
        text: str = MarkItDown(enable_plugins=False).convert_local(str(path)).text_content
    except (FileConversionException, UnsupportedFormatException, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidDocument(f"{path} cannot be read ({reason}): open it and save it again, or add its text") from error
    if not text.strip():
        raise InvalidDocument(f"{path} holds no text (a scan, perhaps): run OCR over it, or add its text")
    return text
