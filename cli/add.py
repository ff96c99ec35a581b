"""`cmt add`: files, folders, standard input or a text into memory."""

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
from cmt_cli.failures import exit_code, tell, warn
from cmt_cli.follow import Entry
from cmt_cli.inputs import expanded, standard_input
from cmt_cli.memories import begun, opened
from cmt_cli.options import exclude_option, expires_option, json_option, memory_option, meta_option
from cmt_cli.output import amount, place, plain, print_json, say
from cmt_cli.progress import Update, bars
from cmt_cli.resolve import documents_of
from cmt_cli.sync import NAMED, UNREADABLE, Sync
from cmt_sdk.errors import CMTError, InvalidDocument, InvalidInput, NotFound

Refuse = Callable[[CMTError], None]


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    metavar="[FILE|FOLDER|GLOB|-]...",
    type=click.Path(allow_dash=True, readable=False),
)
@click.option("--text", help="A text to remember.")
@click.option("--source", help="Where the text comes from; a file has its path.")
@click.option("--scope", default="", help="Whose it is: a path of names, such as user/ann.")
@meta_option
@expires_option
@exclude_option
@click.option(
    "--no-wait",
    is_flag=True,
    help="Only store the text; it is compressed by `cmt compress`, or when it is needed.",
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
    folder: Path,
    as_json: bool,
) -> None:
    """Remember files, folders, or a text.

    In folders, text, html, pdf, Word, Excel, mail and more are read, and what is not is counted.
    What is unchanged is skipped; what has changed since, by its source, is updated; a file that was
    moved keeps its document; the text of a file that is empty now is taken out. Documents whose
    files are gone are named: `cmt watch --once FOLDER` takes them out.

    \b
    Example:
      cmt add ~/notes report.pdf "letters/*.md"
      cmt add --text "The oil was changed in May." --source car --meta year=2026
      pdftotext scan.pdf - | cmt add - --source scan.pdf
    """  # noqa: D301 - click reads the escape
    given = _checked(paths, text, source, folder)
    fields = {"source": source, "scope": scope, "metadata": meta, "expires_at": expires}
    with begun(folder) as memory:
        with bars() as update:
            run = Adding(memory, fields, as_json, update)
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


def _checked(
    paths: Sequence[str], text: str | None, source: str | None, folder: Path
) -> Sequence[str]:
    """The paths with globs replaced; click.UsageError for what no memory should be made for."""
    try:
        given = expanded(paths)
    except NotFound as error:
        raise _remembered(folder, paths, error) from error
    if not given and text is None:
        raise click.UsageError("give files, folders, - for standard input, or --text")
    if source and (len(given) + (text is not None) > 1 or any(Path(p).is_dir() for p in given)):
        raise click.UsageError("--source names one text: with it, give one file, -, or --text")
    if text is not None and not text.strip():
        raise click.UsageError("--text is empty or only white space: there is nothing to remember")
    return given


def _remembered(folder: Path, paths: Sequence[str], error: NotFound) -> NotFound:
    """The error for a file that is not there, with what the memory still knows of it."""
    if not cmt_sdk.Memory.exists(folder):
        return error
    with opened(folder) as memory:
        gone = [
            path
            for path in paths
            if path != "-" and not os.path.lexists(path) and documents_of(memory, path)
        ]
    return (
        NotFound(f"{error}; what was remembered of it stays: `cmt rm {gone[0]}` takes it out")
        if gone
        else error
    )


@dataclass
class Adding:
    """One run of the command. It goes on past a document that cannot be read or stored, and
    remembers that.
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
        """How many documents the run came upon."""
        known = self.progress.added + self.progress.updated + self.progress.unchanged
        return known + self.moved + self.removed + self.stale + self.kept_out

    def paths(self, paths: Sequence[str], exclude: Sequence[str]) -> None:
        """Store files, standard input ("-"), and what can be read in folders."""
        if "-" in paths:
            self.document(cmt_sdk.Document(standard_input()), self.refuse)
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
        """See sync.Report."""
        if change == "renamed":
            self.moved += 1
            self.edited += edited
        elif change == "removed":
            self.removed += 1
            if not self.as_json:
                say(f"removed {place(source, '')}: the file is empty now", err=True)
        else:
            self.progress = self.progress.plus(**{change: 1})
        self.progress = self.progress.plus(passages=passages)
        self.update("adding", self.handled, 0)

    def warned(self, message: str) -> None:
        """See sync.Report."""
        self.stale += 1
        warn(message, as_json=self.as_json)

    def may_go(self, folder: Path, entries: Sequence[Entry]) -> bool:
        """No: where many files are empty at once, something else than their owner did it."""
        what = f"{amount(len(entries), 'file')} in {folder} are empty at once"
        self.warned(f"{what}: what is remembered of them stays; `cmt rm` takes it out")
        return False

    def document(self, document: cmt_sdk.Document, refuse: Refuse) -> None:
        """Store one document's text; compression comes when all texts are safe."""
        given = {name: value for name, value in self.fields.items() if value}
        try:
            step = self.memory.add_many([replace(document, **given)], replace=True, compress=False)
        except InvalidDocument as error:
            refuse(error)
            return
        self.progress = self.progress.plus(**asdict(step))
        self.update("adding", self.handled, 0)

    def compress(self) -> None:
        """Compress what waits, what earlier runs have left included."""
        waiting = self.memory.stats().pending
        done = (
            self.memory.compress(lambda p: self.update("compressing", p.compressed, waiting))
            if waiting
            else 0
        )
        self.progress = self.progress.plus(compressed=done)

    def refuse(self, error: CMTError, *, named: bool = True) -> None:
        """Report what cannot be added: the command fails in the end where it was named, and passes
        it over in a folder.
        """
        if not named:
            warn(f"passed over: {error}", as_json=self.as_json)
            return
        tell(error, as_json=self.as_json)
        self.refused.append(error)

    def end(self) -> None:
        """Leave with the exit code of the first refusal, if there was one."""
        if self.refused:
            sys.exit(exit_code(self.refused[0]))

    def summarise(self) -> None:
        """What happened, on stdout."""
        p = self.progress
        more = {
            "moved": self.moved,
            "removed": self.removed,
            "kept_out": self.kept_out,
            "empty": len(self.empty),
            "refused": len(self.refused),
        }
        if self.as_json:
            print_json(plain(p) | more | {"moved_and_edited": self.edited})
            return
        waiting, earlier = p.passages - p.compressed, p.compressed - p.passages
        wait = f"; {amount(waiting, 'passage')} will be compressed later" if waiting > 0 else ""
        wait = f"; {amount(earlier, 'passage')} of earlier runs compressed" if earlier > 0 else wait
        rest = "".join(
            f", {count} {name.replace('_', ' ')}{self._how(name)}"
            for name, count in more.items()
            if count
        )
        say(f"{p.added} added, {p.updated} updated, {p.unchanged} unchanged{rest}{wait}")

    def _how(self, count: str) -> str:
        """What a count holds that is not counted apart, or the few files that it is of."""
        if count == "empty" and len(self.empty) <= NAMED:
            return f" ({', '.join(place(source, '') for source in self.empty)})"
        return f" ({self.edited} of them edited)" if count == "moved" and self.edited else ""
