"""The JSON items in an export of conversations: of a file, a zip file or a folder. Knows zip and
JSON, not what they mean.

Exports reach hundreds of megabytes: a list is read item by item, and no size that a file claims is
believed.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from cmt_sdk.errors import InvalidInput, NotFound, StorageDenied

Item: TypeAlias = Mapping[str, Any]

LARGEST_FILE = 2**32  # bytes of JSON
LARGEST_ITEM = 2**26  # characters of one conversation, or of a file that is one object
BLOCK = 2**20
WANTED = re.compile(
    r"(?!__MACOSX/)(?:.*/)?(?:conversations(?:-\d+)?|(?:memories|projects)(?:/[^/]+)?)\.json"
)
PATTERNS = ("*.json", "memories/*.json", "projects/*.json")
LISTS = ("results", "memories", "conversations")  # where an object holds its items
EXPECTED = (
    "give an export of ChatGPT or Claude (its zip file, folder or conversations.json), or a JSON"
    " file of mem0"
)

DECODER = json.JSONDecoder()
BETWEEN = re.compile(r"[\s,]*")


def read_items(path: Path) -> Iterator[tuple[str, Item]]:
    """The items of an export, each with its place in words. Raises InvalidInput, NotFound,
    StorageDenied.
    """
    with _readable(path):
        for where, file in _files(path):
            yield from _items(file, where)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Translate what the operating system, zipfile and the decoder refuse."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no file {path}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}): {EXPECTED}"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # the last: a password
        raise InvalidInput(
            f"{path} cannot be unpacked ({error}): fetch the export again"
        ) from error
    except OSError as error:
        raise StorageDenied(f"{path} cannot be read: {error.strerror or error}") from error


def _files(path: Path) -> Iterator[tuple[str, TextIO]]:
    """The JSON files of an export, open, each with its place in words."""
    if not path.is_dir() and not zipfile.is_zipfile(path):
        yield from _opened([path])
        return
    found = False
    for place in _beneath(path) if path.is_dir() else _members(path):
        found = True
        yield place
    if not found:
        raise InvalidInput(
            f"{path} is no archive of `cmt export`, and holds no conversations.json: {EXPECTED}"
        )


def _beneath(folder: Path) -> Iterator[tuple[str, TextIO]]:
    files = sorted(file for pattern in PATTERNS for file in folder.glob(pattern))
    return _opened(
        [file for file in files if WANTED.fullmatch(file.relative_to(folder).as_posix())]
    )


def _opened(files: Sequence[Path]) -> Iterator[tuple[str, TextIO]]:
    for file in files:
        _check_size(file.stat().st_size, str(file))
        with file.open(encoding="utf-8-sig") as text:
            yield str(file), text


def _members(path: Path) -> Iterator[tuple[str, TextIO]]:
    with zipfile.ZipFile(path) as archive:
        wanted = [info for info in archive.infolist() if WANTED.fullmatch(info.filename)]
        # zipfile gives no more than these
        _check_size(sum(info.file_size for info in wanted), f"{path}, unpacked,")
        for info in sorted(wanted, key=lambda i: i.filename):
            with archive.open(info) as member, TextIOWrapper(member, "utf-8-sig") as text:
                yield f"{path}, {info.filename}", text


def _check_size(size: int, where: str) -> None:
    if size > LARGEST_FILE:
        raise InvalidInput(
            f"{where} has {size:,} bytes, JSON is read up to {LARGEST_FILE:,}: split it"
        )


def _items(file: TextIO, where: str) -> Iterator[tuple[str, Item]]:
    """The objects of a JSON file: those of its list, or the one that it is, or those that this one
    holds.
    """
    start = file.read(BLOCK).lstrip()
    if start.startswith("["):
        yield from _listed(file, start[1:], where)
    elif start.startswith("{"):
        _, whole = next(_listed(file, start, where))
        inside = next((whole[name] for name in LISTS if isinstance(whole.get(name), list)), [whole])
        for number, item in enumerate(inside, 1):
            yield _object(item, f"{where}, item {number}")
    else:
        raise InvalidInput(f"{where} is no archive of `cmt export`, and no JSON: {EXPECTED}")


def _listed(file: TextIO, buffer: str, where: str) -> Iterator[tuple[str, Item]]:
    """The items of a list one by one; `buffer` is its beginning."""
    at, number = 0, 1
    while True:
        at = _end(BETWEEN.match(buffer, at))
        if buffer[at : at + 1] == "]":
            return
        place = f"{where}, item {number}"
        try:
            item, at = DECODER.raw_decode(buffer, at)
        except RecursionError as error:
            raise InvalidInput(f"{place} is nested too deep: {EXPECTED}") from error
        except ValueError as error:  # cut off at the buffer's end, perhaps
            buffer, at = buffer[at:] + _more(file, len(buffer) - at, place, error), 0
            continue
        yield _object(item, place)
        number += 1


def _end(found: re.Match[str] | None) -> int:
    assert found is not None  # noqa: S101 - the pattern fits nothing as well
    return found.end()


def _more(file: TextIO, held: int, place: str, error: ValueError) -> str:
    """As much again as is held, so that an item is decoded a few times and not many."""
    if held > LARGEST_ITEM:
        raise InvalidInput(
            f"{place} is damaged, or longer than {LARGEST_ITEM:,} characters ({error}): {EXPECTED}"
        ) from error
    more = file.read(max(BLOCK, held))
    if not more:
        raise InvalidInput(
            f"{place} is damaged or cut off ({error}): fetch the export again"
        ) from error
    return more


def _object(item: object, place: str) -> tuple[str, Item]:
    if not isinstance(item, dict):
        raise InvalidInput(f"{place}: {item!r:.60} is no object: {EXPECTED}")
    return place, item
