"""Pdf files to text, by PDFium. Knows no other format."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from cmt_sdk.converting.result import Converted, damaged

LINE_HYPHEN = re.compile("[\x02\ufffe]")  # what PDFium gives for a hyphen at a line's end, in newer and older releases

_pdfium_lock = threading.Lock()  # PDFium is not made for several threads


def from_pdf(data: bytes, path: Path) -> Converted:
    """The text of a pdf file's pages. Raises InvalidDocument for a damaged one."""
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        with _pdfium_lock, PdfDocument(data) as pdf:
            pages = [page.get_textpage().get_text_bounded() for page in pdf]
    except PdfiumError as error:
        raise damaged(path, error) from error
    return Converted(LINE_HYPHEN.sub("", "\n\n".join(pages)).replace("\r\n", "\n"))
