"""`cmt export` and `cmt import`: a memory as one file, and what other services have exported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import click

import cmt_sdk
from cmt_cli.add import Adding, Refuse
from cmt_cli.failures import warn
from cmt_cli.inputs import is_there
from cmt_cli.memories import begun, opened
from cmt_cli.options import json_option, memory_option
from cmt_cli.output import amount, place, plain, print_json, say, short_id
from cmt_cli.progress import bars
from cmt_sdk.errors import InvalidInput, NotFound

NAMED = 3  # sources that a message names


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@memory_option
@json_option
def export(file: Path, overwrite: bool, folder: Path, as_json: bool) -> None:
    """Write the whole memory to one file.

    It is a zip archive of JSON lines and safetensors. It is not encrypted, though the memory may
    be: `cmt backup` makes a copy of that which is.

    \b
    Example:
      cmt export backup.cmt
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        count = memory.export(file, overwrite=overwrite)
        if memory.encrypted:
            warn(
                f"{file} is not encrypted, as the memory is: guard it, or use `cmt backup`",
                as_json=as_json,
            )
    if as_json:
        print_json({"documents": count, "file": file, "bytes": file.stat().st_size})
    else:
        say(f"{amount(count, 'document')} in {file}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--scope",
    default="",
    help="Where conversations go, such as user/ann; documents of an archive keep theirs.",
)
@click.option(
    "--theirs",
    is_flag=True,
    help="Of documents that went on here and in FILE: FILE's text becomes the current one.",
)
@click.option(
    "--ours",
    is_flag=True,
    help="The text here stays the current one; FILE's comes into its history.",
)
@click.option("--both", is_flag=True, help="FILE's becomes another document.")
@click.option(
    "--trust",
    is_flag=True,
    help="Take compressed memories that your key has not sealed: you know who made FILE.",
)
@click.option(
    "--no-wait", is_flag=True, help="Leave what has no usable memory yet to `cmt compress`."
)
@memory_option
@json_option
def import_archive(
    *,
    file: Path,
    scope: str,
    trust: bool,
    no_wait: bool,
    folder: Path,
    as_json: bool,
    **choices: bool,
) -> None:
    """Add what an archive of `cmt export` holds, or what another service has exported.

    Of ChatGPT and Claude the zip file, its folder, or its conversations.json; of mem0 a JSON file
    of memories. Each conversation is one document.

    A later export updates what an earlier one brought, an archive too: documents go on with its
    later versions; where it is older, what is here stays. Of fields that differ the later change
    counts. Nothing is taken out; what was removed or forgotten here comes back if FILE has it.
    Where documents went on here and in FILE, nothing is imported before you choose: --theirs,
    --ours or --both.

    Compressed memories are taken from an archive only where your own key has sealed them; what
    others sealed is made again from the text. The key is `archive.key` in the data folder, or the
    file that CMT_ARCHIVE_KEY names: carry it to other machines.

    \b
    Example:
      cmt import backup.cmt -m restored
      cmt import chatgpt-export.zip --scope user/ann
    """  # noqa: D301 - click reads the escape
    chosen: list[Any] = [name for name, is_chosen in choices.items() if is_chosen]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} are two answers: give one of them")
    if not is_there(str(file)):  # before a memory is made for it
        raise NotFound(f"there is no file or folder {file}")
    if _is_cut_off(file):
        raise InvalidInput(f"{file} is a zip file without its end: fetch or copy it again")
    if not _is_archive(file):
        if chosen or trust:
            name = chosen[0] if chosen else "trust"
            raise click.UsageError(
                f"--{name} is for an archive of `cmt export`: conversations have no versions and no"
                " memories"
            )
        _import_conversations(file, scope, folder, wait=not no_wait, as_json=as_json)
        return
    if scope:
        raise click.UsageError(
            "--scope is for conversations: the documents of an archive keep their own"
        )
    with begun(folder) as memory:
        with bars() as update:
            progress = memory.import_archive(
                file,
                diverged=next(iter(chosen), None),
                trust=trust,
                wait=not no_wait,
                on_progress=lambda p: update("importing", p.added + p.updated + p.unchanged, 0),
            )
        if "both" in chosen and progress.added:
            _name_doubled(memory, as_json=as_json)
    if as_json:
        print_json(plain(progress))
    else:
        say(f"{progress.added} added, {progress.updated} updated, {progress.unchanged} unchanged")
        if told := _memories(progress, waits=no_wait):
            say(told)


