"""`cmt import`: an archive of `cmt export`, or an export of another service."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import click

import cmt_sdk
from cmt_cli.add import AddRun, OnRefused
from cmt_cli.error_handling import warn
from cmt_cli.inputs import path_exists
from cmt_cli.memory_folder import open_or_create
from cmt_cli.options import (
    Place,
    diverged_options,
    json_option,
    memory_option,
    one_choice,
)
from cmt_cli.output import echo, pluralize, print_json, short_id, short_source, to_jsonable
from cmt_cli.progress import progress_bars
from cmt_sdk.errors import InvalidInput, NotFound

MAX_NAMED = 3  # sources that a message names


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--scope",
    default="",
    help="Namespace path for conversations, e.g. user/ann; documents of an archive keep theirs.",
)
@diverged_options("FILE", "the text here")
@click.option(
    "--trust",
    is_flag=True,
    help="Accept compressed passages not sealed with your key. Use it only if you trust FILE.",
)
@click.option("--no-wait", is_flag=True, help="Do not compress now; `cmt compress` does it later.")
@memory_option
@json_option
def import_archive(
    *,
    file: Path,
    scope: str,
    trust: bool,
    no_wait: bool,
    folder: Place,
    as_json: bool,
    **choices: bool,
) -> None:
    """Import an archive of `cmt export`, or an export of another service.

    FILE can be an export of ChatGPT or Claude (the zip file, its folder, or conversations.json) or
    a JSON file of memories from mem0. Each conversation becomes one document.

    A later export updates the documents of an earlier one. Newer versions in FILE are added; older
    ones change nothing. If fields differ, the later change counts. The import deletes nothing;
    documents that were removed or forgotten here come back if FILE has them. If a document changed
    both here and in FILE, the command stops before it imports anything: choose --theirs, --ours or
    --both.

    The command accepts compressed passages from an archive only if they are sealed with your key;
    it compresses all others again from the text. The key is the file archive.key in the data
    folder, or the file that CMT_ARCHIVE_KEY names. Copy it to your other machines.

    \b
    Example:
      cmt import backup.cmt -m restored
      cmt import chatgpt-export.zip --scope user/ann
    """  # noqa: D301 - click reads the escape
    diverged = one_choice(choices)
    if not path_exists(str(file)):  # before a memory is created
        raise NotFound(f"there is no file or folder {file}")
    if not _is_archive(file):
        _refuse_options_of_archives([*filter(None, [diverged]), *(["trust"] if trust else [])])
        _import_conversations(file, scope, folder, wait=not no_wait, as_json=as_json)
        return
    if scope:
        raise click.UsageError(
            "--scope is for conversations: the documents of an archive keep their own"
        )
    options = {"diverged": diverged, "trust": trust, "wait": not no_wait}
    _import_documents(file, folder, options, as_json=as_json)


def _import_documents(
    file: Path, folder: Place, options: Mapping[str, Any], *, as_json: bool
) -> None:
    """Import an archive of `cmt export`; `options` are those of `Memory.import_archive`."""
    with open_or_create(folder) as memory:
        with progress_bars() as update:
            progress = memory.import_archive(
                file,
                on_progress=lambda p: update("importing", p.added + p.updated + p.unchanged, 0),
                **options,
            )
        if options["diverged"] == "both" and progress.added:
            _name_doubled(memory, as_json=as_json)
    if as_json:
        print_json(to_jsonable(progress))
        return
    echo(f"{progress.added} added, {progress.updated} updated, {progress.unchanged} unchanged")
    if summary := _compressed_passages(progress, is_pending=not options["wait"]):
        echo(summary)


def _compressed_passages(progress: cmt_sdk.Progress, *, is_pending: bool) -> str:
    """Return how many compressed passages came from the archive, how many were compressed here, and
    why.

    Returns "" if there were none.
    """
    made = progress.compressed - progress.taken
    if not progress.taken and not made and not progress.unproven:
        return ""
    rest = "pending until `cmt compress`" if is_pending else f"{made} made again from the text"
    summary = f"compressed passages: {progress.taken} taken from the archive, {rest}"
    if not progress.unproven:
        return summary
    return (
        f"{summary}; {progress.unproven} of the archive's are not sealed with your key"
        f" ({cmt_sdk.archive_key()}): carry the key of the machine that made it here, or give"
        " --trust"
    )


def _name_doubled(memory: cmt_sdk.Memory, *, as_json: bool) -> None:
    """Warn about documents that share their source with another document."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for document in memory.documents():
        if document.source:
            found[document.scope, document.source].append(document.id)
    doubled = {source: ids for (_, source), ids in found.items() if len(ids) > 1}
    if doubled:
        named = [
            f"{short_source(source, '')}: {', '.join(map(short_id, ids))}"
            for source, ids in islice(doubled.items(), MAX_NAMED)
        ]
        more = [f"{len(doubled) - MAX_NAMED:,} more"] if len(doubled) > MAX_NAMED else []
        warn(
            f"{pluralize(len(doubled), 'source')} of several documents, which commands take by"
            f" their ids alone: {'; '.join(named + more)}",
            as_json=as_json,
        )


