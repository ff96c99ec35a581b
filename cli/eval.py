"""`cmt eval`: ask a file of questions with several readers, and report the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

import cmt_sdk
from cmt_cli import output
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, resolve_folder
from cmt_cli.setting_values import set_option
from cmt_sdk.errors import InvalidSetting

if TYPE_CHECKING:
    from cmt_sdk.evaluation import Asked, Figures, Report

IN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
ALL = 1_000_000  # more passages than can be read at once
OUT_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def _count(_: click.Context, __: click.Parameter, value: str) -> int:
    """Parse a number of passages, or "all"."""
    return ALL if value == "all" else int(click.IntRange(min=1)(value))


@click.command("eval")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--protocol",
    type=click.Choice(["gold", "stream", "abstain", "growth"]),
    default="stream",
    show_default=True,
    help="How questions and passages are combined; see below.",
)
@click.option(
    "--reader",
    "readers",
    multiple=True,
    type=click.Choice(cmt_sdk.READERS),
    default=("memory", "text", "none"),
    show_default=True,
    help="A reader to evaluate (repeatable).",
)
@click.option(
    "-k",
    "--k",
    metavar="N|all",
    default="5",
    show_default=True,
    callback=_count,
    help="Passages to read per question (stream).",
)
@click.option("--limit", type=int, help="Ask only this many questions, drawn at random.")
@click.option("--passages", type=int, help="Use only the first N passages of the file.")
@click.option(
    "--documents",
    type=IN_FILE,
    help="Passages for a question file that refers to them: {key, text}, one per line.",
)
@click.option(
    "--stages",
    default=4,
    show_default=True,
    help="growth: how many times the questions are asked.",
)
@click.option(
    "--irrelevant",
    multiple=True,
    type=IN_FILE,
    help="growth: a file of irrelevant texts to add (repeatable).",
)
@click.option("--seed", default=0, show_default=True, help="Seed for questions and bootstrap.")
@click.option("--max-tokens", default=32, show_default=True, help="Maximum tokens per answer.")
@click.option(
    "--compression", type=float, help="Source tokens per stored entry, as in the settings."
)
@click.option("--compressor", help="The compression method, as in the settings.")
@set_option
@click.option(
    "-m",
    "--memory",
    metavar="NAME_OR_PATH",
    help="Keep the memory here for later runs.  [default: a temporary one]",
)
@click.option(
    "--json",
    "out",
    type=OUT_FILE,
    help="Write the report to this file, and the answers next to it.",
)
@click.option(
    "--report",
    "folder",
    type=FOLDER,
    help="Add the report to this folder, and rewrite the folder's index.html.",
)
@click.option("--rows", type=OUT_FILE, help="Write every question with its answers as JSON lines.")
def eval_command(
    file: Path,
    memory: str | None,
    out: Path | None,
    folder: Path | None,
    rows: Path | None,
    compression: float | None,
    compressor: str | None,
    settings: Mapping[str, Any],
    irrelevant: Sequence[Path],
    documents: Path | None,
    **plan: Any,
) -> None:
    """Measure answers, retrieval and costs on the questions of FILE.

    FILE holds JSON lines, gzipped or not, one question per line: {"id", "title", "context",
    "question", "answers": [...]}. SQuAD's .json is supported too, and StreamingQA and ArchivalQA
    (.jsonl, .csv) with their passages in --documents.

    Protocols (--protocol):

    \b
    gold     each question reads only its own passage
    stream   all passages are in one memory
    abstain  as gold, and once more with a passage that does not hold the answer
    growth   asks the questions of the first passages (200, or --passages) while the rest of
             the file, or the texts of --irrelevant, are added

    \b
    Example:
      cmt eval questions.jsonl.gz --protocol stream --reader memory --limit 200 --json report.json
    """  # noqa: D301 - click reads the escape
    from cmt_sdk.evaluation import Plan, evaluate

    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    for path in filter(None, (out, rows)):
        if not path.parent.is_dir():
            raise click.BadParameter(f"there is no folder {path.parent}")
    named = {"compression": compression, "compressor": compressor}
    given = {**settings, **{name: value for name, value in named.items() if value is not None}}
    chosen = Plan(**plan)
    with _opened(memory, given) as store, _progress() as on_stage:
        report, asked = evaluate(
            store, file, chosen, ["cmt", *sys.argv[1:]], on_stage, irrelevant, documents
        )
    added = _new_report(folder, plan["protocol"]) if folder else None
    written = [path for path in (out, added) if path]
    for path in written:
        path.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    if rows := rows or next((path.with_suffix(".rows.jsonl") for path in written), None):
        _write_rows(rows, asked)
    _show(report)
    if folder:
        from cmt_sdk.evaluation.page import write_page

        output.echo(f"the page: {write_page(folder)}")


def _new_report(folder: Path, protocol: str) -> Path:
    """Return a file name that is free in the folder: gold-1.json, gold-2.json, ..."""
    return next(path for n in count(1) if not (path := folder / f"{protocol}-{n}.json").exists())


@contextmanager
def _opened(memory: str | None, settings: Mapping[str, Any]) -> Iterator[cmt_sdk.Memory]:
    """Open the memory to fill: a temporary one, or the named one.

    Raises:
        InvalidSetting: The named memory's passages were split with another passage_tokens.
    """
    with ExitStack() as stack:
        if memory is None:
            folder: Place = Path(stack.enter_context(TemporaryDirectory(prefix="cmt-eval-")))
        else:
            folder = resolve_folder(memory)
            _check_passages(folder, settings)
        yield stack.enter_context(open_memory(folder, create=True, **settings))


def _check_passages(folder: Place, settings: Mapping[str, Any]) -> None:
    try:
        with open_memory(folder) as known:
            before = known.settings.passage_tokens
    except cmt_sdk.errors.MemoryNotFound:
        return
    if settings.get("passage_tokens", before) != before:
        raise InvalidSetting(
            f"passage_tokens={settings['passage_tokens']}: the passages in {folder} were split"
            f" with {before}; evaluate in another folder"
        )


@contextmanager
def _progress() -> Iterator[Any]:
    """Show one progress bar per stage on stderr while the block runs."""
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    console = output.console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        tasks: dict[str, Any] = {}

        def on_stage(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield on_stage


def _write_rows(path: Path, asked: Sequence[Asked]) -> None:
    from dataclasses import asdict

    with path.open("w", encoding="utf-8") as file:
        for one in asked:
            file.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")


def _show(report: Report) -> None:
    """Print the figures as tables, with notes."""
    from rich import box
    from rich.table import Table

    console = output.console()
    console.print(f"{report.file}, {report.protocol}: {report.questions_asked} questions")
    main = Table("", *report.readers, box=box.SIMPLE_HEAD)
    for name, cells in _lines(list(report.readers.values())):
        main.add_row(name, *cells)
    console.print(main)
    if report.retrieval:
        depths = list(next(iter(report.retrieval.values())))
        found = Table("retrieval", *depths, box=box.SIMPLE_HEAD)
        for mode, recalls in report.retrieval.items():
            found.add_row(mode, *(f"{recalls[depth]:.1f}" for depth in depths))
        console.print(found)
    for name, columns, rows in _more(report):
        shown = Table(name, *columns, box=box.SIMPLE_HEAD)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    s = report.storage
    console.print(
        f"{s.passages} passages, {s.tokens} tokens; {s.bytes_per_passage:.0f} bytes of memory"
        f" per passage, {s.bytes_per_token:.0f} per token; {s.pending} pending;"
        f" {report.seconds:.0f} s in all"
    )
    for note in ["±: half a 95 % bootstrap interval", *report.notes]:
        console.print(f"- {note}", style="dim")


def _more(report: Report) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield the tables of some protocols: a name, the columns and the rows."""
    if report.abstention:
        rows = [
            [
                reader,
                "" if a.auroc is None else f"{a.auroc:.2f}",
                *(f"{x:.1f}" for x in (a.accuracy, a.answered, a.withheld)),
            ]
            for reader, a in report.abstention.items()
        ]
        yield "abstention", ["AUROC", "right %", "answered %", "withheld %"], rows
    if report.curve:
        readers = list(report.curve[0].f1)
        rows = [
            [str(p.documents), *(f"{p.f1[r]:.1f} ({p.relative[r]:.0f} %)" for r in readers)]
            for p in report.curve
        ]
        yield "documents", [f"{reader} F1" for reader in readers], rows


def _lines(readers: Sequence[Figures]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the main table: a name, and one cell per reader."""
    for name, label in (
        ("exact", "EM"),
        ("f1", "F1"),
        ("paper_exact", "paper EM"),
        ("paper_f1", "paper F1"),
    ):
        metrics = [getattr(f, name) for f in readers]
        yield label, [f"{m.mean:.1f} ±{(m.high - m.low) / 2:.1f}" for m in metrics]
    for name, label in (
        ("abstained", "abstained %"),
        ("found", "own passage read %"),
        ("prompt_tokens", "prompt tokens"),
        ("memory_tokens", "memory tokens"),
        ("answer_tokens", "answer tokens"),
        ("first_token_ms", "first token ms"),
    ):
        yield label, [f"{getattr(f, name):.1f}" for f in readers]
    for stage in dict.fromkeys(s for f in readers for s in f.milliseconds):
        yield (
            f"  {stage} ms",
            [f"{f.milliseconds[stage]:.1f}" if stage in f.milliseconds else "" for f in readers],
        )
    if any(f.errors for f in readers):
        yield "not asked", [str(f.errors) for f in readers]
