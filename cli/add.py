"""`cmt add`: files, folders, standard input or a text into memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.failures import exit_code, tell, warn
from cmt_cli.inputs import expanded, standard_input
from cmt_cli.memories import begun
from cmt_cli.options import expires_option, json_option, memory_option, meta_option
from cmt_cli.output import amount, plain, print_json, say
from cmt_cli.progress import Update, bars
from cmt_sdk.errors import CMTError, InvalidDocument, InvalidInput, MissingExtra, NotFound, StorageDenied

UNREADABLE = (InvalidInput, MissingExtra, NotFound, StorageDenied)
Refuse = Callable[[CMTError], None]


@click.command()
@click.argument("paths", nargs=-1, metavar="[FILE|FOLDER|GLOB|-]...", type=click.Path(allow_dash=True, readable=False))
@click.option("--text", help="A text to remember.")
@click.option("--source", help="Where the text comes from; a file has its path.")
@click.option("--scope", default="", help="Whose it is: a path of names, such as user/ann.")
@meta_option
@expires_option
@click.option("--no-wait", is_flag=True, help="Only store the text; it is compressed by `cmt compress`, or when it is needed.")
@memory_option
@json_option
def add(
    paths: Sequence[str],
    text: str | None,
    source: str | None,
    scope: str,
    meta: Mapping[str, Any],
    expires: datetime | None,
    no_wait: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Remember files, folders, or a text.

    In folders, text files, html, pdf and docx are read. What is unchanged is skipped; what has changed since, by its
    source, is updated.

    \b
    Example:
      cmt add ~/notes report.pdf "letters/*.md"
      cmt add --text "The oil was changed in May." --source car --meta year=2026
      pdftotext scan.pdf - | cmt add - --source scan.pdf
    """  # noqa: D301 - click reads the escape
    given = _checked(paths, text, source)
    fields = {"source": source, "scope": scope, "metadata": meta, "expires_at": expires}
    with begun(folder) as memory:
        with bars() as update:
            run = Adding(memory, fields, as_json, update)
            if text is not None:
                run.document(cmt_sdk.Document(text), run.refuse)
            for path in given:
                run.path(path)
            if not run.documents and not run.refused:
                raise InvalidInput(f"nothing to remember in {', '.join(given)}: no text that can be read")
            if not no_wait:
                run.compress()
        if run.documents:
            run.summarise()
        run.end()


def _checked(paths: Sequence[str], text: str | None, source: str | None) -> Sequence[str]:
    """The paths with globs replaced; click.UsageError for what no memory should be made for."""
    given = expanded(paths)
    if not given and text is None:
        raise click.UsageError("give files, folders, - for standard input, or --text")
    if source and (len(given) + (text is not None) > 1 or any(Path(p).is_dir() for p in given)):
        raise click.UsageError("--source names one text: with it, give one file, -, or --text")
    if text is not None and not text.strip():
        raise click.UsageError("--text is empty or only white space: there is nothing to remember")
    return given


@dataclass
class Adding:
    """One run of the command. It goes on past a document that cannot be read or stored, and remembers that."""

    memory: cmt_sdk.Memory
    fields: Mapping[str, Any]
    as_json: bool
    update: Update
    progress: cmt_sdk.Progress = field(default_factory=cmt_sdk.Progress)
    refused: list[CMTError] = field(default_factory=list)

    @property
    def documents(self) -> int:
        """How many of the given documents are in the memory now."""
        return self.progress.added + self.progress.updated + self.progress.unchanged

    def path(self, path: str) -> None:
        """Store a file, standard input ("-"), or what can be read in a folder."""
        refuse = self.pass_over if Path(path).is_dir() else self.refuse
        for document in _read(path, self.refuse):
            self.document(document, refuse)

    def document(self, document: cmt_sdk.Document, refuse: Refuse) -> None:
        """Store one document's text; compression comes when all texts are safe."""
        given = {name: value for name, value in self.fields.items() if value}
        try:
            step = self.memory.add_many([replace(document, **given)], replace=True, compress=False)
        except InvalidDocument as error:
            refuse(error)
            return
        source = given.get("source") or document.source
        if step.unchanged and source and not self.memory.count(source=source):
            warn(f"{source}: this text is remembered under another source, and keeps that one", as_json=self.as_json)
        self.progress = self.progress.plus(**asdict(step))
        self.update("adding", self.documents, 0)

    def compress(self) -> None:
        """Compress what waits, what earlier runs have left included."""
        waiting = self.memory.stats().pending
        done = self.memory.compress(lambda p: self.update("compressing", p.compressed, waiting)) if waiting else 0
        self.progress = self.progress.plus(compressed=done)

    def refuse(self, error: CMTError) -> None:
        """Tell that something named cannot be added; the command will fail in the end."""
        tell(error, as_json=self.as_json)
        self.refused.append(error)

    def pass_over(self, error: CMTError) -> None:
        """Tell that something in a folder is passed over."""
        warn(f"passed over: {error}", as_json=self.as_json)

    def end(self) -> None:
        """Leave with the exit code of the first refusal, if there was one."""
        if self.refused:
            sys.exit(exit_code(self.refused[0]))

    def summarise(self) -> None:
        """What happened, on stdout."""
        p = self.progress
        if self.as_json:
            print_json(plain(p) | {"refused": len(self.refused)})
            return
        waiting, earlier = p.passages - p.compressed, p.compressed - p.passages
        wait = f"; {amount(waiting, 'passage')} will be compressed later" if waiting > 0 else ""
        wait = f"; {amount(earlier, 'passage')} of earlier runs compressed" if earlier > 0 else wait
        refused = f", {len(self.refused)} refused" if self.refused else ""
        say(f"{p.added} added, {p.updated} updated, {p.unchanged} unchanged{refused}{wait}")


def _read(path: str, refuse: Refuse) -> Iterator[cmt_sdk.Document]:
    try:
        if path == "-":
            yield cmt_sdk.Document(standard_input())
        else:
            yield from cmt_sdk.read_documents([path])
    except UNREADABLE as error:
        refuse(error)
