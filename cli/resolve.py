"""Find the document or the source that a user means: by id, path, end of a path, or source.

Prints nothing and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import cmt_sdk
from cmt_cli.output import local_time, one_line, pluralize, short_id, short_source
from cmt_cli.sources import expand_path, is_inside, normalized_path, parts_of
from cmt_sdk.errors import DocumentNotFound, InvalidInput

MIN_ID_CHARS = 4  # fewer leading characters of an id identify no document
MAX_CANDIDATES = 8  # candidates that a message lists
TEXT_CELLS = 40  # terminal cells of text that distinguish documents of one source


def resolve_id(memory: cmt_sdk.Memory, given: str) -> str:
    """Return the id of the one document that a user means.

    Args:
        memory: The memory to look in.
        given: An id, the beginning of an id, a source, a path, or the end of a path.

    Raises:
        DocumentNotFound: No document matches.
        InvalidInput: Several documents match.
    """
    ids = memory.ids(given) if given else []
    if given in ids:
        return given
    documents = documents_from(memory, given)
    if not documents and ids and len(given) >= MIN_ID_CHARS:
        if len(ids) > 1:
            some = ", ".join(ids[:MAX_CANDIDATES]) + (", …" if len(ids) > MAX_CANDIDATES else "")
            raise InvalidInput(
                f"{given!r} begins {pluralize(len(ids), 'id')}: {some}; write more of the one you"
                " mean"
            )
        return ids[0]
    documents = documents or documents_ending_in(memory, given)
    if not documents:
        raise DocumentNotFound(_folder_message(memory, given) or _unknown_message(given))
    if len(documents) > 1:
        raise InvalidInput(
            f"{given!r} fits {pluralize(len(documents), 'document')}: {_candidates(documents)}"
        )
    return documents[0].id


def resolve_filter(memory: cmt_sdk.Memory, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filter with its source as the memory stores it.

    Commands show a path relative to the current folder; the memory stores the absolute path.
    """
    source = filters["source"]
    if not source or memory.count(source=source):
        return dict(filters)
    sources = {d.source for d in documents_from(memory, source)}
    absolute = Path(os.path.abspath(expand_path(source))).as_posix()  # noqa: PTH100 - without asking the disk: the file may be gone
    return {**filters, "source": sources.pop() if len(sources) == 1 else absolute}


def documents_from(memory: cmt_sdk.Memory, given: str) -> Sequence[cmt_sdk.Document]:
    """Return the documents of a source, given as it is stored or as a path on this machine."""
    path = expand_path(given)
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
    """Return candidates for a source; for non-ASCII names all documents.

    Unicode writes one name in composed, decomposed or mixed form; the caller compares in NFC.
    """
    found = [*memory.documents(source=name)] if name else []
    return found or (memory.documents() if not name.isascii() else [])


def documents_ending_in(memory: cmt_sdk.Memory, given: str) -> Sequence[cmt_sdk.Document]:
    """Return the documents whose source ends in these parts of a path.

    The first comparison with a match counts: exact, then without case, then also without suffix.
    """
    exact = PurePosixPath(normalize("NFC", given.replace("\\", "/"))).parts
    loose = parts_of(expand_path(given))
    comparisons: Sequence[Callable[[str], bool]] = [
        lambda source: (
            PurePosixPath(normalize("NFC", source.replace("\\", "/"))).parts[-len(exact) :] == exact
        ),
        lambda source: parts_of(source)[-len(loose) :] == loose,
        lambda source: (
            parts_of(str(PurePosixPath(normalized_path(source)).with_suffix("")))[-len(loose) :]
            == loose
        ),
    ]
    found: list[list[cmt_sdk.Document]] = [[] for _ in comparisons]
    for document in memory.documents() if loose else ():
        if not document.source or not PurePosixPath(document.source).name:
            continue
        for matches, some in zip(comparisons, found, strict=True):
            if matches(document.source):
                some.append(document)
    return next((some for some in found if some), [])


def _folder_message(memory: cmt_sdk.Memory, given: str) -> str:
    """Return a message that lists the documents of a folder; "" if no document came from it."""
    folder = Path(os.path.abspath(expand_path(given))).as_posix().rstrip("/")  # noqa: PTH100 - the folder may be gone
    found = (
        [d for d in memory.documents() if is_inside(d.source or "", [Path(folder)])]
        if given
        else []
    )
    if not found:
        return ""
    some = ", ".join(short_source(d.source, d.id) for d in found[:MAX_CANDIDATES])
    if len(found) > MAX_CANDIDATES:
        some += ", …"
    every = f"--source '{short_source(folder, '')}/*'"
    how = f"give one of them; `cmt list {every}` lists all, and rm and forget take {every}"
    return (
        f"{given} is a folder, from which {pluralize(len(found), 'document')} came: {some}; {how}"
    )


def _unknown_message(given: str) -> str:
    short = (
        f" (of which a beginning must have {MIN_ID_CHARS} characters)"
        if len(given) < MIN_ID_CHARS
        else ""
    )
    return (
        f"no document has an id that begins with {given!r:.100}{short}, nor a source or path that"
        " ends so; `cmt list` shows those there are, `cmt list --source '*PART*'` those with a"
        " part of a path or an address"
    )


def _candidates(documents: Sequence[cmt_sdk.Document]) -> str:
    """List the documents that a user may mean and how to select one.

    Documents of one source are distinguished by their text.
    """
    has_one_source = len({document.source for document in documents}) == 1
    dots = ", …" if len(documents) > MAX_CANDIDATES else ""
    some = ", ".join(_candidate(d, has_one_source) for d in documents[:MAX_CANDIDATES]) + dots
    remedy = "give the id of one of them" if has_one_source else "write more of the path, or the id"
    return f"{some}; {remedy}"


def _candidate(document: cmt_sdk.Document, with_text: bool) -> str:
    scope = f" ({document.scope})" if document.scope else ""
    if not with_text:
        return f"{short_id(document.id)} {short_source(document.source, '')}{scope}"
    since = local_time(document.updated_at)
    return f'{short_id(document.id)}{scope} of {since} "{one_line(document.text, TEXT_CELLS)}"'
