"""Files to documents: plain text as it is, other formats as Markdown or text. Knows no store and no
model.

From a page or a letter it takes what a reader sees: headings, lists and tables, no pictures, link
targets or emphasis.
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
