"""What a training run is made of, what it will take, and what was learned from. Plain values; knows
no torch and no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cmt_sdk.config import DEFAULT_MODEL
from cmt_sdk.errors import InvalidInput, InvalidSetting
from cmt_sdk.training.loop import Plan
from cmt_sdk.training.losses import Objectives

PARTS = ("reader", "compressor", "soft", "cmt", "matcher", "embedding")
_READ = ("reader", "compressor", "soft", "cmt")
PIECES = {
    "distractors": _READ,  # passages beside the right one
    "absent": _READ,  # questions whose passage is absent
    "rounding": _READ,  # the four bits that memories are stored in
    "pruning": ("reader", "compressor"),  # memories with a quarter or an eighth of their entries
    "repetition": ("soft",),  # passages to be repeated beside the questions
    "ratios": ("soft",),  # a ratio drawn for each step; without: 4
    "warm-start": ("soft",),  # little compression at first
    "matching": ("cmt",),  # self-matching
    "negatives": ("matcher", "embedding"),  # passages that the words of a question also fit
}  # what can be left out, and of which parts

NOT_FOR_ALL: Mapping[str, tuple[Sequence[str], float]] = {
    "checkpointing": (("reader", "compressor", "soft"), False),
    "batch": (("reader", "compressor", "soft"), 1),
    "alpha": (("soft", "cmt"), 0.0),
    "states": (("soft",), 0.0),
}  # settings, the parts that have them, and the value that asks for nothing
# peak learning rates that are not 1e-3: examples/benchmarks/runs.md, trials
RATES: Mapping[str, float] = {"soft": 2e-3}
# beside those all parts have
WEIGHTS: Mapping[str, Mapping[str, float]] = {"soft": {"states": 3.0}, "cmt": {"alpha": 0.5}}


def objectives_for(part: str, **given: float | None) -> Objectives:
    """What a part minimises: `given` weights, by the names of Objectives, and its own for those
    that are None or missing; the teacher's states have none of their own where the teacher is given
    0.
    """
    own = {"answer": 0.5, "teacher": 1.0, **WEIGHTS.get(part, {})}
    if given.get("teacher") == 0:
        own.pop("states", None)
    return Objectives(
        **own | {name: weight for name, weight in given.items() if weight is not None}
    )


def rate_for(part: str, given: float | None = None) -> float:
    """The peak learning rate that is `given`, else the part's own."""
    return RATES.get(part, 1e-3) if given is None else given


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained on what.

    part: "reader" (reads the kv memories that there are), "compressor" (makes and reads kv
    memories: both adapters learn), "soft" (makes and reads soft memories), "cmt" (makes soft
    memories and gathers them as published), "matcher" (makes key vectors of the bare model's
    states: a head learns), "embedding" (makes embeddings: an adapter of the lower layers learns
    with the head). questions: question files, or folders of the files that MIXTURE names. texts:
    files and folders of plain text, of which questions are made. start: "default" (the adapter
    shipped for this model, if there is one), "none", or a folder with a bundle. objectives: what is
    minimised; `objectives_for` and `rate_for` tell what `cmt train` takes. ratio: tokens a latent,
    for "cmt". nf4: the share of examples read by the base as NF4 makes it. without: names of PIECES
    to leave out, to see what each is worth. passages: how many the matcher learns from. candidates:
    how many passages "embedding" tells apart at once; 0: as many as suit the device. held_out: how
    much the run is judged by: packs, or tens of passages (matcher, embedding). checkpointing:
    layers hold less, and compute again for their gradients. batch: how many examples are computed
    together (reader, compressor, soft): more fill a GPU, and take its memory. fit: the rate falls
    as `minutes` pass, not only as steps do, so that it is low when they are over.
    """

    part: str
    out: Path
    questions: Sequence[Path] = ()
    texts: Sequence[Path] = ()
    model: str = DEFAULT_MODEL
    device: str = "auto"
    start: str = "default"
    plan: Plan = field(default_factory=lambda: Plan(steps=1000))
    minutes: float = math.inf
    objectives: Objectives = field(default_factory=lambda: Objectives(answer=0.5, teacher=1.0))
    ratio: int = 8
    rank: int = 32
    nf4: float = 0.3
    without: Sequence[str] = ()
    passages: int = 3000
    candidates: int = 0
    held_out: int = 12
    checkpointing: bool = False
    batch: int = 1
    fit: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise InvalidSetting(f"part={self.part!r}: choose one of {', '.join(PARTS)}")
        for piece in self.without:
            if self.part not in PIECES.get(piece, ()):
                there = ", ".join(name for name, parts in PIECES.items() if self.part in parts)
                raise InvalidSetting(
                    f"without={piece!r}: of part {self.part!r} choose among {there}"
                )
        given = {
            "checkpointing": self.checkpointing,
            "batch": self.batch,
            **asdict(self.objectives),
        }
        for name, (parts, off) in NOT_FOR_ALL.items():
            if given[name] != off and self.part not in parts:
                raise InvalidSetting(
                    f"{name}={given[name]}: part {self.part!r} does without; it is for"
                    f" {', '.join(parts)}"
                )
        bounds = {
            "nf4": (0.0, 1.0),
            "ratio": (1, 64),
            "rank": (1, 256),
            "held_out": (1, 1000),
            "passages": (8, 10**7),
        }
        bounds |= {"batch": (1, 256), "candidates": (0, 10**5)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise InvalidSetting(f"{name}={getattr(self, name)}: choose {low} to {high}")
        if not self.minutes > 0:
            raise InvalidSetting(f"minutes={self.minutes:g}: choose more than 0")
        if not self.questions and not self.texts:
            raise InvalidInput(
                "there is nothing to learn from: give a question file, or a folder of texts"
            )

    @property
    def choices(self) -> dict[str, Any]:
        """What decides the examples and what is learned from them: a run that goes on must have the
        same.
        """
        names = (
            "part",
            "model",
            "start",
            "ratio",
            "rank",
            "nf4",
            "passages",
            "candidates",
            "held_out",
            "batch",
            "seed",
        )
        files = [path.name for path in (*self.questions, *self.texts)]
        return (
            {n: getattr(self, n) for n in names}
            | asdict(self.objectives)
            | {"without": sorted(self.without), "files": files}
        )


@dataclass(frozen=True, slots=True)
class ResourceEstimate:
    """What a run takes: bytes of memory while it lasts, bytes on the disk, the numbers that learn,
    and seconds a step.

    `seconds` is 0.0 where nothing was rehearsed.
    """

    memory: int
    disk: int
    parameters: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DatasetSizes:
    """Passages and questions by file: those learned from, and those judged by."""

    learned: Mapping[str, tuple[int, int]]
    judged: Mapping[str, tuple[int, int]]
