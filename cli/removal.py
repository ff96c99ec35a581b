"""Parts that `cmt rm` and `cmt forget` share: an option, checks, the question, remaining files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.error_handling import hold_warnings
from cmt_cli.output import echo, one_line, pluralize, short_source
from cmt_cli.sources import FileState, file_state, is_file, text_hash_name
from cmt_sdk.errors import CMTError, DocumentNotFound

MAX_PREVIEWED = 5  # documents that the question shows
MAX_NAMED = 3  # files that a message names
TEXT_CELLS = 60

keep_out_option = click.option(
    "--keep-out",
    is_flag=True,
    help=(
        "Do not add these files again with their folder, also under another name. Stores only"
        " hashes of names and texts."
    ),
)


def check_filter(filters: Mapping[str, Any], is_named: bool, *, yes: bool, as_json: bool) -> bool:
    """Return whether a filter selects the documents, not a name.

    Raises:
        click.UsageError: Neither or both are given, or --json without --yes.
    """
    has_filter = any(value is not None for value in filters.values())
    if not is_named and not has_filter:
        raise click.UsageError(
            "give a document (its id, path or source), --source, --scope or --where; all there is:"
            " --scope ''"
        )
    if is_named and has_filter:
        raise click.UsageError("give a document or a filter, not both")
    if as_json and not yes:
        raise click.UsageError("--json asks no questions: give --yes as well")
    return has_filter


def require_documents(documents: Sequence[object]) -> None:
    """Raise DocumentNotFound if there are none."""
    if not documents:
        raise DocumentNotFound(
            "no document fits, nothing was forgotten: sources are as `cmt list` shows them, * is"
            " any part"
        )


def confirm(documents: Sequence[cmt_sdk.Document], count: int, question: str, refusal: str) -> None:
    """Show the first documents and ask. Raises click.ClickException if the answer is no.

    Args:
        documents: The documents to remove.
        count: How many there are.
        question: The question, with {} for the number of documents.
        refusal: The message of the exception.
    """
    for document in documents[:MAX_PREVIEWED]:
        name = short_source(document.source, document.id)
        echo(f"{name}  {one_line(document.text, TEXT_CELLS)}", err=True)
    if count > MAX_PREVIEWED:
        echo("…", err=True)
    if not click.confirm(question.format(pluralize(count, "document")), err=True):
        raise click.ClickException(refusal)


def remaining_files(
    memory: cmt_sdk.Memory, documents: Sequence[cmt_sdk.Document], *, keep_out: bool
) -> Sequence[str]:
    """Return the sources of these documents whose files still exist.

    With `keep_out` the memory also records them, so that adding their folder skips them.
    """
    files = [d for d in documents if d.source and is_file(d.source)]
    for scope in {d.scope for d in files} if keep_out else ():
        in_scope = [d for d in files if d.scope == scope]
        names = [name for document in in_scope for name in _keep_out_names(document)]
        memory.keep_out(names, scope=scope)
    return sorted({d.source for d in files if d.source and file_state(d.source) is FileState.HERE})


def _keep_out_names(document: cmt_sdk.Document) -> Iterator[str]:
    """Yield what identifies a file: its path, its stored text and its current text."""
    yield document.source or ""
    yield text_hash_name(document.text)
    with suppress(CMTError):
        yield text_hash_name(cmt_sdk.read_document(document.source or "").text)


def report_remaining(sources: Sequence[str], *, keep_out: bool) -> None:
    """Print which files still exist and whether `cmt add` of their folder adds them again."""
    if keep_out:
        _print_files(sources, "kept out from now on", "`cmt add FILE` takes {} in again")
        return
    back = [source for source in sources if _comes_back(source)]
    out = [source for source in sources if source not in back]
    _print_files(
        back, "", "the next `cmt add` of the folder brings {0} back, --keep-out keeps {0} out"
    )
    _print_files(out, "", "`cmt add` of the folder leaves {} out")


def _print_files(sources: Sequence[str], state: str, consequence: str) -> None:
    """Print that files still exist; nothing if there are none."""
    if not sources:
        return
    names = ", ".join(short_source(source, "") for source in sources[:MAX_NAMED])
    if len(sources) > MAX_NAMED:
        names += ", …"
    is_one = len(sources) == 1
    where = f"{pluralize(len(sources), 'file')} still in {'its' if is_one else 'their'} folder"
    if state:
        where += f", {state}"
    echo(f"{where}: {names}; {consequence.format('it' if is_one else 'them')}")


def _comes_back(source: str) -> bool:
    """Return whether adding the folder of a file adds the file: not hidden, and of a known kind."""
    path = Path(source)
    with suppress(CMTError), hold_warnings():
        return path in takewhile(
            lambda file: file.parent == path.parent, cmt_sdk.list_files(path.parent)
        )
    return False
