"""`cmt compress`, `reindex`, `reencode`, `backup`, `check`: keeping a memory well."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

import cmt_sdk
from cmt_cli.memories import opened
from cmt_cli.named import whole_adapter
from cmt_cli.options import json_option, memory_option
from cmt_cli.output import amount, print_json, say, table
from cmt_cli.progress import bars
from cmt_cli.sources import Place, is_file, place_of
from cmt_sdk.errors import InvalidSetting, ModelError, ModelNotFound, StorageDamaged


@click.command()
@memory_option
@json_option
def compress(folder: Path, as_json: bool) -> None:
    """Compress the passages that wait.

    They wait after `add --no-wait`, or when something stopped an `add`.

    \b
    Example:
      cmt compress
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory, bars() as update:
        waiting = memory.stats().pending
        count = memory.compress(lambda p: update("compressing", p.compressed, waiting))
    if as_json:
        print_json({"compressed": count})
    else:
        say(f"{amount(count, 'passage')} compressed")


@click.command()
@memory_option
@json_option
def reindex(folder: Path, as_json: bool) -> None:
    """Write the index of embeddings anew.

    \b
    Example:
      cmt reindex
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        index = memory.reindex()
    if as_json:
        print_json({"index": index})
    else:
        say(index)


@click.command()
@memory_option
@json_option
def reencode(folder: Path, as_json: bool) -> None:
    """Make memories anew that another model, other settings or an earlier release made.

    It works from the stored text, and goes on where it was stopped. What is as it would be made now
    stays.

    \b
    Example:
      cmt reencode
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory, bars() as update:
        count = memory.reencode(
            lambda p: update("encoding", p.compressed, p.compressed + memory.stats().pending)
        )
    if as_json:
        print_json({"encoded": count})
    else:
        say(f"{amount(count, 'passage')} encoded again")


@click.command()
@click.argument("target", metavar="FILE_OR_FOLDER", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the copy that is there.")
@memory_option
@json_option
def backup(target: Path, overwrite: bool, folder: Path, as_json: bool) -> None:
    """Copy the memory, whole and as of one moment.

    Other processes may write meanwhile. A name that ends in .db is one file, which opens as a
    memory once it is named memory.db in an empty folder; any other is a folder, which opens as it
    is. The copy of an encrypted memory is encrypted with the same key.

    \b
    Example:
      cmt backup /media/usb/notes
      cmt list -m /media/usb/notes
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        file = memory.backup(target, overwrite=overwrite)
    if as_json:
        print_json({"file": file, "bytes": file.stat().st_size})
    else:
        say(f"{file}, {file.stat().st_size / 1e6:,.1f} MB")


@click.command()
@click.option(
    "--repair",
    is_flag=True,
    help="Mend what can be mended, after a copy of the files beside the memory.",
)
@memory_option
@json_option
def check(repair: bool, folder: Path, as_json: bool) -> None:
    """Check files, database, index, memories and model.

    The exit code is 1 when something is wrong. Close the memory everywhere before --repair: what is
    damaged is made anew, from the text where that is there, and what is lost is told.

    \b
    Example:
      cmt check
      cmt check --repair
    """  # noqa: D301 - click reads the escape
    done = list(cmt_sdk.repair(folder)) if repair else []
    found = _checked(folder, repaired=bool(done))
    if as_json:
        print_json({"repaired": done, "found": found} if repair else found)
    else:
        rows = [("mended" if f.ok else "LOST", f.check, f.detail, f.remedy) for f in done]
        rows += [("ok" if f.ok else "WRONG", f.check, f.detail, f.remedy) for f in found]
        table(["", "check", "found", "remedy"], rows)
    if not all(f.ok for f in [*done, *found]):
        sys.exit(1)


def _checked(folder: Path, *, repaired: bool) -> list[cmt_sdk.CheckResult]:
    """What the check-up finds; with `repaired` after what waits since a repair was made again, as
    far as the model is here.
    """
    try:
        with opened(folder) as memory:
            model, adapter = _model(memory.settings.model), _adapter(memory.settings.adapter)
            if repaired and model.ok and adapter.ok:
                with bars() as update:
                    memory.finish_repair(
                        lambda p: update(
                            "encoding", p.compressed, p.compressed + memory.stats().pending
                        )
                    )
            return [*memory.check(), model, adapter, *_files(memory)]
    except StorageDamaged as error:
        return [cmt_sdk.CheckResult("database", False, str(error), "cmt check --repair")]


def _files(memory: cmt_sdk.Memory) -> Iterator[cmt_sdk.CheckResult]:
    """What became of the files that documents came from, where it is not all well; nothing of the
    memory is wrong by that.
    """
    try:
        places = Counter(
            place_of(d.source) for d in memory.documents() if d.source and is_file(d.source)
        )
    except StorageDamaged:  # a line above says so
        return
    kinds = {
        "gone": [Place.GONE, Place.NO_FOLDER],
        "of another system": [Place.FOREIGN],
        "in a cloud": [Place.CLOUD],
        "where they cannot be looked at": [Place.CLOSED],
    }
    counts = {name: sum(places[one] for one in of) for name, of in kinds.items()}
    parts = [f"{count:,} {name}" for name, count in counts.items() if count]
    if parts:
        detail = (
            f"of {amount(places.total(), 'file')} {', '.join(parts)}; what is remembered of them"
            " still answers"
        )
        yield cmt_sdk.CheckResult(
            "files", True, detail, "cmt add FOLDER, or cmt watch --once FOLDER"
        )


def _model(name: str) -> cmt_sdk.CheckResult:
    try:
        info = cmt_sdk.model_info(name)
    except (ModelNotFound, ModelError) as error:
        return cmt_sdk.CheckResult("model", False, str(error), f"cmt model pull {name}")
    return cmt_sdk.CheckResult("model", True, f"{info.name}, {info.bytes / 1e6:.0f} MB")


def _adapter(name: str) -> cmt_sdk.CheckResult:
    try:
        return cmt_sdk.CheckResult("adapter", True, whole_adapter(name))
    except InvalidSetting as error:
        return cmt_sdk.CheckResult("adapter", False, str(error), "cmt config set adapter FOLDER")
