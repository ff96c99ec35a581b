"""`cmt update`, `rm`, `forget`: changing what is remembered."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from cmt_cli.common import (
    conditions,
    filter_options,
    given_text,
    json_option,
    memory_option,
    metadata,
    opened,
    plain,
    print_json,
    whole_id,
)


@click.command()
@click.argument("document_id", metavar="ID")
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("--text", help="The new text.")
@click.option("--source", help="The new source.")
@click.option("--scope", help="The new scope.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="New metadata, in place of the old.")
@memory_option
@json_option
def update(
    document_id: str,
    file: str | None,
    text: str | None,
    source: str | None,
    scope: str | None,
    meta: Sequence[str],
    where: str | None,
    as_json: bool,
) -> None:
    """Store the next version of a document; the old one stops answering at once.

    \b
    Example:
      cmt update 3f2a --text "The museum moved to Porto in 2021."
    """  # noqa: D301 - click reads the escape
    changed = {"source": source, "scope": scope, "metadata": metadata(meta) or None}
    fields: dict[str, Any] = {name: value for name, value in changed.items() if value is not None}
    new = None if text is None and file is None and fields else given_text(text, file)
    with opened(where) as memory:
        document = memory.update(whole_id(memory, document_id), new, **fields)
    if as_json:
        print_json(document)
    else:
        click.echo(f"{document.id[:8]} is now version {document.version}")


@click.command()
@click.argument("document_ids", metavar="ID...", nargs=-1, required=True)
@memory_option
@json_option
def rm(document_ids: Sequence[str], where: str | None, as_json: bool) -> None:
    """Take documents out, with their history. For bytes gone from the disk, and a receipt: `cmt forget`.

    \b
    Example:
      cmt rm 3f2a 77b0
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory:
        removed = [memory.delete(i).id for i in [whole_id(memory, given) for given in document_ids]]
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"{len(removed)} removed")


@click.command()
@click.argument("document_id", metavar="[ID]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@filter_options
@memory_option
@json_option
def forget(
    document_id: str | None,
    yes: bool,
    scope: str | None,
    source: str | None,
    where_: Sequence[str],
    where: str | None,
    as_json: bool,
) -> None:
    """Erase documents from every file, all versions, and print the receipt.

    \b
    Example:
      cmt forget --source "*/old.md"
      cmt forget --scope user/ann --yes
    """  # noqa: D301 - click reads the escape
    chosen = conditions(scope, source, where_)
    if document_id is None and not any(value is not None for value in chosen.values()):
        raise click.UsageError("give an ID, --source, --scope or --where; all there is: --scope ''")
    with opened(where) as memory:
        whole = None if document_id is None else whole_id(memory, document_id)
        count = 1 if whole else memory.count(**chosen)
        if not yes and not as_json and sys.stdin.isatty():
            click.confirm(f"Erase {count} documents for good?", abort=True, err=True)
        receipt = memory.forget(whole, **chosen)
    if as_json:
        print_json(plain(receipt))
    else:
        click.echo(
            f"{len(receipt.documents)} documents ({receipt.versions} versions, {receipt.passages} passages) erased; "
            f"{receipt.bytes_freed:,} bytes freed; {receipt.traces_found} traces left in {', '.join(receipt.files_scanned)}"
        )
    if receipt.traces_found:
        sys.exit(1)
