"""Recognises a file's format by the signature in its contents. Knows no converter.

`suffix_of` names a format that can be read. `refuse_foreign` raises for one that cannot, with the
remedy.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path

from cmt_sdk.errors import InvalidDocument

HEAD = 4096  # bytes of a file that are searched for a signature
ZIP = b"PK\x03\x04"
BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    NotImplementedError,
)
DIRECTORY_NAME = "utf-16-le"  # the encoding of part names in old Office files

PICTURE = "a picture: run OCR over it, or add its text"
RECORDING = "a recording: add a transcript of it"
ARCHIVE = "an archive: unpack it, and add the folder"
DAMAGED_ARCHIVE = "a damaged archive: fetch it again, unpack it, and add the folder"
PROGRAM = "a program or its data: there is no text to remember"
DATABASE = "a database: export its tables as csv"
FONT = "a font: there is no text to remember"
MAILBOX = "a mailbox of Outlook: export its messages as eml or mbox"
LOCKED = "encrypted: open it, save it without a password, and add that"
APPLE = "a document of Pages, Numbers or Keynote: export it as pdf or docx"
OLD_WORD = "an old Word document: save it as docx or pdf"
OLD_SHEET = "an old Excel workbook: save it as xlsx or csv"
OLD_SLIDES = "an old PowerPoint presentation: save it as pptx or pdf"
OLD_OFFICE = "an old Office file: save it in a newer format, or as pdf"
BINARY_SHEET = "a binary Excel workbook: save it as xlsx or csv"
DRAWING = "a drawing: export it as pdf"
BOOK = "an e-book for Kindle: convert it to epub"
SCAN = "a DjVu file: convert it to pdf"
NOTEBOOK = "a OneNote section: export it as docx or pdf"

SIGNATURES = (
    (0, b"\x89PNG", PICTURE),
    (0, b"\xff\xd8\xff", PICTURE),
    (0, b"GIF87a", PICTURE),
    (0, b"GIF89a", PICTURE),
    (0, b"II*\0", PICTURE),
    (0, b"MM\0*", PICTURE),
    (0, b"BM", PICTURE),
    (8, b"WEBP", PICTURE),
    (4, b"ftypavif", PICTURE),
    (4, b"ftyphei", PICTURE),
    (4, b"ftypmif1", PICTURE),
    (0, b"8BPS", PICTURE),
    (0, b"\0\0\1\0", PICTURE),
    (4, b"ftyp", RECORDING),
    (0, b"ID3", RECORDING),
    (0, b"\xff\xfb", RECORDING),
    (0, b"\xff\xf3", RECORDING),
    (0, b"OggS", RECORDING),
    (0, b"fLaC", RECORDING),
    (8, b"WAVE", RECORDING),
    (8, b"AVI ", RECORDING),
    (0, b"\x1aE\xdf\xa3", RECORDING),
    (0, b"\x1f\x8b", ARCHIVE),
    (0, b"BZh", ARCHIVE),
    (0, b"\xfd7zXZ\0", ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", ARCHIVE),
    (0, b"Rar!\x1a\x07", ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", ARCHIVE),
    (257, b"ustar", ARCHIVE),
    (0, b"\x7fELF", PROGRAM),
    (0, b"MZ", PROGRAM),
    (0, b"\xca\xfe\xba\xbe", PROGRAM),
    (0, b"\xcf\xfa\xed\xfe", PROGRAM),
    (0, b"\0asm", PROGRAM),
    (0, b"SQLite format 3\0", DATABASE),
    (4, b"Standard Jet DB", DATABASE),
    (4, b"Standard ACE DB", DATABASE),
    (0, b"PAR1", DATABASE),
    (0, b"wOFF", FONT),
    (0, b"wOF2", FONT),
    (0, b"\0\1\0\0\0", FONT),
    (0, b"OTTO", FONT),
    (60, b"BOOKMOBI", BOOK),
    (0, b"AT&TFORM", SCAN),
    (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", NOTEBOOK),
    (0, b"!BDN", MAILBOX),
)  # offset, signature, and the description of the format; the first that fits counts
WORDLIKE = re.compile(rb"[\t\n\r\f\x20-\x7e]{3,}")  # signatures that a text could begin with
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
OLE_PARTS = (
    ("EncryptedPackage", LOCKED),
    ("WordDocument", OLD_WORD),
    ("PowerPoint Document", OLD_SLIDES),
    ("Workbook", OLD_SHEET),
    ("Book", OLD_SHEET),
    ("__properties_version1.0", "a message of Outlook: save it as eml, or print it to pdf"),
)  # names of parts of a file in the old Office container, with the file's description
ZIP_MIMES = {
    "application/epub+zip": ".epub",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.oasis.opendocument.text-template": ".odt",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/vnd.oasis.opendocument.presentation": ".odp",
}  # contents of the part "mimetype"
ZIP_PARTS = (
    ("word/document.xml", ".docx"),
    ("ppt/presentation.xml", ".pptx"),
    ("xl/workbook.xml", ".xlsx"),
    ("META-INF/container.xml", ".epub"),
)
HTML = re.compile(
    rb"(?:\s|<\?xml[^>]{0,200}\?>|<!--.{0,2000}?-->)*<(?:!doctype\s+html|html[\s>])",
    re.IGNORECASE | re.DOTALL,
)
MAIL = re.compile(
    rb"(?:[!-9;-~]{1,60}:[^\r\n]{0,998}\r?\n(?:[ \t][^\r\n]{0,998}\r?\n){0,60}){3,}", re.ASCII
)


def suffix_of(data: bytes) -> str | None:
    """The suffix of the format of these bytes; None where they have no signature."""
    head = data[:HEAD].removeprefix(b"\xef\xbb\xbf")
    if head.startswith(b"%PDF-"):
        return ".pdf"
    if head.startswith(b"{\\rtf"):
        return ".rtf"
    if head.startswith(ZIP):
        return _suffix_of_zip(data)
    if HTML.match(head):
        return ".html"
    return ".eml" if _is_mail(head) else None


def refuse_foreign(data: bytes, path: Path) -> None:
    """Raise InvalidDocument, with the remedy, for contents of a format that is not read."""
    what = _foreign(data)
    if what:
        raise InvalidDocument(f"{path} is {what}")


def _foreign(data: bytes) -> str | None:
    if data.startswith(OLE):
        return next(
            (what for name, what in OLE_PARTS if name.encode(DIRECTORY_NAME) in data), OLD_OFFICE
        )
    if data.startswith(ZIP):
        return _foreign_zip(data)
    for start, mark, what in SIGNATURES:
        if data.startswith(mark, start):
            rest = data[:HEAD]
            is_text = WORDLIKE.fullmatch(mark) or len(mark) < 3
            if not is_text or b"\0" in rest or not _is_utf8(rest):
                return what
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data[: len(data) - 3].decode()
    except UnicodeDecodeError as error:
        return error.end >= len(data) - 3
    return True


def _parts(data: bytes) -> tuple[frozenset[str], str] | None:
    """The names of the parts of a zip file, and its "mimetype"; None for a damaged one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = frozenset(archive.namelist())
            is_short = "mimetype" in names and archive.getinfo("mimetype").file_size < 200
            return names, archive.read("mimetype").decode("latin-1").strip() if is_short else ""
    except BROKEN_ZIP:
        return None


def _suffix_of_zip(data: bytes) -> str | None:
    parts = _parts(data)
    if parts is None:
        return None
    names, mime = parts
    return ZIP_MIMES.get(mime) or next(
        (suffix for name, suffix in ZIP_PARTS if name in names), None
    )


def _foreign_zip(data: bytes) -> str | None:
    parts = _parts(data)
    if parts is None:
        return DAMAGED_ARCHIVE
    names, _ = parts
    if "Index.zip" in names or any(name.endswith(".iwa") for name in names):
        return APPLE
    if "xl/workbook.bin" in names:
        return BINARY_SHEET
    return DRAWING if "visio/document.xml" in names or "content.xml" in names else ARCHIVE


def _is_mail(head: bytes) -> bool:
    """True for the head of a message: three fields or more, those of the standard among them."""
    found = MAIL.match(head)
    if found is None:
        return False
    names = {
        line.split(b":", 1)[0].strip().lower()
        for line in found[0].splitlines()
        if line[:1] not in b" \t"
    }
    return b"from" in names and bool(names & {b"message-id", b"mime-version", b"received"})