def _memories(progress: cmt_sdk.Progress, *, waits: bool) -> str:
    """How many memories were taken from an archive, how many passages were compressed here, and
    why; empty for none.
    """
    made = progress.compressed - progress.taken
    if not progress.taken and not made and not progress.unproven:
        return ""
    again = "wait for `cmt compress`" if waits else f"{made} made again from the text"
    told = f"memories: {progress.taken} taken from the archive, {again}"
    if not progress.unproven:
        return told
    return (
        f"{told}; {progress.unproven} of the archive's are not sealed with your key"
        f" ({cmt_sdk.archive_key()}): carry the key of the machine that made it here, or give"
        " --trust"
    )


def _name_doubled(memory: cmt_sdk.Memory, *, as_json: bool) -> None:
    """Name the documents that share their source with another one."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for document in memory.documents():
        if document.source:
            found[document.scope, document.source].append(document.id)
    doubled = {source: ids for (_, source), ids in found.items() if len(ids) > 1}
    if doubled:
        named = [
            f"{place(source, '')}: {', '.join(map(short_id, ids))}"
            for source, ids in islice(doubled.items(), NAMED)
        ]
        more = [f"{len(doubled) - NAMED:,} more"] if len(doubled) > NAMED else []
        what = (
            f"{amount(len(doubled), 'source')} of several documents, which commands take by their"
            " ids alone"
        )
        warn(f"{what}: {'; '.join(named + more)}", as_json=as_json)


def _is_archive(file: Path) -> bool:
    """True for a file of `cmt export`, and for a damaged zip file: what reads archives can tell
    what is wrong with it.
    """
    if not file.is_file() or not is_zipfile(file):
        return False
    try:
        with ZipFile(file) as archive:
            return "manifest.json" in archive.namelist()
    except BadZipFile:
        return True


def _is_cut_off(file: Path) -> bool:
    """True for the beginning of a zip file: a download that broke off, perhaps."""
    try:
        with file.open("rb") as opened_file:
            return opened_file.read(4) == b"PK\x03\x04" and not is_zipfile(file)
    except OSError:
        return False  # whoever reads it tells why it cannot be read


def _import_conversations(
    file: Path, scope: str, folder: Path, *, wait: bool, as_json: bool
) -> None:
    documents = cmt_sdk.read_conversations(file)
    first = next(documents, None)  # what cannot be read begins no memory
    if first is None:
        raise InvalidInput(f"{file} holds nothing to remember: nobody says anything in it")
    with begun(folder) as memory:
        with bars() as update:
            run = Adding(memory, {"scope": scope}, as_json, update)
            found: set[str] = set()
            for document in chain([first], _sound(documents, run.refuse)):
                run.document(document, run.refuse)
                found.add(document.source or "")
            # a single file may be a part of an export
            if not run.refused and (file.is_dir() or is_zipfile(file)):
                _name_missing(memory, found, scope, as_json=as_json)
            if wait:
                run.compress()
        run.summarise()
        run.end()


def _name_missing(memory: cmt_sdk.Memory, found: set[str], scope: str, *, as_json: bool) -> None:
    """Name the conversations of earlier exports that a whole export no longer holds: deleted, or
    another account's.
    """
    services = {source.partition(":")[0] for source in found if ":" in source}
    known = (
        d.source or ""
        for service in sorted(services)
        for d in memory.documents(source=f"{service}:*", scope=scope or None)
    )
    gone = [source for source in known if source not in found]
    if gone:
        names = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else "")
        what = (
            f"{amount(len(gone), 'document')} of earlier exports not in this one, and still"
            f" remembered: {names}"
        )
        warn(f"{what}; `cmt rm SOURCE` takes one out", as_json=as_json)


def _sound(documents: Iterator[cmt_sdk.Document], refuse: Refuse) -> Iterator[cmt_sdk.Document]:
    """The documents up to where the file is damaged; what came before that stays."""
    try:
        yield from documents
    except InvalidInput as error:
        refuse(error)
