"""What the standard streams can carry: characters that an encoding lacks, the terminal's width.

Prints nothing.
"""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys

ERRORS = "cmt-escape"
# Another handler is the user's choice, in PYTHONIOENCODING.
REPLACED = ("strict", "surrogateescape", "backslashreplace")
DOTS = {"…": "..."}  # our own sign for what is cut


def prepare() -> None:
    """Let stdout and stderr write every character, also in an encoding that lacks it.

    Such as cp1252 in a pipe on Windows. What is lacking becomes the escape of its code point: a
    question mark would hide which character it was.
    """
    codecs.register_error(ERRORS, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in REPLACED:
            stream.reconfigure(errors=ERRORS)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    shown = (DOTS.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in lacking)
    return "".join(shown), error.end


def as_written(text: str) -> str:
    """A text as stdout will write it: its width counts where columns are laid out."""
    if text.isascii() or not isinstance(sys.stdout, io.TextIOWrapper):
        return text
    encoding, errors = sys.stdout.encoding, sys.stdout.errors or "strict"
    return text.encode(encoding, errors).decode(encoding, "replace")


def terminal_width() -> int:
    """Columns of the terminal; 80 where nobody says, and where COLUMNS or the terminal says 0."""
    return shutil.get_terminal_size((80, 24)).columns


def forced_width() -> int | None:
    """A width for what would take COLUMNS=0 at its word; None where the terminal can be asked."""
    columns = os.environ.get("COLUMNS", "")
    return terminal_width() if columns.isdigit() and not int(columns) else None
