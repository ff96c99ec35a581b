"""`cmt check`: check a memory and, with --repair, repair it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import click

import cmt_sdk
from cmt_cli.local_model import resolve_adapter
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import pluralize, print_json, print_table
from cmt_cli.progress import progress_bars
from cmt_cli.sources import FileState, file_state, is_file
from cmt_sdk.errors import InvalidSetting, StorageDamaged

MISSING_FILES = {
    "gone": (FileState.GONE, FileState.NO_FOLDER),
    "of another system": (FileState.FOREIGN,),
    "in a cloud": (FileState.CLOUD,),
    "where they cannot be looked at": (FileState.CLOSED,),
}


@click.command()
@click.option(
    "--repair",
    is_flag=True,
    help="Repair the memory; a backup of its files is written next to it first.",
)
@memory_option
@json_option
def check(repair: bool, folder: Place, as_json: bool) -> None:
    """Check files, database, index, compressed passages and model.

    The exit code is 1 if a check fails. Close the memory in every process before --repair. The
    command rebuilds damaged parts from the stored text where the text is intact, and reports what
    is lost.

    \b
    Example:
      cmt check
      cmt check --repair
    """  # noqa: D301 - click reads the escape
    repaired = list(cmt_sdk.repair(folder)) if repair else []
    found = _check(folder, repaired=bool(repaired))
    if as_json:
        print_json({"repaired": repaired, "found": found} if repair else found)
    else:
        rows = [("repaired" if r.ok else "LOST", r.check, r.detail, r.remedy) for r in repaired]
        rows += [("ok" if r.ok else "WRONG", r.check, r.detail, r.remedy) for r in found]
        print_table(["", "check", "found", "remedy"], rows)
    if not all(result.ok for result in [*repaired, *found]):
        sys.exit(1)


def _check(folder: Place, *, repaired: bool) -> list[cmt_sdk.CheckResult]:
    """Run all checks.

    With `repaired`, first encode the passages that a repair left pending, if the model is here.
    """
    try:
        with open_memory(folder) as memory:
            model = cmt_sdk.check_model(memory.settings.model)
            adapter = _check_adapter(memory.settings.adapter)
            if repaired and model.ok and adapter.ok:
                _finish_repair(memory)
            return [*memory.check(), model, adapter, *_check_files(memory)]
    except StorageDamaged as error:
        return [cmt_sdk.CheckResult("database", False, str(error), "cmt check --repair")]


def _finish_repair(memory: cmt_sdk.Memory) -> None:
    with progress_bars() as update:
        memory.finish_repair(
            lambda p: update("encoding", p.compressed, p.compressed + memory.stats().pending)
        )


def _check_files(memory: cmt_sdk.Memory) -> Iterator[cmt_sdk.CheckResult]:
    """Yield one result if files that documents came from are missing; the memory itself is fine."""
    try:
        sources = [d.source for d in memory.documents() if d.source and is_file(d.source)]
        states = Counter(file_state(source) for source in sources)
    except StorageDamaged:  # another result reports it
        return
    counts = {name: sum(states[s] for s in group) for name, group in MISSING_FILES.items()}
    parts = [f"{count:,} {name}" for name, count in counts.items() if count]
    if parts:
        detail = (
            f"of {pluralize(states.total(), 'file')} {', '.join(parts)}; what is remembered of them"
            " still answers"
        )
        remedy = "cmt add FOLDER, or cmt watch --once FOLDER"
        yield cmt_sdk.CheckResult("files", True, detail, remedy)


def _check_adapter(name: str) -> cmt_sdk.CheckResult:
    try:
        return cmt_sdk.CheckResult("adapter", True, resolve_adapter(name))
    except InvalidSetting as error:
        return cmt_sdk.CheckResult("adapter", False, str(error), "cmt config set adapter FOLDER")
