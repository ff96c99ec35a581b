"""Encoding of the standard streams and width of the terminal. Prints nothing."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys

ERROR_HANDLER = "cmt-escape"
# Any other handler was chosen by the user in PYTHONIOENCODING and stays.
REPLACED_HANDLERS = ("strict", "surrogateescape", "backslashreplace")
ASCII_FORMS = {"…": "..."}  # the ellipsis that marks truncated text


def configure_streams() -> None:
    """Let stdout and stderr write every character, also in an encoding that lacks it.

    An example is cp1252 in a pipe on Windows. A character that the encoding lacks becomes the
    escape of its code point; a question mark would hide which character it was.
    """
    codecs.register_error(ERROR_HANDLER, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in REPLACED_HANDLERS:
            stream.reconfigure(errors=ERROR_HANDLER)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    escapes = (
        ASCII_FORMS.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in missing
    )
    return "".join(escapes), error.end


def as_encoded(text: str) -> str:
    """Return a text as stdout will write it, to measure its width."""
    if text.isascii() or not isinstance(sys.stdout, io.TextIOWrapper):
        return text
    encoding = sys.stdout.encoding
    return text.encode(encoding, sys.stdout.errors or "strict").decode(encoding, "replace")


def terminal_width() -> int:
    """Return the columns of the terminal; 80 if they are unknown or reported as 0."""
    return shutil.get_terminal_size((80, 24)).columns


def forced_width() -> int | None:
    """Return a width for rich if COLUMNS is 0, which rich would use as it is; else None."""
    columns = os.environ.get("COLUMNS", "")
    return terminal_width() if columns.isdigit() and not int(columns) else None
