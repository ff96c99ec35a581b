"""`cmt copy`: a memory to another folder, archive or database, compared by hash."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.error_handling import warn
from cmt_cli.options import Place, diverged_options, json_option, one_choice, resolve_folder
from cmt_cli.output import echo, pluralize, print_json, short_id, to_jsonable
from cmt_cli.progress import progress_bars

SUFFIX = ".cmt"
MAX_NAMED = 5  # forgotten documents that a warning names


def _place(_: click.Context, __: click.Parameter, given: str) -> Place:
    """Return the folder, archive or database that an argument names.

    An archive is a name that ends in .cmt, or a file that is there, unless a memory has the name.
    """
    path = Path(given).expanduser()
    if cmt_sdk.DatabaseAddress.of(given) or path.is_dir():
        return resolve_folder(given)
    is_new_archive = path.suffix == SUFFIX
    if is_new_archive or (path.is_file() and not cmt_sdk.Memory.exists(cmt_sdk.memory_path(given))):
        return path
    return resolve_folder(given)


@click.command()
@click.argument("source", callback=_place)
@click.argument("target", callback=_place)
@click.option("--verify", is_flag=True, help="Compare only; copy nothing.")
@diverged_options("SOURCE", "TARGET's text")
@click.option(
    "--reencode",
    is_flag=True,
    help="Compress the texts again, if TARGET has another model or other settings.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Accept compressed passages of an archive that is not sealed with your key.",
)
@click.option("--overwrite", is_flag=True, help="Replace an archive that is not a copy of SOURCE.")
@json_option
def copy(
    *,
    source: Place,
    target: Place,
    verify: bool,
    reencode: bool,
    trust: bool,
    overwrite: bool,
    as_json: bool,
    **choices: bool,
) -> None:
    """Copy a memory to another place, and compare both by their hashes.

    SOURCE and TARGET are each a memory's name or folder, an archive (a file, or a name that ends in
    .cmt), or a database, postgresql+psycopg://... Documents come with histories, times and
    metadata; compressed passages and embeddings come byte for byte, and nothing is encoded again. A
    new memory gets the settings of SOURCE, except device, runtime, objects, object_cache and the
    generator, and is encrypted if both are folders and SOURCE is.

    If the command is interrupted, give it again: it goes on where it was. An archive appears
    complete or not at all. A second run changes nothing.

    If TARGET holds documents already, SOURCE's are added as `cmt import` adds them: a document with
    the same id, or with the same source and a common text, gets SOURCE's later versions; older ones
    change nothing; if a document changed in both, the command stops before it stores anything:
    choose --theirs, --ours or --both. Nothing is deleted. Documents that TARGET has forgotten stay
    out; those that were only removed come back. Expired documents are not copied.

    The exit code is 1 if a document or a compressed passage of SOURCE is not in TARGET as it is in
    SOURCE; the first differences are named.

    \b
    Example:
      cmt copy notes postgresql+psycopg://app@db.example/memory
      cmt copy notes notes.cmt
      cmt copy notes.cmt restored
      cmt copy notes restored --verify
    """  # noqa: D301 - click reads the escape
    options: dict[str, Any] = {
        "diverged": one_choice(choices),
        "trust": trust,
        "reencode": reencode,
        "overwrite": overwrite,
        "verify": verify,
    }
    with progress_bars() as update:
        done = cmt_sdk.copy_memory(
            source,
            target,
            on_step=update,
            open_with=click.get_current_context().obj or cmt_sdk.open,
            **options,
        )
    _warn_of_decrypted(source, target, as_json=as_json)
    if as_json:
        print_json({**to_jsonable(done), "complete": done.complete})
    else:
        _print_summary(done, target, is_compared=verify)
    _warn_of_forgotten(done, source, as_json=as_json)
    if not done.complete:
        sys.exit(1)


def _print_summary(done: cmt_sdk.Copied, target: Place, *, is_compared: bool) -> None:
    if not is_compared:
        echo(f"{done.added} added, {done.updated} updated, {done.unchanged} unchanged")
        if done.left_out:
            echo(f"{pluralize(done.left_out, 'document')} forgotten in {target}, left out")
        if done.compressed:
            echo(f"{pluralize(done.compressed, 'compressed passage')} copied")
        if done.reencoded:
            echo(f"{pluralize(done.reencoded, 'passage')} encoded again")
        if done.pending:
            echo(f"{pluralize(done.pending, 'passage')} pending until `cmt compress`")
        if not (done.added or done.updated or done.compressed or done.reencoded):
            echo("nothing was to be copied")
    what = (
        f"{pluralize(done.documents, 'document')} and"
        f" {pluralize(done.passages, 'compressed passage')} compared by hash"
    )
    if done.complete:
        echo(f"{what}: no difference")
        return
    echo(f"{what}: {pluralize(done.differences, 'difference')}", fg="red")
    for difference in done.named:
        echo(f"  {difference}")
    if done.differences > len(done.named):
        echo("  …")


def _warn_of_decrypted(source: Place, target: Place, *, as_json: bool) -> None:
    """Warn if the source is encrypted and the target is not."""
    if cmt_sdk.is_encrypted(source) and not cmt_sdk.is_encrypted(target):
        warn(f"{target} is not encrypted, as {source} is: guard it", as_json=as_json)


def _warn_of_forgotten(done: cmt_sdk.Copied, source: Place, *, as_json: bool) -> None:
    if done.forgotten:
        names = ", ".join(map(short_id, done.forgotten[:MAX_NAMED]))
        more = ", …" if len(done.forgotten) > MAX_NAMED else ""
        warn(
            f"{pluralize(len(done.forgotten), 'document')} that {source} has forgotten still in the"
            f" target: {names}{more}; `cmt forget` erases each there",
            as_json=as_json,
        )
