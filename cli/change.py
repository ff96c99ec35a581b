"""`cmt update`, `rm`, `forget`: changing what is remembered."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.failures import held_back, warn
from cmt_cli.inputs import given_text
from cmt_cli.memories import narrowed, opened, whole_id
from cmt_cli.options import expires_option, filter_options, json_option, memory_option, meta_option
from cmt_cli.output import amount, one_line, place, plain, print_json, say, short_id
from cmt_cli.sources import EDITED, Place, is_file, path_given, place_of, text_name
from cmt_sdk.errors import CMTError, DocumentNotFound

NOTHING_NEW = (
    "a changed file is taken in by `cmt add {}`; else give a FILE, - for standard input, or --text"
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
    folder: Path,
    as_json: bool,
) -> None:
    """Store the next version of a document.

    DOCUMENT is an id or a beginning of it, a path, or another source. The old version stops
    answering at once. Without a text, the fields change in place; --meta sets one key, null takes
    it out. A changed file is taken in by `cmt add`.

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
        named = document_id if os.path.isfile(path_given(document_id)) else "FILE"  # noqa: PTH113 - Path's raises in a closed folder
        raise click.UsageError(NOTHING_NEW.format(named))
    new = None if keep_text else given_text(text, file)
    with opened(folder) as memory:
        known = memory.get(whole_id(memory, document_id))
        if meta:
            merged = {**known.metadata, **meta}
            fields["metadata"] = {key: value for key, value in merged.items() if value is not None}
        is_edited = (
            new is not None and new != known.text and _is_of_file(source or known.source, new)
        )
        if is_edited:
            fields["metadata"] = {
                **fields.get("metadata", known.metadata),
                EDITED: known.version + 1,
            }
        document = memory.update(known.id, new, **fields)
    if is_edited:
        _warn_of_file(document, as_json=as_json)
    if as_json:
        print_json(document)
    else:
        changed = ", ".join(["", *(_told(key, value) for key, value in meta.items())])
        say(f"{short_id(document.id)} is version {document.version}{changed}")


def _is_of_file(source: str | None, text: str) -> bool:
    """Whether a source is a file, and a text is another one than the file's."""
    if source is None or not is_file(source):
        return False
    with suppress(CMTError), held_back():
        return cmt_sdk.read_document(source).text != text
    return True


def _warn_of_file(document: cmt_sdk.Document, *, as_json: bool) -> None:
    """Say that the file of a document brings its own text back."""
    source = document.source or ""
    if place_of(source) is Place.HERE:
        named = place(source, "")
        message = (
            f"{named} is the source of this document and keeps its own text: when `cmt add` or `cmt"
            " watch` reads the file "
        )
        message += (
            "again, that text comes back, and this one stays in the history; to keep this one,"
            f" write it to {named}"
        )
        warn(message, as_json=as_json)


def _told(key: str, value: Any) -> str:
    """What has become of a key of the metadata."""
    return f"without {key}" if value is None else f"{key}={json.dumps(value, ensure_ascii=False)}"


keep_out_option = click.option(
    "--keep-out",
    is_flag=True,
    help=(
        "Keep the files out when their folder is added again, under another name too; only hashes"
        " of names and texts are kept."
    ),
)


@click.command()
@click.argument("document_ids", metavar="[DOCUMENT]...", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask; with a filter it is asked.")
@keep_out_option
@filter_options
@memory_option
@json_option
def rm(
    document_ids: Sequence[str],
    yes: bool,
    keep_out: bool,
    chosen: Mapping[str, Any],
    folder: Path,
    as_json: bool,
) -> None:
    """Take documents out, with their history.

    DOCUMENT is an id or a beginning of it, a path, or another source. For bytes gone from the disk,
    with a receipt: `cmt forget`.

    \b
    Example:
      cmt rm 3f2a notes/old.md
      cmt rm --source "*/drafts/*"
    """  # noqa: D301 - click reads the escape
    filtered = _is_filter(chosen, bool(document_ids), yes=yes, as_json=as_json and not document_ids)
    with opened(folder) as memory:
        if filtered:
            documents = list(memory.documents(**narrowed(memory, chosen)))
            _found(documents)
            if not yes:
                _confirm(documents, len(documents), "Take out {}?", "nothing was taken out")
        else:
            documents = [
                memory.get(name)
                for name in dict.fromkeys(whole_id(memory, given) for given in document_ids)
            ]
        there = _left_in_folder(memory, documents, keep_out=keep_out)
        removed = [memory.delete(document.id).id for document in documents]
    if as_json:
        print_json({"removed": removed, "still_there": there, "kept_out": keep_out})
        return
    say(f"{amount(len(removed), 'document')} removed")
    _tell_there(there, keep_out=keep_out)


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
    chosen: Mapping[str, Any],
    folder: Path,
    as_json: bool,
) -> None:
    """Erase documents from every file, and print a receipt.

    DOCUMENT is an id or a beginning of it, a path, or another source. All versions go, and what was
    made from them. The exit code is 1 when a scan of the files' bytes still finds a trace of them,
    or another process keeps them open.

    A file that is still in its folder comes back when the folder is added again: the receipt names
    it, and --keep-out keeps it out until it is added itself.

    \b
    Example:
      cmt forget 3f2a
      cmt forget notes/old.md --keep-out
      cmt forget --source "*/old.md"
      cmt forget --scope user/ann --yes
    """  # noqa: D301 - click reads the escape
    _is_filter(chosen, document_id is not None, yes=yes, as_json=as_json)
    with opened(folder) as memory:
        whole = None if document_id is None else whole_id(memory, document_id)
        chosen = narrowed(memory, chosen)
        documents = list(memory.documents(**chosen)) if whole is None else [memory.get(whole)]
        if not yes:
            _confirm(documents, len(documents), "Erase {} for good?", "nothing was forgotten")
        there = _left_in_folder(memory, documents, keep_out=keep_out)
        receipt = memory.forget(whole, **chosen)
    _found(receipt.documents)
    if as_json:
        print_json({**plain(receipt), "still_there": there, "kept_out": keep_out})
    else:
        _print(receipt)
        _tell_there(there, keep_out=keep_out)
    if receipt.traces_found or not receipt.complete:
        sys.exit(1)


