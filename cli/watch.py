"""`cmt watch`: a memory in step with a folder of notes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from cmt_cli.memories import begun
from cmt_cli.options import exclude_option, json_option, memory_option
from cmt_cli.watching import Watching
from cmt_sdk.errors import NotFound, StorageDenied
from cmt_sdk.extras import unusable

QUIET = 500  # milliseconds without a change end a burst: until then a file may be half written
LONGEST_BURST = 10_000
LOOK = 500  # milliseconds between two looks whether the folder is still there


@click.command()
@click.argument("directory", metavar="FOLDER", type=click.Path(path_type=Path, readable=False))
@click.option("--once", is_flag=True, help="Bring the memory in step, and end.")
@click.option(
    "--forget",
    is_flag=True,
    help="Erase what is gone from the folder, as `cmt forget` does, with a receipt.",
)
@click.option("--scope", default="", help="Whose it is: a path of names, such as user/ann.")
@exclude_option
@click.option(
    "--yes",
    is_flag=True,
    help="Take documents out even where all files of a folder are gone at once.",
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
    folder: Path,
    as_json: bool,
) -> None:
    """Keep a memory in step with the files in FOLDER, until Ctrl-C.

    New files are added, changed ones updated, moved ones followed, and documents whose source is a
    file in FOLDER that is gone or empty are taken out. The same files count as for `cmt add
    FOLDER`. One line tells of each change; with --json it is an object.

    Where all or most files of a folder are gone at once (a drive that is not mounted, perhaps), and
    where a file is in a cloud or closed, nothing is taken out: these are named, and --yes or an
    answer says that the files are gone for good.

    \b
    Example:
      cmt watch ~/notes
      cmt watch ~/notes --once --forget
    """  # noqa: D301 - click reads the escape
    root = _existing(directory)
    bursts = None if once else _bursts(root)
    if bursts is not None:
        next(bursts)  # from now on nothing that changes is missed
    with begun(folder) as memory:
        watching = Watching(memory, root, sure=yes, as_json=as_json)
        watching.begin(scope, exclude, erase=forget)
        if bursts is not None:
            _follow(watching, bursts)
    if watching.sync.traces:
        sys.exit(1)


def _existing(directory: Path) -> Path:
    """The folder as the sources of documents name it. NotFound where there is none: that is not an
    empty one.
    """
    if os.path.isfile(directory):  # noqa: PTH113 - Path.is_file raises in a closed folder
        raise NotFound(f"{directory} is a file: give its folder; `cmt add` takes single files")
    if not os.path.isdir(directory):  # noqa: PTH112 - so does Path.is_dir
        raise NotFound(f"there is no folder {directory}: nothing was taken out of the memory")
    return directory.resolve()


def _bursts(root: Path) -> Iterator[Sequence[Path]]:
    """The paths that changed, burst by burst; none now and then, so that the caller can look
    around. Raises MissingExtra.
    """
    try:
        from watchfiles import watch as changes
    except ImportError as error:
        raise unusable("`cmt watch` without --once", "watch", error) from error
    found = changes(
        root,
        watch_filter=None,
        debounce=LONGEST_BURST,
        step=QUIET,
        rust_timeout=LOOK,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    try:
        for burst in found:
            yield sorted({Path(path) for _, path in burst})
    except OSError as error:  # Linux has a limit of folders to watch
        raise StorageDenied(
            f"{root} cannot be watched: {error}; run `cmt watch --once` now and then"
        ) from error


def _follow(watching: Watching, bursts: Iterator[Sequence[Path]]) -> None:
    """Keep in step until Ctrl-C, which is how this ends."""
    watching.note(f"watching {watching.root}; Ctrl-C ends")
    try:
        for paths in bursts:
            _existing(watching.root)
            if any(map(watching.concerns, paths)):
                watching.step(paths)
    except KeyboardInterrupt:
        watching.note("\nstopped; what was stored is safe")
