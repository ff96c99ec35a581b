"""`cmt watch`: keep a memory in sync with a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from cmt_cli.memory_folder import open_or_create
from cmt_cli.options import Place, exclude_option, json_option, memory_option
from cmt_cli.watch_session import WatchSession
from cmt_sdk.errors import NotFound, StorageDenied
from cmt_sdk.system.extras import unusable

QUIET_MS = 500  # without a change for this long, files are complete and are read
MAX_BURST_MS = 10_000  # changes without a pause are handled after this long
CHECK_MS = 500  # between two checks whether the folder still exists


@click.command()
@click.argument("directory", metavar="FOLDER", type=click.Path(path_type=Path, readable=False))
@click.option("--once", is_flag=True, help="Synchronise once and exit.")
@click.option(
    "--forget",
    is_flag=True,
    help="Erase documents whose files are gone, as `cmt forget` does, with a receipt.",
)
@click.option("--scope", default="", help="Namespace path, e.g. user/ann.")
@exclude_option
@click.option(
    "--yes",
    is_flag=True,
    help="Remove documents even if all files of a folder are gone at once.",
)
@memory_option
@json_option
def watch(
    directory: Path,
    once: bool,
    forget: bool,
    scope: str,
    exclude: Sequence[str],
    yes: bool,
    folder: Place,
    as_json: bool,
) -> None:
    """Keep a memory in sync with the files in FOLDER, until Ctrl-C.

    The command adds new files, updates changed ones, follows moved ones, and removes documents
    whose file in FOLDER is gone or empty. It reads the same files as `cmt add FOLDER`. It prints
    one line per change; with --json, one object.

    If all or most files of a folder are gone at once (the drive may not be mounted), or if a file
    is in a cloud or not readable, the command removes nothing and names the files. --yes, or your
    answer to the question, confirms that the files are gone for good.

    \b
    Example:
      cmt watch ~/notes
      cmt watch ~/notes --once --forget
    """  # noqa: D301 - click reads the escape
    root = _existing(directory)
    bursts = None if once else _bursts(root)
    if bursts is not None:
        next(bursts)  # from here on no change is missed
    with open_or_create(folder) as memory:
        watching = WatchSession(memory, root, sure=yes, as_json=as_json)
        watching.begin(scope, exclude, erase=forget)
        if bursts is not None:
            _follow(watching, bursts)
    if watching.sync.traces:
        sys.exit(1)


def _existing(directory: Path) -> Path:
    """Return the folder as an absolute path.

    Raises:
        NotFound: The folder does not exist. It must not be treated as an empty one.
    """
    if os.path.isfile(directory):  # noqa: PTH113 - Path.is_file raises in a closed folder
        raise NotFound(f"{directory} is a file: give its folder; `cmt add` takes single files")
    if not os.path.isdir(directory):  # noqa: PTH112 - so does Path.is_dir
        raise NotFound(f"there is no folder {directory}: nothing was removed from the memory")
    return directory.resolve()


def _bursts(root: Path) -> Iterator[Sequence[Path]]:
    """Yield the paths that changed, burst by burst, and an empty list every CHECK_MS.

    Raises:
        MissingExtra: watchfiles is not installed.
        StorageDenied: The system cannot watch the folder.
    """
    try:
        from watchfiles import watch as changes
    except ImportError as error:
        raise unusable("`cmt watch` without --once", "watch", error) from error
    found = changes(
        root,
        watch_filter=None,
        debounce=MAX_BURST_MS,
        step=QUIET_MS,
        rust_timeout=CHECK_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    try:
        for burst in found:
            yield sorted({Path(path) for _, path in burst})
    except OSError as error:  # Linux limits the number of watched folders
        raise StorageDenied(
            f"{root} cannot be watched: {error}; run `cmt watch --once` now and then"
        ) from error


def _follow(watching: WatchSession, bursts: Iterator[Sequence[Path]]) -> None:
    """Synchronise after each burst of changes, until Ctrl-C."""
    watching.note(f"watching {watching.root}; Ctrl-C ends")
    try:
        for paths in bursts:
            _existing(watching.root)
            if any(map(watching.concerns, paths)):
                watching.step(paths)
    except KeyboardInterrupt:
        watching.note("\nstopped; what was stored is safe")
