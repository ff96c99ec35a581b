"""Opening or beginning the memory that a command names, and finding the documents in it that are
meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.failures import warn
from cmt_cli.inputs import is_there
from cmt_cli.output import amount, local_time, one_line, place, short_id
from cmt_cli.resolve import documents_ending_in, documents_of
from cmt_cli.sources import is_beneath, path_given
from cmt_sdk.errors import CMTError, DocumentNotFound, InvalidInput

SHORTEST = 4
SHOWN = 8
TEXT = 40  # cells of a document's text that tell it from another of the same source


def opened(folder: Path, *, create: bool = False, **settings: Any) -> cmt_sdk.Memory:
    """The memory in a folder. Whoever calls the command may bring the function that opens it, as
    the context's `obj`.
    """
    opener: Any = click.get_current_context().obj or cmt_sdk.open
    memory: cmt_sdk.Memory = opener(folder, create=create, **settings)
    return memory


@contextmanager
def begun(folder: Path, **settings: Any) -> Iterator[cmt_sdk.Memory]:
    """The memory in a folder, made where there is none. One made here that is empty when the block
    fails is taken away again.
    """
    absent = [path for path in (folder, *folder.parents) if not is_there(str(path))]
    is_new, before = not cmt_sdk.Memory.exists(folder), None
    try:
        with opened(folder, create=True, **settings) as memory:
            before = memory.settings
            if is_new:
                _hint_at_another(folder)
            if is_new and not memory.encrypted and os.environ.get("CMT_KEY"):
                _warn_of_plain(folder)
            yield memory
    except BaseException:
        if folder in absent and (
            _is_untouched(folder, before)
            if cmt_sdk.Memory.exists(folder)
            else is_there(str(folder))
        ):
            _take_away(folder, absent)
        raise


def _is_untouched(folder: Path, before: cmt_sdk.Settings | None) -> bool:
    """Whether nothing is stored in a memory and no setting was changed, by whomever; where that
    cannot be told it is not.
    """
    with suppress(CMTError), opened(folder) as memory:
        return not memory.stats().versions and memory.settings == before
    return False


def _hint_at_another(folder: Path) -> None:
    """Name the memory in the folder that a bare name may have meant: such a name is one in the data
    folder.
    """
    name = folder.name
    if (
        folder == cmt_sdk.memory_path(name)
        and cmt_sdk.Memory.exists(Path(name))
        and not os.path.samefile(name, folder)  # noqa: PTH121
    ):
        as_json = bool(click.get_current_context().params.get("as_json"))
        warn(
            f"./{name} is another memory, which -m ./{name} names; {name} is a new one in {folder}",
            as_json=as_json,
        )


def _warn_of_plain(folder: Path) -> None:
    as_json = bool(click.get_current_context().params.get("as_json"))
    warn(
        f"{folder} is not encrypted, though CMT_KEY is set: `cmt create --encrypted` makes a memory"
        " that is",
        as_json=as_json,
    )


def _take_away(folder: Path, made: Sequence[Path]) -> None:
    """Delete an empty memory with the folders that were made for it; not while another process has
    it open.
    """
    if is_there(
        str(folder / f"{cmt_sdk.MEMORY_FILES[0]}-wal")
    ):  # SQLite deletes it with the last connection
        return
    with suppress(OSError):  # a folder that holds something else stays
        for name in cmt_sdk.MEMORY_FILES:
            (folder / name).unlink(missing_ok=True)
        for path in made:
            path.rmdir()


def whole_id(memory: cmt_sdk.Memory, given: str) -> str:
    """The id of the one document that a user means: by its id or a beginning of it, its source, or
    its path or the end of that.

    Raises DocumentNotFound, InvalidInput where several documents fit.
    """
    ids = memory.ids(given) if given else []
    if given in ids:
        return given
    documents = documents_of(memory, given)
    if not documents and ids and len(given) >= SHORTEST:
        if len(ids) > 1:
            some = ", ".join(ids[:SHOWN]) + (", …" if len(ids) > SHOWN else "")
            raise InvalidInput(
                f"{given!r} begins {amount(len(ids), 'id')}: {some}; write more of the one you mean"
            )
        return ids[0]
    documents = documents or documents_ending_in(memory, given)
    if not documents:
        raise DocumentNotFound(_within(memory, given) or _unknown(given))
    if len(documents) > 1:
        raise InvalidInput(
            f"{given!r} fits {amount(len(documents), 'document')}: {_candidates(documents)}"
        )
    return documents[0].id


def _within(memory: cmt_sdk.Memory, given: str) -> str:
    """What to say of a folder: the documents that come from it, and how to name all; empty where
    there are none.
    """
    folder = Path(os.path.abspath(path_given(given))).as_posix().rstrip("/")  # noqa: PTH100 - the folder may be gone
    found = (
        [d for d in memory.documents() if is_beneath(d.source or "", [Path(folder)])]
        if given
        else []
    )
    if not found:
        return ""
    some = ", ".join(place(d.source, d.id) for d in found[:SHOWN]) + (
        ", …" if len(found) > SHOWN else ""
    )
    every = f"--source '{place(folder, '')}/*'"
    how = f"give one of them; `cmt list {every}` lists all, and rm and forget take {every}"
    return f"{given} is a folder, from which {amount(len(found), 'document')} came: {some}; {how}"


def _unknown(given: str) -> str:
    short = (
        f" (of which a beginning must have {SHORTEST} characters)" if len(given) < SHORTEST else ""
    )
    return (
        f"no document has an id that begins with {given!r:.100}{short}, nor a source or path that"
        " ends so; `cmt list` shows those there are, `cmt list --source '*PART*'` those with a"
        " part of a path or an address"
    )


def _candidates(documents: Sequence[cmt_sdk.Document]) -> str:
    """The documents that a user may mean, and how to say which; those of one source by what they
    say.
    """
    is_one = len({document.source for document in documents}) == 1
    dots = ", …" if len(documents) > SHOWN else ""
    some = ", ".join(_candidate(document, is_one) for document in documents[:SHOWN]) + dots
    return (
        f"{some}; {'give the id of one of them' if is_one else 'write more of the path, or the id'}"
    )


def _candidate(document: cmt_sdk.Document, with_text: bool) -> str:
    scope = f" ({document.scope})" if document.scope else ""
    if not with_text:
        return f"{short_id(document.id)} {place(document.source, '')}{scope}"
    since = local_time(document.updated_at)
    return f'{short_id(document.id)}{scope} of {since} "{one_line(document.text, TEXT)}"'


def narrowed(memory: cmt_sdk.Memory, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The filter with its source as it is stored: a path, as commands show it, stands for the whole
    one.
    """
    source = chosen["source"]
    if not source or memory.count(source=source):
        return dict(chosen)
    sources = {d.source for d in documents_of(memory, source)}
    whole = Path(os.path.abspath(path_given(source))).as_posix()  # noqa: PTH100 - without asking the disk: the file may be gone
    return {**chosen, "source": sources.pop() if len(sources) == 1 else whole}
