"""`cmt update`: store the next version of a document."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import click

import cmt_sdk
from cmt_cli.error_handling import hold_warnings, warn
from cmt_cli.inputs import text_argument
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, expires_option, json_option, memory_option, meta_option
from cmt_cli.output import echo, print_json, short_id, short_source
from cmt_cli.resolve import resolve_id
from cmt_cli.sources import EDITED_VERSION, FileState, expand_path, file_state, is_file
from cmt_sdk.errors import CMTError

NOTHING_NEW = (
    "`cmt add {}` updates from a changed file; else give a FILE, - for standard input, or --text"
    " for a new text; or fields: --source, --scope, --meta, --expires"
)


@click.command()
@click.argument("document_id", metavar="DOCUMENT")
@click.argument(
    "file", required=False, metavar="[FILE|-]", type=click.Path(allow_dash=True, readable=False)
)
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
    folder: Place,
    as_json: bool,
) -> None:
    """Store the next version of a document.

    DOCUMENT is an id or its first characters, a path, or another source. The previous version stops
    answering at once. Without a new text, the given fields change in place; --meta sets one key,
    and the value null removes it. To update from a changed file, use `cmt add`.

    \b
    Example:
      cmt update 3f2a --text "The museum moved to Porto in 2021."
      cmt update notes/trip.md --meta year=2021
      cmt update 3f2a trip.md --meta checked=true
    """  # noqa: D301 - click reads the escape
    changes: dict[str, Any] = {"source": source, "scope": scope, "expires_at": expires}
    fields = {name: value for name, value in changes.items() if value is not None}
    keep_text = text is None and file is None and bool(fields or meta)
    if text is None and file is None and not keep_text:
        is_path = os.path.isfile(expand_path(document_id))  # noqa: PTH113 - Path's raises in a closed folder
        raise click.UsageError(NOTHING_NEW.format(document_id if is_path else "FILE"))
    new = None if keep_text else text_argument(text, file)
    with open_memory(folder) as memory:
        known = memory.get(resolve_id(memory, document_id))
        if meta:
            fields["metadata"] = _merged(known.metadata, meta)
        is_edited = (
            new is not None
            and new != known.text
            and _differs_from_file(source or known.source, new)
        )
        if is_edited:
            metadata = fields.get("metadata", known.metadata)
            fields["metadata"] = {**metadata, EDITED_VERSION: known.version + 1}
        document = memory.update(known.id, new, **fields)
    if is_edited:
        _warn_of_file(document, as_json=as_json)
    if as_json:
        print_json(document)
    else:
        changed = ", ".join(["", *(_describe_change(key, value) for key, value in meta.items())])
        echo(f"{short_id(document.id)} is version {document.version}{changed}")


def _merged(known: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata with the changes applied; a value of None removes its key."""
    merged = {**known, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def _differs_from_file(source: str | None, text: str) -> bool:
    """Return whether the source is a file whose text differs from `text`."""
    if source is None or not is_file(source):
        return False
    with suppress(CMTError), hold_warnings():
        return cmt_sdk.read_document(source).text != text
    return True


def _warn_of_file(document: cmt_sdk.Document, *, as_json: bool) -> None:
    """Warn that the next `cmt add` of the document's file restores the text of the file."""
    source = document.source or ""
    if file_state(source) is not FileState.HERE:
        return
    name = short_source(source, "")
    warn(
        f"{name} is the source of this document and keeps its own text: when `cmt add` or `cmt"
        " watch` reads the file again, that text comes back, and this one stays in the history; to"
        f" keep this one, write it to {name}",
        as_json=as_json,
    )


def _describe_change(key: str, value: Any) -> str:
    return f"without {key}" if value is None else f"{key}={json.dumps(value, ensure_ascii=False)}"
