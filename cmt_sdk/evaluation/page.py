"""One page of all evaluations in a folder: tables and plots, readable without a network.

The folder holds reports (`NAME.json`), the answers next to them (`NAME.rows.jsonl`) and logs of
training (`NAME.log.jsonl`). Knows reports, measures nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from jinja2 import Environment

from cmt_sdk import plotting
from cmt_sdk.errors import InvalidInput
from cmt_sdk.plotting import Spot

Report: TypeAlias = Mapping[str, Any]
SHOWN = 15  # questions of each kind


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under their heads."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    words: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """Some questions with their answers."""

    title: str
    table: Table


@dataclass(frozen=True, slots=True)
class Run:
    """The facts to judge one report, and to repeat it."""

    name: str
    command: str
    facts: str
    notes: Sequence[str]
    samples: Sequence[Sample] = field(default_factory=list)


def write_page(folder: Path) -> Path:
    """Write `folder/index.html` from the reports in the folder.

    Args:
        folder: The folder of the reports.

    Returns:
        The path of the page.

    Raises:
        InvalidInput: There is no report, or a file is no JSON.
        MissingExtra: The plots need the extra "eval".
    """
    reports = {
        path.stem: found for path in sorted(folder.glob("*.json")) if (found := _report(path))
    }
    if not reports:
        raise InvalidInput(
            f"{folder}: there is no report in it; `cmt eval FILE --report {folder}` writes one"
        )
    logs = {
        path.name.removesuffix(".log.jsonl"): _lines(path)
        for path in sorted(folder.glob("*.log.jsonl"))
    }
    parts = (_frontiers, _retrieval, _abstention, _curves)
    sections = [
        _table(reports),
        *(section for part in parts for section in part(reports)),
        *_training(logs),
    ]
    runs = [_run(name, report, folder / f"{name}.rows.jsonl") for name, report in reports.items()]
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    page = folder / "index.html"
    page.write_text(
        Environment(autoescape=True).from_string(template).render(sections=sections, runs=runs),
        encoding="utf-8",
    )
    return page


def _report(path: Path) -> Report | None:
    """The report in a JSON file; None for another kind of JSON."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(f"{path}: not JSON ({error})") from error
    return (
        found
        if isinstance(found, dict) and {"schema", "protocol", "readers"} <= found.keys()
        else None
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]


def _kind(report: Report) -> str:
    """The way in which the compressed passages were made."""
    s = report["settings"]
    if s["compressor"] != "kv":
        return f"{s['compressor']} {s['compression']:g}x"
    # reports of earlier releases name the share of entries kept, and the compression of "soft"
    return f"kv {s['keep'] if 'keep' in s else 1 / s['compression']:g}"


def _name(report: Report, reader: str) -> str:
    return f"memory, {_kind(report)}" if reader == "memory" else reader


def _bytes(report: Report, reader: str) -> float:
    """The bytes that the reader reads, per passage."""
    storage = report["storage"]
    text = storage["text_bytes"] / max(1, storage["passages"])
    return float({"memory": storage["bytes_per_passage"], "none": 0.0}.get(reader, text))


def _pm(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.1f} ± {(interval['high'] - interval['low']) / 2:.1f}"


def _table(reports: Mapping[str, Report]) -> Section:
    head = [
        "run",
        "protocol",
        "questions",
        "reader",
        "EM",
        "F1",
        "paper EM",
        "paper F1",
        "prompt",
        "ms",
        "bytes per passage",
    ]
    rows = []
    for name, report in reports.items():
        for reader, f in report["readers"].items():
            metrics = [_pm(f[m]) for m in ("exact", "f1", "paper_exact", "paper_f1")]
            costs = [
                f"{f['prompt_tokens']:.0f}",
                f"{f['first_token_ms']:.0f}",
                f"{_bytes(report, reader):,.0f}",
            ]
            rows.append(
                [
                    name,
                    report["protocol"],
                    str(report["questions_asked"]),
                    _name(report, reader),
                    *metrics,
                    *costs,
                ]
            )
    return Section("All figures", tables=[Table(head, rows)])


def _frontiers(reports: Mapping[str, Report]) -> Iterator[Section]:
    """F1 against its cost, one protocol after another."""
    for protocol in dict.fromkeys(
        r["protocol"] for r in reports.values() if r["protocol"] in ("gold", "stream")
    ):
        chosen = [
            (r, reader, f)
            for r in reports.values()
            if r["protocol"] == protocol
            for reader, f in r["readers"].items()
        ]
        chosen = [c for c in chosen if c[1] != "none"]
        sizes = [_spot(r, reader, f, _bytes(r, reader)) for r, reader, f in chosen]
        times = [_spot(r, reader, f, f["first_token_ms"]) for r, reader, f in chosen]
        words = "Best is far up and far to the left: right answers for few bytes, and soon."
        figures = [
            Figure(
                plotting.spots(sizes, "bytes per passage", "F1"),
                f"{protocol}: F1 against stored bytes",
            ),
            Figure(
                plotting.spots(times, "milliseconds to the first word", "F1"),
                f"{protocol}: F1 against latency",
            ),
        ]
        yield Section(f"Quality and cost: {protocol}", words, figures)


