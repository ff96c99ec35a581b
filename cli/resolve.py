"""Documents by what people call them: a path, a part of one, a source. Knows no ids and prints
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import cmt_sdk
from cmt_cli.sources import key_of, parts_of, path_given


def documents_of(memory: cmt_sdk.Memory, given: str) -> Sequence[cmt_sdk.Document]:
    """The documents whose source this is, or whose file: as it is stored, or as a path on this
    machine.
    """
    path = path_given(given)
    names = [
        given,
        Path(os.path.abspath(path)).as_posix(),  # noqa: PTH100 - the file may be gone
        Path(os.path.realpath(path)).as_posix(),
    ]
    for name in dict.fromkeys(names):
        spelled = normalize("NFC", name)
        found = [
            d for d in _with_source(memory, name) if normalize("NFC", d.source or "") == spelled
        ]
        if found:
            return found
    return []


def _with_source(memory: cmt_sdk.Memory, name: str) -> Iterable[cmt_sdk.Document]:
    """The documents with a source, composed or decomposed, which a path may be in parts."""
    found = [*memory.documents(source=name)] if name else []
    return found or (memory.documents() if not name.isascii() else [])


def documents_ending_in(memory: cmt_sdk.Memory, given: str) -> Sequence[cmt_sdk.Document]:
    """The documents whose source ends in these parts of a path, if need be in small letters or
    without the suffix.
    """
    exact = PurePosixPath(normalize("NFC", given.replace("\\", "/"))).parts
    loose = parts_of(path_given(given))
    ways: Sequence[Callable[[str], bool]] = [
        lambda source: (
            PurePosixPath(normalize("NFC", source.replace("\\", "/"))).parts[-len(exact) :] == exact
        ),
        lambda source: parts_of(source)[-len(loose) :] == loose,
        lambda source: (
            parts_of(str(PurePosixPath(key_of(source)).with_suffix("")))[-len(loose) :] == loose
        ),
    ]
    found: list[list[cmt_sdk.Document]] = [[] for _ in ways]
    for document in memory.documents() if loose else ():
        for way, some in zip(ways, found, strict=True):
            if document.source and PurePosixPath(document.source).name and way(document.source):
                some.append(document)
    return next((some for some in found if some), [])