def _refuse_options_of_archives(given: Sequence[str]) -> None:
    if given:
        raise click.UsageError(
            f"--{given[0]} is for an archive of `cmt export`: conversations have no versions and no"
            " compressed passages"
        )


def _is_archive(file: Path) -> bool:
    """Return whether a file is an archive of `cmt export`.

    True also for a damaged zip file: the archive reader reports the damage.

    Raises:
        InvalidInput: The file is a zip file without its end.
    """
    if _is_incomplete(file):
        raise InvalidInput(f"{file} is a zip file without its end: fetch or copy it again")
    if not file.is_file() or not is_zipfile(file):
        return False
    try:
        with ZipFile(file) as archive:
            return "manifest.json" in archive.namelist()
    except BadZipFile:
        return True


def _is_incomplete(file: Path) -> bool:
    """Return whether a file is the beginning of a zip file, such as an interrupted download."""
    try:
        with file.open("rb") as opened_file:
            return opened_file.read(4) == b"PK\x03\x04" and not is_zipfile(file)
    except OSError:
        return False  # reading the file reports why it cannot be read


def _import_conversations(
    file: Path, scope: str, folder: Place, *, wait: bool, as_json: bool
) -> None:
    documents = cmt_sdk.read_conversations(file)
    first = next(documents, None)  # an unreadable file creates no memory
    if first is None:
        raise InvalidInput(f"{file} holds nothing to remember: it has no message with text")
    with open_or_create(folder) as memory:
        with progress_bars() as update:
            run = AddRun(memory, {"scope": scope}, as_json, update)
            found: set[str] = set()
            for document in chain([first], _until_damage(documents, run.refuse)):
                run.document(document, run.refuse)
                found.add(document.source or "")
            # a single file may be only part of an export
            if not run.refused and (file.is_dir() or is_zipfile(file)):
                _name_missing(memory, found, scope, as_json=as_json)
            if wait:
                run.compress()
        run.summarise()
        run.end()


def _name_missing(memory: cmt_sdk.Memory, found: set[str], scope: str, *, as_json: bool) -> None:
    """Warn about conversations of earlier exports that a complete export no longer holds.

    They were deleted there, or belong to another account.
    """
    services = {source.partition(":")[0] for source in found if ":" in source}
    known = (
        d.source or ""
        for service in sorted(services)
        for d in memory.documents(source=f"{service}:*", scope=scope or None)
    )
    gone = [source for source in known if source not in found]
    if gone:
        names = ", ".join(gone[:MAX_NAMED]) + (", …" if len(gone) > MAX_NAMED else "")
        warn(
            f"{pluralize(len(gone), 'document')} of earlier exports not in this one, and still"
            f" remembered: {names}; `cmt rm SOURCE` removes one",
            as_json=as_json,
        )


def _until_damage(
    documents: Iterator[cmt_sdk.Document], refuse: OnRefused
) -> Iterator[cmt_sdk.Document]:
    """Yield the documents up to the place where the file is damaged."""
    try:
        yield from documents
    except InvalidInput as error:
        refuse(error)
