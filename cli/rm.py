"""`cmt rm`: remove documents with their history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, filter_options, json_option, memory_option
from cmt_cli.output import echo, pluralize, print_json
from cmt_cli.removal import (
    check_filter,
    confirm,
    keep_out_option,
    remaining_files,
    report_remaining,
    require_documents,
)
from cmt_cli.resolve import resolve_filter, resolve_id


@click.command()
@click.argument("document_ids", metavar="[DOCUMENT]...", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask; the command asks if a filter is given.")
@keep_out_option
@filter_options
@memory_option
@json_option
def rm(
    document_ids: Sequence[str],
    yes: bool,
    keep_out: bool,
    filters: Mapping[str, Any],
    folder: Place,
    as_json: bool,
) -> None:
    """Remove documents with their history.

    DOCUMENT is an id or its first characters, a path, or another source. To erase the bytes from
    the disk, with a receipt, use `cmt forget`.

    \b
    Example:
      cmt rm 3f2a notes/old.md
      cmt rm --source "*/drafts/*"
    """  # noqa: D301 - click reads the escape
    is_named = bool(document_ids)
    has_filter = check_filter(filters, is_named, yes=yes, as_json=as_json and not is_named)
    with open_memory(folder) as memory:
        if has_filter:
            documents = list(memory.documents(**resolve_filter(memory, filters)))
            require_documents(documents)
            if not yes:
                confirm(documents, len(documents), "Remove {}?", "nothing was removed")
        else:
            ids = dict.fromkeys(resolve_id(memory, given) for given in document_ids)
            documents = [memory.get(document_id) for document_id in ids]
        remaining = remaining_files(memory, documents, keep_out=keep_out)
        removed = [memory.delete(document.id).id for document in documents]
    if as_json:
        print_json({"removed": removed, "still_there": remaining, "kept_out": keep_out})
        return
    echo(f"{pluralize(len(removed), 'document')} removed")
    report_remaining(remaining, keep_out=keep_out)
