"""Files and folders to documents. Knows which suffix is of which format, no store and no model."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cmt_sdk.converting.docx import from_docx
from cmt_sdk.converting.html import from_html
from cmt_sdk.converting.pdf import from_pdf
from cmt_sdk.converting.records import from_csv, from_json, from_json_lines
from cmt_sdk.converting.result import Converted
from cmt_sdk.converting.text import check_text, decode
from cmt_sdk.errors import InvalidDocument, InvalidInput, MissingExtra, NotFound, StorageDenied
from cmt_sdk.held import refuse_held
from cmt_sdk.types import Document

log = logging.getLogger(__name__)

TEXT = frozenset({".txt", ".md", ".markdown", ".rst", ".text", ".log", ".csv", ".tsv", ".json", ".org", ".tex"})
CONVERTERS = {".html": from_html, ".htm": from_html, ".docx": from_docx, ".pdf": from_pdf}
CONVERTERS |= {".csv": from_csv, ".tsv": from_csv, ".json": from_json, ".jsonl": from_json_lines, ".ndjson": from_json_lines}
LARGEST_FILE = 256_000_000  # bytes: whole files are held in memory while they are converted


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
    is_text = path.suffix.lower() not in CONVERTERS
    converted = Converted(decode(data, path)) if is_text else _converted(data, path)
    if converted.left_out:
        log.warning("%s: %s", path, "; ".join(converted.left_out))
    text = check_text(converted.text, math.inf, str(path))
    return Document(text=text, source=source, metadata=converted.metadata)


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


def _converted(data: bytes, path: Path) -> Converted:
    try:
        converted = CONVERTERS[path.suffix.lower()](data, path)
    except ImportError as error:
        raise MissingExtra(f"reading {path.suffix} files", "files") from error
    if not converted.text.strip():
        raise InvalidDocument(f"{path} holds no text (a scan, perhaps): run OCR over it, or add its text")
    return converted
