"""Open or create the memory in the folder that a command names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.error_handling import warn
from cmt_cli.inputs import path_exists
from cmt_cli.options import Place
from cmt_sdk.errors import CMTError


def open_memory(folder: Place, *, create: bool = False, **settings: Any) -> cmt_sdk.Memory:
    """Open the memory in a folder.

    The caller of the command can pass another opener as the `obj` of the click context; tests do.
    """
    opener: Any = click.get_current_context().obj or cmt_sdk.open
    memory: cmt_sdk.Memory = opener(folder, create=create, **settings)
    return memory


@contextmanager
def open_or_create(folder: Place, **settings: Any) -> Iterator[cmt_sdk.Memory]:
    """Open the memory in a folder or database; create it if there is none.

    If the block fails and the new memory is still empty, the memory and its folders are removed.
    """
    if isinstance(folder, cmt_sdk.DatabaseAddress):
        with open_memory(folder, create=True, **settings) as memory:
            yield memory
        return
    absent = [path for path in (folder, *folder.parents) if not path_exists(str(path))]
    is_new = not cmt_sdk.Memory.exists(folder)
    before = None
    try:
        with open_memory(folder, create=True, **settings) as memory:
            before = memory.settings
            if is_new:
                _warn_of_namesake(folder)
            if is_new and not memory.encrypted and os.environ.get("CMT_KEY"):
                _warn_if_unencrypted(folder)
            yield memory
    except BaseException:
        if folder in absent and (
            _is_untouched(folder, before)
            if cmt_sdk.Memory.exists(folder)
            else path_exists(str(folder))
        ):
            _remove_empty(folder, absent)
        raise


def _is_untouched(folder: Path, before: cmt_sdk.Settings | None) -> bool:
    """Return whether the memory stores nothing and has the settings it was created with.

    Another process may have used it meanwhile. False if the memory cannot be opened.
    """
    with suppress(CMTError), open_memory(folder) as memory:
        return not memory.stats().versions and memory.settings == before
    return False


def _warn_of_namesake(folder: Path) -> None:
    """Warn if the current folder holds a memory of the same name.

    A bare name stands for a memory in the data folder; the user may have meant the other one.
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


def _warn_if_unencrypted(folder: Path) -> None:
    as_json = bool(click.get_current_context().params.get("as_json"))
    warn(
        f"{folder} is not encrypted, though CMT_KEY is set: `cmt create --encrypted` makes a memory"
        " that is",
        as_json=as_json,
    )


def _remove_empty(folder: Path, made: Sequence[Path]) -> None:
    """Delete an empty memory and the folders made for it, unless another process has it open."""
    log = f"{cmt_sdk.MEMORY_FILES[0]}-wal"  # SQLite deletes it with the last connection
    if path_exists(str(folder / log)):
        return
    with suppress(OSError):  # a folder that holds other files stays
        for name in cmt_sdk.MEMORY_FILES:
            (folder / name).unlink(missing_ok=True)
        for path in made:
            path.rmdir()
