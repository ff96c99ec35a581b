"""One evaluation from file to figures, with everything needed to repeat it. Prints nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cmt_sdk.errors import InvalidInput
from cmt_sdk.evaluation.drawing import source_of
from cmt_sdk.evaluation.figures import (
    Abstention,
    Figures,
    Point,
    abstention,
    curve,
    figures,
    retrieval,
)
from cmt_sdk.evaluation.harness import (
    FIRST_PASSAGES,
    Asked,
    OnStage,
    Plan,
    Stage,
    grow,
    run,
)
from cmt_sdk.memory import Memory
from cmt_sdk.questions.dataset import QuestionedPassage, read_lines, read_passages
from cmt_sdk.types import Document, Stats

SCHEMA = 2
PACKAGES = (
    "cmt-sdk",
    "numpy",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "hnswlib",
    "sqlalchemy",
)


@dataclass(frozen=True, slots=True)
class Storage:
    """The memory's use of the disk."""

    passages: int
    pending: int
    tokens: int
    text_bytes: int
    memory_bytes: int
    file_bytes: int
    bytes_per_passage: float
    bytes_per_token: float


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run, and all settings behind them.

    `retrieval` is recall in percent by search mode and depth. Where the memory grows, `readers` and
    `retrieval` are those of its last stage, and `curve` has all stages.
    """

    schema: int
    protocol: str
    file: str
    file_sha256: str
    passages_in_file: int
    questions_in_file: int
    questions_asked: int
    plan: Mapping[str, Any]
    settings: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    command: Sequence[str]
    seconds: float
    storage: Storage
    retrieval: Mapping[str, Mapping[str, float]]
    readers: Mapping[str, Figures]
    notes: Sequence[str]
    abstention: Mapping[str, Abstention] = field(default_factory=dict)
    curve: Sequence[Point] = ()

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def evaluate(
    memory: Memory,
    file: Path,
    plan: Plan,
    command: Sequence[str] = (),
    on_stage: OnStage = lambda *_: None,
    irrelevant: Sequence[Path] = (),
    documents: Path | None = None,
) -> tuple[Report, list[Asked]]:
    """Run a plan over a question file in a memory.

    Args:
        memory: An empty memory, or one from an earlier evaluation of the same file.
        file: The question file.
        plan: The questions to ask.
        command: The command line, for the report.
        on_stage: As in `harness.run`.
        irrelevant: Files to add while a memory grows; by default the rest of `file`.
        documents: The passages of a file that only names them.

    Returns:
        The report, and every question with its replies.

    Raises:
        InvalidInput: The file or the memory does not fit the plan.
    """
    machine = describe_machine()
    began = time.perf_counter()
    passages = read_passages(file, documents)
    stages: list[Stage] = []
    if plan.protocol == "growth":
        stages = grow(memory, passages, _later(passages, plan, irrelevant), plan, on_stage)
    asked = list(stages[-1].asked) if stages else run(memory, passages, plan, on_stage)
    report = Report(
        schema=SCHEMA,
        protocol=plan.protocol,
        file=file.name,
        file_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        passages_in_file=len(passages),
        questions_in_file=sum(len(p.questions) for p in passages),
        questions_asked=len(asked),
        plan=asdict(plan),
        settings=asdict(memory.settings),
        fingerprint=asdict(memory.fingerprint),
        versions=describe_versions(),
        machine=machine,
        command=list(command),
        seconds=time.perf_counter() - began,
        storage=_storage(memory.stats()),
        retrieval=retrieval(asked) if asked[0].ranks else {},
        readers={
            reader: figures([a.replies[reader] for a in asked], plan.seed)
            for reader in plan.readers
        },
        notes=_notes(passages, plan, asked),
        abstention={r: abstention(asked, r) for r in plan.readers if plan.protocol == "abstain"},
        curve=curve(stages, plan.readers),
    )
    return report, asked


def _later(
    passages: Sequence[QuestionedPassage], plan: Plan, irrelevant: Sequence[Path]
) -> list[Document]:
    """The documents that a growing memory adds: other files' texts, or the rest of the file.

    Raises:
        InvalidInput: They are too few for the plan's stages.
    """
    first = passages[: plan.passages or FIRST_PASSAGES]
    if irrelevant:
        known = {p.context for p in first}
        texts = dict.fromkeys(
            text for file in irrelevant for text in _texts(file) if text not in known
        )
    else:
        texts = dict.fromkeys(p.context for p in passages[len(first) :])
    if len(texts) < plan.stages:
        raise InvalidInput(
            f"{len(texts)} more documents are too few for {plan.stages} stages: name other files as"
            " irrelevant ones, or ask the questions of fewer passages"
        )
    return [Document(text, source=source_of(text)) for text in texts]


def _texts(file: Path) -> Iterator[str]:
    """The texts of a file of questions or of plain text, as JSON lines."""
    for row in read_lines(file):
        if text := str(row.get("text") or row.get("context") or "").strip():
            yield text


def _storage(stats: Stats) -> Storage:
    return Storage(
        passages=stats.passages,
        pending=stats.pending,
        tokens=stats.tokens,
        text_bytes=stats.text_bytes,
        memory_bytes=stats.memory_bytes,
        file_bytes=stats.file_bytes,
        bytes_per_passage=stats.memory_bytes / max(1, stats.passages),
        bytes_per_token=stats.memory_bytes / max(1, stats.tokens),
    )


def _notes(passages: Sequence[QuestionedPassage], plan: Plan, asked: Sequence[Asked]) -> list[str]:
    """Notes that a reader of the figures must know."""
    bank = passages[: plan.passages]
    there = sum(len(p.questions) for p in bank)
    notes = []
    if len(bank) < len(passages):
        notes.append(
            f"only the first {len(bank)} of {len(passages)} passages and their questions were used"
        )
    if len(asked) < there:
        notes.append(f"{len(asked)} of {there} questions were drawn with seed {plan.seed}")
        if plan.protocol == "stream":
            notes.append(f"the memory held all {len(bank)} passages")
    notes.append("EM and F1: SQuAD v1.1, the first line of the answer, maximum over the references")
    notes.append(
        "paper EM and F1: the whole answer against the shortest reference, EM as a prefix match;"
        f" the paper stops after 16 tokens, here an answer has at most {plan.max_tokens}"
    )
    return notes


def describe_versions() -> dict[str, str]:
    """The installed versions of the packages that influence the figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an optional part, or this package run from its source folder
            continue
    return found


def describe_machine() -> dict[str, Any]:
    """The kind of machine, its cores, and its load averages where the system reports them."""
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": load,
    }
