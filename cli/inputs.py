"""Read texts from files, globs, standard input and options. Opens no memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from glob import glob, has_magic

import click

import cmt_sdk
from cmt_cli.output import one_line
from cmt_sdk.errors import InvalidDocument, NotFound


def decode_utf8(data: bytes) -> str:
    """Decode standard input. Raises InvalidDocument if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDocument(
            f"standard input is not UTF-8 text ({error.reason} at byte {error.start}): convert it"
            " first, for example with iconv"
        ) from error


def read_stdin() -> str:
    """Read all of standard input as UTF-8 text; "" if the caller closed it."""
    return decode_utf8(sys.stdin.buffer.read()) if sys.stdin else ""


def text_argument(text: str | None, file: str | None) -> str:
    """Return the text of --text, of a file, or of standard input for "-".

    Raises:
        click.UsageError: Both or neither are given.
    """
    if text is not None and file is not None:
        raise click.UsageError("--text and FILE are two texts: give one of them")
    if text is not None:
        return text
    if file == "-":
        return read_stdin()
    if file is None:
        raise click.UsageError("give a FILE, - for standard input, or --text")
    return cmt_sdk.read_document(file).text


def path_exists(path: str) -> bool:
    """Return whether a path exists; False for a closed folder or a name that is too long.

    Path.exists would raise for those.
    """
    return os.path.exists(path)  # noqa: PTH110 - for that reason


def expand_globs(paths: Iterable[str]) -> Sequence[str]:
    """Replace globs by the paths that match; each path is returned once.

    Raises:
        NotFound: A path or glob matches nothing.
    """
    found: dict[str, None] = {}
    for path in paths:
        matching = [path]
        if path != "-" and not path_exists(path):
            matching = sorted(glob(path, recursive=True))  # noqa: PTH207 - absolute patterns too
        if not matching:
            what = "no file matches" if has_magic(path) else "there is no file or folder"
            raise NotFound(f"{what} {one_line(path, 80)}; a text is given with --text")
        found |= dict.fromkeys(matching)
    return list(found)
