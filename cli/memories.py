"""Opening the memory that a command names, and finding the documents in it that are meant. Prints nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.output import amount
from cmt_sdk.errors import DocumentNotFound, InvalidInput

SHORTEST = 4
SHOWN = 8


def opened(folder: Path, *, create: bool = False, **settings: Any) -> cmt_sdk.Memory:
    """The memory in a folder. Whoever calls the command may bring the function that opens it, as the context's `obj`."""
    opener: Any = click.get_current_context().obj or cmt_sdk.open
    memory: cmt_sdk.Memory = opener(folder, create=create, **settings)
    return memory


def whole_id(memory: cmt_sdk.Memory, given: str) -> str:
    """The one id that is `given` or begins with it. Raises DocumentNotFound, InvalidInput where several do."""
    found = memory.ids(given) if given else []
    if given in found:
        return given
    if len(given) < SHORTEST:
        raise DocumentNotFound(f"no document has the id {given!r}; a beginning must have {SHORTEST} characters")
    if not found:
        raise DocumentNotFound(f"no document has an id that begins with {given!r}; `cmt list` shows those there are")
    if len(found) > 1:
        some = ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
        raise InvalidInput(f"{given!r} begins {amount(len(found), 'id')}: {some}; write more of the one you mean")
    return found[0]


def narrowed(memory: cmt_sdk.Memory, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The filter with its source as it is stored: a relative path, as commands show it, stands for the whole one."""
    source = chosen["source"]
    if source and not memory.count(source=source):
        source = Path(os.path.abspath(source)).as_posix()  # noqa: PTH100 - without asking the disk: the file may be gone
    return {**chosen, "source": source}
