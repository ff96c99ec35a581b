"""One evaluation from file to figures, with everything that somebody needs to run it again. Prints nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean, median
from typing import Any

from cmt_sdk.evaluation.harness import MODES, Asked, OnStage, Plan, Reply, run
from cmt_sdk.evaluation.metrics import Interval, auroc, bootstrap, recall_at
from cmt_sdk.memory import Memory
from cmt_sdk.questions import QuestionedPassage, read_passages
from cmt_sdk.types import Stats

SCHEMA = 1
DEPTHS = (1, 5, 10)
PACKAGES = ("cmt-sdk", "numpy", "torch", "transformers", "peft", "bitsandbytes", "hnswlib", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class Figures:
    """One reader over all questions. Metrics and shares in percent, milliseconds as medians, tokens as means.

    `found`: questions whose own passage was read. `wrote`: which reader the answers came from (auto has two).
    `confidence_auroc`, in [0, 1]: how well the confidence tells exact answers from others; None where all are alike.
    `errors`: questions that could not be asked; they score 0 and are left out of tokens and milliseconds.
    """

    exact: Interval
    f1: Interval
    paper_exact: Interval
    paper_f1: Interval
    abstained: float
    found: float
    wrote: Mapping[str, float]
    confidence_auroc: float | None
    prompt_tokens: float
    memory_tokens: float
    answer_tokens: float
    first_token_ms: float
    milliseconds: Mapping[str, float]
    errors: int


@dataclass(frozen=True, slots=True)
class Storage:
    """What the memory takes on the disk."""

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
    """The figures of one run and all that made them. `retrieval` is recall in percent by search mode and depth."""

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

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def evaluate(
    memory: Memory, file: Path, plan: Plan, command: Sequence[str] = (), on_stage: OnStage = lambda *_: None
) -> tuple[Report, list[Asked]]:
    """Run a plan over a question file in a memory: the report, and every question with its replies.

    The memory should be empty, or come from an earlier evaluation of the same file. Raises InvalidInput.
    """
    machine, began = describe_machine(), time.perf_counter()
    passages = read_passages(file)
    asked = run(memory, passages, plan, on_stage)
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
        retrieval=retrieval(asked) if plan.protocol == "stream" else {},
        readers={reader: figures([a.replies[reader] for a in asked], plan.seed) for reader in plan.readers},
        notes=_notes(passages, plan, asked),
    )
    return report, asked


def figures(replies: Sequence[Reply], seed: int) -> Figures:
    """The figures of one reader's replies; `seed` draws the bootstrap."""
    answered = [r for r in replies if not r.error] or [Reply()]

    def interval(metric: Callable[[Reply], float]) -> Interval:
        return bootstrap([100 * metric(r) for r in replies], seed)

    def mean(value: Callable[[Reply], float]) -> float:
        return fmean(value(r) for r in answered)

    def stage(name: str) -> float:
        return median(r.milliseconds[name] for r in answered if name in r.milliseconds)

    writers, stages = sorted({r.wrote for r in answered}), dict.fromkeys(s for r in answered for s in r.milliseconds)
    return Figures(
        exact=interval(lambda r: r.exact),
        f1=interval(lambda r: r.f1),
        paper_exact=interval(lambda r: r.paper_exact),
        paper_f1=interval(lambda r: r.paper_f1),
        abstained=100 * fmean(r.abstained for r in replies),
        found=100 * fmean(r.found for r in replies),
        wrote={name: 100 * fmean(r.wrote == name for r in replies) for name in writers if name},
        confidence_auroc=auroc([r.confidence for r in answered], [r.exact == 1 for r in answered]),
        prompt_tokens=mean(lambda r: r.prompt_tokens),
        memory_tokens=mean(lambda r: r.memory_tokens),
        answer_tokens=mean(lambda r: r.answer_tokens),
        first_token_ms=median(r.first_token_ms for r in answered),
        milliseconds={name: stage(name) for name in stages},
        errors=sum(bool(r.error) for r in replies),
    )


def retrieval(asked: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """Recall in percent by search mode: {"fused": {"recall@1": ...}, ...}."""
    return {mode: {f"recall@{k}": 100 * recall_at(k, [a.ranks[mode] for a in asked]) for k in DEPTHS} for mode in MODES}


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
    """What a reader of the figures has to know."""
    bank = passages[: plan.passages]
    there = sum(len(p.questions) for p in bank)
    notes = []
    if len(bank) < len(passages):
        notes.append(f"only the first {len(bank)} of {len(passages)} passages and their questions were used")
    if len(asked) < there:
        notes.append(f"{len(asked)} of {there} questions were drawn with seed {plan.seed}")
        if plan.protocol == "stream":
            notes.append(f"all {len(bank)} passages were in the memory all the same")
    notes.append("EM and F1: SQuAD v1.1, the first line of the answer, maximum over the references")
    notes.append(
        "paper EM and F1: the whole answer against the shortest reference, EM as a prefix match; the paper stops "
        f"after 16 tokens, here an answer has at most {plan.max_tokens}"
    )
    return notes


def describe_versions() -> dict[str, str]:
    """The installed versions of what decides the figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an optional part, or this package run from its source folder
            continue
    return found


def describe_machine() -> dict[str, Any]:
    """The kind of machine, its cores, and how busy it is now (load averages, where the system tells)."""
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": load,
    }
