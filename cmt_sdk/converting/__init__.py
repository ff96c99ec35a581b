"""Files to documents: plain text as it is, other formats as Markdown or text.

A converter keeps the text that a reader of the page or letter sees: headings, lists and tables; no
pictures, link targets or emphasis. Knows no store and no model.
"""

from cmt_sdk.converting.files import (
    CONVERTERS,
    FILE_SUFFIXES,
    SUFFIXES,
    TEXT,
    is_placeholder,
    list_files,
    read_document,
    read_documents,
)
from cmt_sdk.converting.text import check_text

__all__ = [
    "CONVERTERS",
    "FILE_SUFFIXES",
    "SUFFIXES",
    "TEXT",
    "check_text",
    "is_placeholder",
    "list_files",
    "read_document",
    "read_documents",
]
