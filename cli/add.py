"""`cmt add`: add files, folders, standard input or a text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.error_handling import exit_code, report, warn
from cmt_cli.inputs import expand_globs, read_stdin
from cmt_cli.memory_folder import open_memory, open_or_create
from cmt_cli.moved_files import Entry
from cmt_cli.options import (
    Place,
    exclude_option,
    expires_option,
    json_option,
    memory_option,
    meta_option,
)
from cmt_cli.output import echo, pluralize, print_json, short_source, to_jsonable
from cmt_cli.progress import Update, progress_bars
from cmt_cli.resolve import documents_from
from cmt_cli.sync import UNREADABLE, Sync
from cmt_cli.sync_report import MAX_NAMED
from cmt_sdk.errors import CMTError, InvalidDocument, InvalidInput, NotFound

OnRefused = Callable[[CMTError], None]


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    metavar="[FILE|FOLDER|GLOB|-]...",
    type=click.Path(allow_dash=True, readable=False),
)
@click.option("--text", help="A text to remember.")
@click.option("--source", help="Where the text comes from; the default for a file is its path.")
@click.option("--scope", default="", help="Namespace path, e.g. user/ann.")
@meta_option
@expires_option
@exclude_option
@click.option(
    "--no-wait",
    is_flag=True,
    help="Only store the text; `cmt compress` or the first use compresses it.",
)
@memory_option
@json_option
def add(
    paths: Sequence[str],
    text: str | None,
    source: str | None,
    scope: str,
    meta: Mapping[str, Any],
    expires: datetime | None,
    exclude: Sequence[str],
    no_wait: bool,
    folder: Place,
    as_json: bool,
) -> None:
    """Remember files, folders, or a text.

    In folders, the command reads text, HTML, PDF, Word, Excel, mail and more, and counts the files
    that it cannot read. It skips unchanged files and updates documents whose files changed. A moved
    file keeps its document. If a file is empty now, its document is removed. Documents whose files
    are gone are named; `cmt watch --once FOLDER` removes them.

    \b
    Example:
      cmt add ~/notes report.pdf "letters/*.md"
      cmt add --text "The oil was changed in May." --source car --meta year=2026
      pdftotext scan.pdf - | cmt add - --source scan.pdf
    """  # noqa: D301 - click reads the escape
    given = _check_arguments(paths, text, source, folder)
    fields = {"source": source, "scope": scope, "metadata": meta, "expires_at": expires}
    with open_or_create(folder) as memory:
        with progress_bars() as update:
            run = AddRun(memory, fields, as_json, update)
            if text is not None:
                run.document(cmt_sdk.Document(text), run.refuse)
            run.paths(given, exclude)
            if not run.handled and not run.refused:
                raise InvalidInput(
                    f"nothing to remember in {', '.join(given)}: no text that can be read"
                )
            if not no_wait:
                run.compress()
        if run.handled:
            run.summarise()
        run.end()


def _check_arguments(
    paths: Sequence[str], text: str | None, source: str | None, folder: Place
) -> Sequence[str]:
    """Return the paths with globs replaced.

    Raises:
        click.UsageError: Nothing is given, or the options contradict each other.
        NotFound: A path or glob matches nothing.
    """
    try:
        given = expand_globs(paths)
    except NotFound as error:
        raise _with_remembered(folder, paths, error) from error
    if not given and text is None:
        raise click.UsageError("give files, folders, - for standard input, or --text")
    if source and (len(given) + (text is not None) > 1 or any(Path(p).is_dir() for p in given)):
        raise click.UsageError("--source names one text: with it, give one file, -, or --text")
    if text is not None and not text.strip():
        raise click.UsageError("--text is empty or only white space: there is nothing to remember")
    return given


def _with_remembered(folder: Place, paths: Sequence[str], error: NotFound) -> NotFound:
    """Return the error for a missing file, with a hint if the memory has its document."""
    if not cmt_sdk.Memory.exists(folder):
        return error
    with open_memory(folder) as memory:
        gone = [
            path
            for path in paths
            if path != "-" and not os.path.lexists(path) and documents_from(memory, path)
        ]
    return (
        NotFound(f"{error}; what was remembered of it stays: `cmt rm {gone[0]}` removes it")
        if gone
        else error
    )


@dataclass
class AddRun:
    """One run of the command.

    It continues after a document that cannot be read or stored, and collects these errors in
    `refused`. The numbers count documents: `moved` of them `edited`, `removed`, `stale` (named in
    a warning), `kept_out`; `empty` are the sources of new files without text.
    """

    memory: cmt_sdk.Memory
    fields: Mapping[str, Any]
    as_json: bool
    update: Update
    progress: cmt_sdk.Progress = field(default_factory=cmt_sdk.Progress)
    moved: int = 0
    edited: int = 0
    removed: int = 0
    stale: int = 0
    kept_out: int = 0
    empty: Sequence[str] = ()
    refused: list[CMTError] = field(default_factory=list)

    @property
    def handled(self) -> int:
        """Return the number of documents that the run handled."""
        known = self.progress.added + self.progress.updated + self.progress.unchanged
        return known + self.moved + self.removed + self.stale + self.kept_out

    def paths(self, paths: Sequence[str], exclude: Sequence[str]) -> None:
        """Store files, standard input ("-"), and the readable files of folders."""
        if "-" in paths:
            self.document(cmt_sdk.Document(read_stdin()), self.refuse)
        files = [path for path in paths if path != "-"]
        if self.fields.get("source"):
            for file in files:
                self._under_another_source(file)
        elif files:
            given = {
                name: self.fields[name]
                for name in ("metadata", "expires_at")
                if self.fields.get(name)
            }
            sync = Sync(self.memory, self.fields["scope"], self, self.may_go, given, exclude)
            sync.run(files)
            self.kept_out, self.empty = sync.kept_out, sync.empty

    def _under_another_source(self, file: str) -> None:
        try:
            document = cmt_sdk.read_document(file)
        except UNREADABLE as error:
            self.refuse(error)
        else:
            self.document(document, self.refuse)

    def changed(
        self, change: str, source: str, *, passages: int = 0, edited: bool = False, **_: Any
    ) -> None:
        """Count a change. See SyncReport."""
        if change == "renamed":
            self.moved += 1
            self.edited += edited
        elif change == "removed":
            self.removed += 1
            if not self.as_json:
                echo(f"removed {short_source(source, '')}: the file is empty now", err=True)
        else:
            self.progress = self.progress.plus(**{change: 1})
        self.progress = self.progress.plus(passages=passages)
        self.update("adding", self.handled, 0)

    def warned(self, message: str) -> None:
        """Print a warning. See SyncReport."""
        self.stale += 1
        warn(message, as_json=self.as_json)

    def may_go(self, folder: Path, entries: Sequence[Entry]) -> bool:
        """Return False: files that are all empty at once were hardly emptied by their owner."""
        what = f"{pluralize(len(entries), 'file')} in {folder} are empty at once"
        self.warned(f"{what}: what is remembered of them stays; `cmt rm` removes it")
        return False

    def document(self, document: cmt_sdk.Document, refuse: OnRefused) -> None:
        """Store one document without compressing it; all texts are stored first."""
        given = {name: value for name, value in self.fields.items() if value}
        try:
            step = self.memory.add_many([replace(document, **given)], replace=True, compress=False)
        except InvalidDocument as error:
            refuse(error)
            return
        self.progress = self.progress.plus(**asdict(step))
        self.update("adding", self.handled, 0)

    def compress(self) -> None:
        """Compress all pending passages, also those of earlier runs."""
        pending = self.memory.stats().pending
        done = (
            self.memory.compress(lambda p: self.update("compressing", p.compressed, pending))
            if pending
            else 0
        )
        self.progress = self.progress.plus(compressed=done)

    def refuse(self, error: CMTError, *, named: bool = True) -> None:
        """Report what cannot be added.

        If the user named it, the command fails at its end; a file of a folder is only skipped.
        """
        if not named:
            warn(f"skipped: {error}", as_json=self.as_json)
            return
        report(error, as_json=self.as_json)
        self.refused.append(error)

    def end(self) -> None:
        """Exit with the code of the first refusal, if there was one."""
        if self.refused:
            sys.exit(exit_code(self.refused[0]))

    def summarise(self) -> None:
        """Print the counts on stdout."""
        p = self.progress
        more = {
            "moved": self.moved,
            "removed": self.removed,
            "kept_out": self.kept_out,
            "empty": len(self.empty),
            "refused": len(self.refused),
        }
        if self.as_json:
            print_json(to_jsonable(p) | more | {"moved_and_edited": self.edited})
            return
        rest = "".join(
            f", {count} {name.replace('_', ' ')}{self._details(name)}"
            for name, count in more.items()
            if count
        )
        if (pending := p.passages - p.compressed) > 0:
            rest += f"; {pluralize(pending, 'passage')} will be compressed later"
        elif pending < 0:
            rest += f"; {pluralize(-pending, 'passage')} of earlier runs compressed"
        echo(f"{p.added} added, {p.updated} updated, {p.unchanged} unchanged{rest}")

    def _details(self, count: str) -> str:
        """Return details for a count: the names of few empty files, or how many were edited."""
        if count == "empty" and len(self.empty) <= MAX_NAMED:
            return f" ({', '.join(short_source(source, '') for source in self.empty)})"
        return f" ({self.edited} of them edited)" if count == "moved" and self.edited else ""
