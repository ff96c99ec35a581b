"""`cmt forget`: erase documents from every file, with a receipt."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

import cmt_sdk
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, filter_options, json_option, memory_option
from cmt_cli.output import echo, pluralize, print_json, to_jsonable
from cmt_cli.removal import (
    check_filter,
    confirm,
    keep_out_option,
    remaining_files,
    report_remaining,
    require_documents,
)
from cmt_cli.resolve import resolve_filter, resolve_id

MAX_COPIES = 5  # copies that the receipt names


@click.command()
@click.argument("document_id", metavar="[DOCUMENT]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@keep_out_option
@filter_options
@memory_option
@json_option
def forget(
    document_id: str | None,
    yes: bool,
    keep_out: bool,
    filters: Mapping[str, Any],
    folder: Place,
    as_json: bool,
) -> None:
    """Erase documents from every file, and print a receipt.

    DOCUMENT is an id or its first characters, a path, or another source. All versions are erased,
    with everything that was made from them. The exit code is 1 if a scan of the files' bytes still
    finds a trace, or if another process keeps the old state open.

    A file that still exists is added again with its folder: the receipt names it. --keep-out
    prevents that until the file itself is added.

    \b
    Example:
      cmt forget 3f2a
      cmt forget notes/old.md --keep-out
      cmt forget --source "*/old.md"
      cmt forget --scope user/ann --yes
    """  # noqa: D301 - click reads the escape
    check_filter(filters, document_id is not None, yes=yes, as_json=as_json)
    with open_memory(folder) as memory:
        resolved = None if document_id is None else resolve_id(memory, document_id)
        filters = resolve_filter(memory, filters)
        documents = (
            list(memory.documents(**filters)) if resolved is None else [memory.get(resolved)]
        )
        if not yes:
            confirm(documents, len(documents), "Erase {} for good?", "nothing was forgotten")
        remaining = remaining_files(memory, documents, keep_out=keep_out)
        receipt = memory.forget(resolved, **filters)
    require_documents(receipt.documents)
    if as_json:
        print_json({**to_jsonable(receipt), "still_there": remaining, "kept_out": keep_out})
    else:
        _print_receipt(receipt)
        report_remaining(remaining, keep_out=keep_out)
    if receipt.traces_found or not receipt.complete:
        sys.exit(1)


def _print_receipt(receipt: cmt_sdk.Receipt) -> None:
    versions = pluralize(receipt.versions, "version")
    passages = pluralize(receipt.passages, "passage")
    freed = f", {receipt.bytes_freed:,} bytes freed" if receipt.bytes_freed else ""
    documents = pluralize(len(receipt.documents), "document")
    echo(f"{documents} erased ({versions}, {passages}){freed}")
    traces = pluralize(receipt.traces_found, "trace") if receipt.traces_found else "no trace"
    echo(
        f"{traces} left in {', '.join(receipt.files_scanned)}",
        fg="red" if receipt.traces_found else None,
    )
    if not receipt.complete:
        echo(
            "another process still reads the previous state, or deletes objects; the next command"
            " after it ends finishes this",
            fg="red",
        )
    if receipt.objects:
        echo(f"{pluralize(len(receipt.objects), 'object')} deleted")
    if receipt.objects_unproven:
        echo(
            f"of {pluralize(len(receipt.objects_unproven), 'object')} earlier versions may be"
            " there: the place of the objects keeps versions, and its own rules delete them",
            fg="red",
        )
    if receipt.copies:
        names = ", ".join(receipt.copies[:MAX_COPIES])
        if len(receipt.copies) > MAX_COPIES:
            names += ", …"
        echo(
            f"copies made earlier may still hold it: {names}; delete each once you need it no"
            " longer"
        )
