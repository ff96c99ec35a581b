"""Files and folders to documents. Knows which suffix is of which format, no store and no model."""

from __future__ import annotations

import logging
import math
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from cmt_sdk.converting import folders
from cmt_sdk.converting.books import from_epub
from cmt_sdk.converting.cards import from_calendar, from_cards
from cmt_sdk.converting.docx import from_docx
from cmt_sdk.converting.evernote import from_evernote
from cmt_sdk.converting.html import from_html
from cmt_sdk.converting.kinds import ZIP, refuse_foreign, suffix_of
from cmt_sdk.converting.mail import from_mail, from_mailbox
from cmt_sdk.converting.notebook import from_notebook
from cmt_sdk.converting.opendocument import from_opendocument
from cmt_sdk.converting.pdf import from_pdf
from cmt_sdk.converting.records import from_csv, from_json, from_json_lines
from cmt_sdk.converting.result import Converted
from cmt_sdk.converting.rtf import from_rtf
from cmt_sdk.converting.sheets import from_sheets
from cmt_sdk.converting.slides import from_slides
from cmt_sdk.converting.subtitles import from_subtitles
from cmt_sdk.converting.text import check_text, from_text
from cmt_sdk.errors import (
    EmptyDocument,
    InvalidDocument,
    InvalidInput,
    MissingExtra,
    NotFound,
    StorageDenied,
)
from cmt_sdk.system.extras import unusable
from cmt_sdk.system.open_files import refuse_open
from cmt_sdk.text.characters import is_text
from cmt_sdk.types import Document

log = logging.getLogger(__name__)

TEXT = frozenset(
    {".txt", ".md", ".markdown", ".mdown", ".mkd", ".mdx", ".rst", ".text", ".log", ".org", ".tex"}
    | {".adoc", ".asciidoc", ".qmd", ".rmd", ".wiki", ".textile", ".yaml", ".yml"}
    | {".toml", ".ini", ".conf", ".cfg", ".properties"}
)
CONVERTERS = {
    ".html": from_html,
    ".htm": from_html,
    ".xhtml": from_html,
    ".docx": from_docx,
    ".docm": from_docx,
    ".pdf": from_pdf,
    ".rtf": from_rtf,
    ".odt": from_opendocument,
    ".ods": from_opendocument,
    ".odp": from_opendocument,
    ".epub": from_epub,
    ".pptx": from_slides,
    ".xlsx": from_sheets,
    ".xlsm": from_sheets,
    ".eml": from_mail,
    ".emlx": from_mail,
    ".mht": from_mail,
    ".mhtml": from_mail,
    ".mbox": from_mailbox,
    ".ipynb": from_notebook,
    ".enex": from_evernote,
    ".vcf": from_cards,
    ".ics": from_calendar,
    ".srt": from_subtitles,
    ".vtt": from_subtitles,
    ".csv": from_csv,
    ".tsv": from_csv,
    ".json": from_json,
    ".jsonl": from_json_lines,
    ".ndjson": from_json_lines,
}
SUFFIXES = TEXT | CONVERTERS.keys()
FILE_SUFFIXES = SUFFIXES  # the name at the front door
ZIPPED = frozenset({".docx", ".docm", ".odt", ".ods", ".odp", ".epub", ".pptx", ".xlsx", ".xlsm"})
WEB_LINKS = frozenset({".gdoc", ".gsheet", ".gslides", ".webloc", ".url"})
MAX_FILE_BYTES = 256_000_000  # a file is held in memory while it is converted

_reported: dict[str, str] = {}  # the last message for each folder: the same is not repeated


def read_document(path: str | os.PathLike[str]) -> Document:
    """Read a file as a document.

    The contents decide the format where they have a signature, else the suffix does. Any other file
    is read as text: UTF-8 or, with a warning, the encoding that it looks like. Formats (the keys of
    `CONVERTERS`): html, htm, xhtml, mht, mhtml, pdf, docx, docm, rtf, odt, ods, odp, epub, pptx,
    xlsx, xlsm, eml, emlx, mbox, enex, ipynb, vcf, ics, srt, vtt, csv, tsv, json, jsonl and ndjson.
    Parts of a file that are not read are logged as a warning.

    Args:
        path: A file, a link to one, or a pipe.

    Returns:
        The document. Its source is the file's absolute path; a link keeps its own, a pipe has none.

    Raises:
        NotFound: There is no such file.
        StorageDenied: The file cannot be read.
        InvalidDocument: The file is a folder, binary, damaged, or of a format that is not read.
        EmptyDocument: The file holds no text.
        MissingExtra: The format needs the extra "files".
        InvalidInput: The file belongs to an open memory.
    """
    path = Path(path)
    if _is_folder(path):
        raise InvalidDocument(
            f"{path} is a folder: add the files in it with read_documents or `cmt add {path}`"
        )
    refuse_open(path)
    data, is_file = _contents(path)
    source = _source(path) if is_file else None
    converted = _convert(data, path)
    if converted.left_out:
        log.warning("%s: %s", path, "; ".join(converted.left_out))
    text = check_text(converted.text, math.inf, str(path))
    return Document(text=text, source=source, metadata=converted.metadata)