def _is_filter(chosen: Mapping[str, Any], named: bool, *, yes: bool, as_json: bool) -> bool:
    """Whether documents are chosen by a filter. Raises click.UsageError for neither and for
    both.
    """
    filtered = any(value is not None for value in chosen.values())
    if not named and not filtered:
        raise click.UsageError(
            "give a document (its id, path or source), --source, --scope or --where; all there is:"
            " --scope ''"
        )
    if named and filtered:
        raise click.UsageError("give a document or a filter, not both")
    if as_json and not yes:
        raise click.UsageError("--json asks no questions: give --yes as well")
    return filtered


def _found(documents: Sequence[object]) -> None:
    if not documents:
        raise DocumentNotFound(
            "no document fits, nothing was forgotten: sources are as `cmt list` shows them, * is"
            " any part"
        )


def _left_in_folder(
    memory: cmt_sdk.Memory, documents: Sequence[cmt_sdk.Document], *, keep_out: bool
) -> Sequence[str]:
    """The sources of these documents whose files are there; recorded to stay out, where that is
    wished.
    """
    files = [d for d in documents if d.source and is_file(d.source)]
    for scope in {d.scope for d in files} if keep_out else ():
        of = [d for d in files if d.scope == scope]
        memory.keep_out([name for document in of for name in _names(document)], scope=scope)
    return sorted({d.source for d in files if d.source and place_of(d.source) is Place.HERE})


def _names(document: cmt_sdk.Document) -> Iterator[str]:
    """What keeps the file of a document out: its path, and its text as it is remembered and as it
    is in the file.
    """
    yield document.source or ""
    yield text_name(document.text)
    with suppress(CMTError):
        yield text_name(cmt_sdk.read_document(document.source or "").text)


def _tell_there(there: Sequence[str], *, keep_out: bool) -> None:
    if keep_out:
        _tell(there, "kept out from now on", "`cmt add FILE` takes {} in again")
        return
    back = [source for source in there if _comes_back(source)]
    _tell(back, "", "the next `cmt add` of the folder brings {0} back, --keep-out keeps {0} out")
    _tell(
        [source for source in there if source not in back],
        "",
        "`cmt add` of the folder leaves {} out",
    )


def _tell(sources: Sequence[str], what: str, then: str) -> None:
    """Say which files are still there, and what becomes of them; nothing of none."""
    if not sources:
        return
    names = ", ".join(place(source, "") for source in sources[:3]) + (
        ", …" if len(sources) > 3 else ""
    )
    one = len(sources) == 1
    where = (
        f"{amount(len(sources), 'file')} still in {'its' if one else 'their'}"
        f" folder{what and ', '}{what}"
    )
    say(f"{where}: {names}; {then.format('it' if one else 'them')}")


def _comes_back(source: str) -> bool:
    """Whether the folder of a file, when it is added, brings the file: no hidden one, and none of
    another kind.
    """
    path = Path(source)
    with suppress(CMTError), held_back():
        return path in takewhile(
            lambda file: file.parent == path.parent, cmt_sdk.list_files(path.parent)
        )
    return False


def _confirm(
    documents: Sequence[cmt_sdk.Document], count: int, question: str, refusal: str
) -> None:
    for document in documents[:5]:
        say(f"{place(document.source, document.id)}  {one_line(document.text, 60)}", err=True)
    if count > 5:
        say("…", err=True)
    if not click.confirm(question.format(amount(count, "document")), err=True):
        raise click.ClickException(refusal)


def _print(receipt: cmt_sdk.Receipt) -> None:
    versions, passages = amount(receipt.versions, "version"), amount(receipt.passages, "passage")
    freed = f", {receipt.bytes_freed:,} bytes freed" if receipt.bytes_freed else ""
    say(f"{amount(len(receipt.documents), 'document')} erased ({versions}, {passages}){freed}")
    traces = amount(receipt.traces_found, "trace") if receipt.traces_found else "no trace"
    say(
        f"{traces} left in {', '.join(receipt.files_scanned)}",
        fg="red" if receipt.traces_found else None,
    )
    if not receipt.complete:
        say(
            "another process still reads the state before: what it keeps is erased by the next"
            " command after it",
            fg="red",
        )
    if receipt.copies:
        names = ", ".join(receipt.copies[:5]) + (", …" if len(receipt.copies) > 5 else "")
        say(
            f"copies made earlier may still hold it: {names}; delete each once you need it no"
            " longer"
        )
