"""`cmt update`, `rm`, `forget`: changing what is remembered."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.inputs import given_text
from cmt_cli.memories import narrowed, opened, whole_id
from cmt_cli.options import expires_option, filter_options, json_option, memory_option, meta_option
from cmt_cli.output import amount, one_line, place, print_json, say, short_id
from cmt_sdk.errors import DocumentNotFound

NOTHING_NEW = "give a FILE, - for standard input, or --text for a new text; or fields: --source, --scope, --meta, --expires"


@click.command()
@click.argument("document_id", metavar="ID")
@click.argument("file", required=False, metavar="[FILE|-]", type=click.Path(allow_dash=True, readable=False))
@click.option("--text", help="The new text.")
@click.option("--source", help="The new source.")
@click.option("--scope", help="The new scope.")
@meta_option
@expires_option
@memory_option
@json_option
def update(
    document_id: str,
    file: str | None,
    text: str | None,
    source: str | None,
    scope: str | None,
    meta: Mapping[str, Any],
    expires: datetime | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Store the next version of a document.

    The old one stops answering at once. Without a text, the fields change in place; --meta sets one key, null takes it
    out.

    \b
    Example:
      cmt update 3f2a --text "The museum moved to Porto in 2021."
      cmt update 3f2a trip.md --meta checked=true
    """  # noqa: D301 - click reads the escape
    changes: dict[str, Any] = {"source": source, "scope": scope, "expires_at": expires}
    fields = {name: value for name, value in changes.items() if value is not None}
    keep_text = text is None and file is None and bool(fields or meta)
    if text is None and file is None and not keep_text:
        raise click.UsageError(NOTHING_NEW)
    new = None if keep_text else given_text(text, file)
    with opened(folder) as memory:
        known = memory.get(whole_id(memory, document_id))
        if meta:
            merged = {**known.metadata, **meta}
            fields["metadata"] = {key: value for key, value in merged.items() if value is not None}
        document = memory.update(known.id, new, **fields)
    if as_json:
        print_json(document)
    else:
        changed = ", ".join(["", *(_told(key, value) for key, value in meta.items())])
        say(f"{short_id(document.id)} is version {document.version}{changed}")


def _told(key: str, value: Any) -> str:
    """What has become of a key of the metadata."""
    return f"without {key}" if value is None else f"{key}={json.dumps(value, ensure_ascii=False)}"


@click.command()
@click.argument("document_ids", metavar="ID...", nargs=-1, required=True)
@memory_option
@json_option
def rm(document_ids: Sequence[str], folder: Path, as_json: bool) -> None:
    """Take documents out, with their history.

    For bytes gone from the disk, with a receipt: `cmt forget`.

    \b
    Example:
      cmt rm 3f2a 77b0
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        chosen = dict.fromkeys(whole_id(memory, given) for given in document_ids)
        removed = [memory.delete(document_id).id for document_id in chosen]
    if as_json:
        print_json({"removed": removed})
    else:
        say(f"{amount(len(removed), 'document')} removed")


@click.command()
@click.argument("document_id", metavar="[ID]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@filter_options
@memory_option
@json_option
def forget(document_id: str | None, yes: bool, chosen: Mapping[str, Any], folder: Path, as_json: bool) -> None:
    """Erase documents from every file, and print a receipt.

    All versions go, and what was made from them. The exit code is 1 when a scan of the files' bytes still finds a trace
    of them, or another process keeps them open.

    \b
    Example:
      cmt forget 3f2a
      cmt forget --source "*/old.md"
      cmt forget --scope user/ann --yes
    """  # noqa: D301 - click reads the escape
    filtered = any(value is not None for value in chosen.values())
    if document_id is None and not filtered:
        raise click.UsageError("give an ID, --source, --scope or --where; all there is: --scope ''")
    if document_id is not None and filtered:
        raise click.UsageError("give an ID or a filter, not both")
    if as_json and not yes:
        raise click.UsageError("--json asks no questions: give --yes as well")
    with opened(folder) as memory:
        whole = None if document_id is None else whole_id(memory, document_id)
        chosen = narrowed(memory, chosen)
        if not yes:
            _confirm(memory, whole, chosen)
        receipt = memory.forget(whole, **chosen)
    if not receipt.documents:
        raise DocumentNotFound("no document fits, nothing was forgotten: sources are as `cmt list` shows them, * is any part")
    if as_json:
        print_json(receipt)
    else:
        _print(receipt)
    if receipt.traces_found or not receipt.complete:
        sys.exit(1)


def _confirm(memory: cmt_sdk.Memory, whole: str | None, chosen: Mapping[str, Any]) -> None:
    count = memory.count(**chosen) if whole is None else 1
    first = islice(memory.documents(**chosen), 5) if whole is None else [memory.get(whole)]
    for document in first:
        say(f"{place(document.source, document.id)}  {one_line(document.text, 60)}", err=True)
    if count > 5:
        say("…", err=True)
    if not click.confirm(f"Erase {amount(count, 'document')} for good?", err=True):
        raise click.ClickException("nothing was forgotten")


def _print(receipt: cmt_sdk.Receipt) -> None:
    versions, passages = amount(receipt.versions, "version"), amount(receipt.passages, "passage")
    say(f"{amount(len(receipt.documents), 'document')} erased ({versions}, {passages}), {receipt.bytes_freed:,} bytes freed")
    traces = amount(receipt.traces_found, "trace") if receipt.traces_found else "no trace"
    say(f"{traces} left in {', '.join(receipt.files_scanned)}", fg="red" if receipt.traces_found else None)
    if not receipt.complete:
        say("another process still reads the state before: what it keeps is erased by the next command after it", fg="red")