def _spot(report: Report, reader: str, f: Mapping[str, Any], x: float) -> Spot:
    kind = reader if reader != "memory" else report["settings"]["compressor"]
    return Spot(
        _name(report, reader), kind, max(1.0, x), f["f1"]["mean"], f["f1"]["low"], f["f1"]["high"]
    )


def _retrieval(reports: Mapping[str, Report]) -> Iterator[Section]:
    for name, report in reports.items():
        if found := report["retrieval"]:
            depths = list(next(iter(found.values())))
            rows = [
                [mode, *(f"{recalls[d]:.1f}" for d in depths)] for mode, recalls in found.items()
            ]
            figure = Figure(
                plotting.bars(found, "percent"),
                "questions whose own passage is among the first k results",
            )
            yield Section(
                f"Retrieval: {name}", figures=[figure], tables=[Table(["search", *depths], rows)]
            )


def _abstention(reports: Mapping[str, Report]) -> Iterator[Section]:
    rows = [
        [name, reader, "" if a["auroc"] is None else f"{a['auroc']:.2f}", f"{a['threshold']:g}"]
        + [f"{a[n]:.1f}" for n in ("accuracy", "answered", "withheld")]
        for name, report in reports.items()
        for reader, a in report.get("abstention", {}).items()
    ]
    if rows:
        head = ["run", "reader", "AUROC", "threshold", "right %", "answered %", "withheld %"]
        words = "Each question with its own passage, and with one that lacks the answer."
        yield Section("Abstention", words, tables=[Table(head, rows)])


def _curves(reports: Mapping[str, Report]) -> Iterator[Section]:
    for name, report in reports.items():
        if points := report.get("curve"):
            series = {r: [(p["documents"], p["f1"][r]) for p in points] for r in points[0]["f1"]}
            series = {_name(report, r): line for r, line in series.items()}
            figure = Figure(
                plotting.lines(series, "documents in the memory", "F1"),
                "the same questions, repeated while documents are added",
            )
            rows = [
                [
                    str(p["documents"]),
                    *(f"{p['f1'][r]:.1f} ({p['relative'][r]:.0f} %)" for r in p["f1"]),
                ]
                for p in points
            ]
            yield Section(
                f"A growing memory: {name}",
                figures=[figure],
                tables=[Table(["documents", *series], rows)],
            )


def _training(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Section]:
    for name, log in logs.items():
        yield Section(
            f"Training: {name}",
            figures=[
                Figure(plotting.training_curve(log), "nats per answer token; the loss is smoothed")
            ],
        )


def _run(name: str, report: Report, rows: Path) -> Run:
    machine = report["machine"]
    versions = report["versions"]
    facts = [
        f"{report['file']} (SHA-256 {report['file_sha256'][:12]})",
        f"{report['questions_asked']} questions, seed {report['plan']['seed']}",
        (
            f"{report['seconds']:.0f} s on {machine['cores']} cores, load before"
            f" {machine['load_before']}"
        ),
        ", ".join(f"{k} {v}" for k, v in versions.items()),
        ", ".join(f"{k} {v}" for k, v in report["fingerprint"].items()),
    ]
    samples = _samples(_lines(rows)) if rows.exists() else []
    return Run(name, " ".join(report["command"]), "; ".join(facts), report["notes"], samples)


def _samples(rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """Some of the worst answers, and some at random."""
    readers = list(rows[0]["replies"])
    worst = sorted(rows, key=lambda row: sum(r["f1"] for r in row["replies"].values()))[:SHOWN]
    drawn = random.Random(0).sample(list(rows), min(SHOWN, len(rows)))  # noqa: S311 - the same ones every time, no secret
    return [
        Sample(title, _questions(some, readers))
        for title, some in (("The worst", worst), ("At random", drawn))
    ]


def _questions(rows: Sequence[Mapping[str, Any]], readers: Sequence[str]) -> Table:
    def shown(reply: Mapping[str, Any]) -> str:
        return f"{reply['text']} ({reply['confidence']:.2f})"

    cells = [
        [row["question"], row["answers"][0], *(shown(row["replies"][r]) for r in readers)]
        for row in rows
    ]
    return Table(["question", "answer", *(f"{r} (confidence)" for r in readers)], cells)
