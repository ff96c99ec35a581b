"""Files to documents: plain text as it is, other formats as Markdown or text.

A converter keeps the text that a reader of the page or letter sees: headings, lists and tables; no
pictures, link targets or emphasis. Knows no store and no model. The converters are imported when a
file is read, so that a question does not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmt_sdk.converting.text import check_text

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cmt_sdk.converting import files

    return getattr(files, name)
