"""Where texts come from: files, folders and globs, standard input, options. Knows no memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from glob import glob, has_magic

import click

import cmt_sdk
from cmt_cli.output import one_line
from cmt_sdk.errors import InvalidDocument, NotFound


def decoded(data: bytes) -> str:
    """Bytes of standard input as text; InvalidDocument when they are none."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDocument(
            f"standard input is no UTF-8 text ({error.reason} at byte {error.start})"
        ) from error


def standard_input() -> str:
    """All of standard input as UTF-8 text; nothing where the caller closed it."""
    return decoded(sys.stdin.buffer.read()) if sys.stdin else ""


def given_text(text: str | None, file: str | None) -> str:
    """The text of --text, of a file, or of standard input for "-"; click.UsageError if none is
    given.
    """
    if text is not None and file is not None:
        raise click.UsageError("--text and FILE are two texts: give one of them")
    if text is not None:
        return text
    if file == "-":
        return standard_input()
    if file is None:
        raise click.UsageError("give a FILE, - for standard input, or --text")
    return cmt_sdk.read_document(file).text


def is_there(path: str) -> bool:
    """True for what can be seen; False, where Path.exists raises, for a closed folder or a name
    that is too long.
    """
    return os.path.exists(path)  # noqa: PTH110 - for that reason


def expanded(paths: Iterable[str]) -> Sequence[str]:
    """Paths with globs replaced by what fits them, each once. Raises NotFound before anything is
    read.
    """
    found: dict[str, None] = {}
    for path in paths:
        matching = [path] if path == "-" or is_there(path) else sorted(glob(path, recursive=True))  # noqa: PTH207 - absolute ones too
        if not matching:
            what = "nothing fits" if has_magic(path) else "there is no file or folder"
            raise NotFound(f"{what} {one_line(path, 80)}; a text is given with --text")
        found |= dict.fromkeys(matching)
    return list(found)