def read_documents(
    paths: Iterable[str | os.PathLike[str]], *, exclude: Sequence[str] = ()
) -> Iterator[Document]:
    """Read files, and all files beneath folders, in sorted order.

    In folders the files of `FILE_SUFFIXES` are read, without hidden files, lock files and other
    files that programs leave behind, files that a .gitignore or .ignore file names, folders that
    programs fill (node_modules, build results, caches), and links. Files that a person might miss
    are counted and logged once. Files that cannot be read are skipped with a warning; a file named
    in `paths` is always read.

    Args:
        paths: Files and folders.
        exclude: Patterns as in a .gitignore file.

    Yields:
        Documents, as `read_document` returns them.

    Raises:
        StorageDenied: A folder in `paths` cannot be read.
        InvalidSetting: A pattern is malformed.
        NotFound, InvalidDocument, EmptyDocument, MissingExtra, InvalidInput: As in `read_document`,
            for a file in `paths`.
    """
    for path in map(Path, paths):
        if not _is_folder(path):
            yield read_document(path)
            continue
        for file in list_files(path, exclude=exclude):
            try:
                yield read_document(file)
            except (InvalidInput, MissingExtra, NotFound, StorageDenied) as error:
                log.warning("passed over: %s", error)


def list_files(
    folder: str | os.PathLike[str], *, exclude: Sequence[str] = (), known: Collection[Path] = ()
) -> Iterator[Path]:
    """List the files that `read_documents` reads in a folder, sorted.

    Skipped files are logged once for each folder, and again when they change.

    Args:
        folder: The folder.
        exclude: Patterns as in a .gitignore file.
        known: Files and folders that the caller reads itself, or owns: they are not logged as
            skipped files of other kinds.

    Raises:
        StorageDenied: The folder cannot be read.
        InvalidSetting: A pattern is malformed.
    """
    skipped: list[str] = []
    yield from folders.walk(Path(folder), SUFFIXES, exclude, skipped.append, known)
    name = os.fspath(folder)
    if _reported.get(name) != "".join(skipped):
        for message in skipped:
            log.warning("passed over: %s", message)
    _reported[name] = "".join(skipped)


def is_placeholder(path: str | os.PathLike[str]) -> bool:
    """True for a file that stands for one in a cloud.

    Reading it downloads that file, or gives nothing.
    """
    return folders.is_placeholder(path, SUFFIXES)


def _is_folder(path: Path) -> bool:
    """True for a visible folder. Path.is_dir raises in a closed one."""
    return os.path.isdir(path)  # noqa: PTH112 - for that reason


def _contents(path: Path) -> tuple[bytes, bool]:
    """The bytes of a file, a pipe or a device, and whether it is a file."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            size = found.st_size
            data = file.read(MAX_FILE_BYTES + 1) if size <= MAX_FILE_BYTES else b""
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        # ValueError: a NUL in the name
        if os.path.islink(path):  # noqa: PTH114 - Path's raises in a closed folder
            raise NotFound(
                f"the link {path} points to {os.readlink(path)}, which is not there"  # noqa: PTH115
            ) from error
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise StorageDenied(f"{path} cannot be read: {error.strerror or error}") from error
    size = max(size, len(data))
    if size > MAX_FILE_BYTES:
        raise InvalidDocument(
            f"{path} has {size:,} bytes, files are read up to {MAX_FILE_BYTES:,}: split it, or add"
            " its text"
        )
    return data, stat.S_ISREG(found.st_mode)


def _source(path: Path) -> str:
    """The absolute path of a file.

    Links among the folders above it are resolved, so that a folder has one path. A file that is
    itself a link keeps its own name, so that the document goes when the link does.
    """
    source = (path.parent.resolve() / path.name).as_posix()
    if not is_text(source):  # surrogates stand for bytes that are not UTF-8
        raise InvalidDocument(
            f"{path}: its name, or that of a folder above it, is not UTF-8: rename it"
        )
    return source


def _convert(data: bytes, path: Path) -> Converted:
    """The text of a file, by the format that its contents show, else by its suffix."""
    suffix = path.suffix.lower()
    if suffix in WEB_LINKS:
        raise InvalidDocument(
            f"{path} is only a link to a page on the web: save the page or document itself, and add"
            " that"
        )
    if is_placeholder(path) and suffix in folders.PLACEHOLDERS:
        raise InvalidDocument(
            f"{path} only stands for a file in a cloud: fetch that file, and add it"
        )
    kind = suffix_of(data)
    if kind is None:
        if suffix not in ZIPPED or not data.startswith(ZIP):
            refuse_foreign(data, path)
        kind = suffix
    if kind not in CONVERTERS:
        return from_text(data, path)
    if not data.strip():
        raise EmptyDocument(f"{path} is empty: there is nothing to remember")
    try:
        converted = CONVERTERS[kind](data, path)
    except ImportError as error:
        raise unusable(f"reading {kind} files", "files", error) from error
    if converted.text.strip():
        return converted
    if kind == ".pdf":
        raise InvalidDocument(
            f"{path} holds no text (a scan, perhaps): run OCR over it, or add its text"
        )
    raise EmptyDocument(f"{path} holds no text: there is nothing to remember")
