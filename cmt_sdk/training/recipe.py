"""The settings of a training run, the resources that it takes, and the sizes of its data sets.

Plain values; knows no torch and no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cmt_sdk.config.settings import DEFAULT_MODEL
from cmt_sdk.errors import InvalidInput, InvalidSetting
from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.task import Plan

PARTS = ("reader", "compressor", "soft", "cmt", "matcher", "embedding", "gates", "codec")
_READ = ("reader", "compressor", "soft", "cmt")
INGREDIENTS = {
    "distractors": _READ,  # passages in addition to the right one
    "absent": _READ,  # questions whose passage is absent
    "rounding": _READ,  # the four bits that memories are stored in
    "pruning": ("reader", "compressor"),  # memories with a quarter or an eighth of their entries
    "repetition": ("soft",),  # passages to repeat in addition to the questions
    "ratios": ("soft",),  # a ratio drawn for each step; ablated: 4
    "warm-start": ("soft",),  # little compression at first
    "matching": ("cmt",),  # self-matching
    "negatives": ("matcher", "embedding"),  # passages that the words of a question also fit
}  # the names that `ablate` takes, and the parts that have each

# Settings that some parts lack, the parts that have them, and the value that switches each off.
NOT_FOR_ALL: Mapping[str, tuple[Sequence[str], float]] = {
    "checkpointing": (("reader", "compressor", "soft"), False),
    "batch": (("reader", "compressor", "soft"), 1),
    "alpha": (("soft", "cmt"), 0.0),
    "states": (("soft",), 0.0),
}
BOUNDS: Mapping[str, tuple[float, float]] = {
    "nf4": (0.0, 1.0),
    "ratio": (1, 64),
    "rank": (1, 256),
    "held_out": (1, 1000),
    "passages": (8, 10**7),
    "batch": (1, 256),
    "candidates": (0, 10**5),
}
# Peak learning rates that are not 1e-3: examples/benchmarks/runs.md, trials.
RATES: Mapping[str, float] = {"soft": 2e-3}
# Weights of a part, added to those of all parts.
WEIGHTS: Mapping[str, Mapping[str, float]] = {"soft": {"states": 3.0}, "cmt": {"alpha": 0.5}}


def objectives_for(part: str, **given: float | None) -> Objectives:
    """The objectives of a part.

    Args:
        part: One of PARTS.
        given: Weights by the names of Objectives. The part's own weight stands where one is None or
            missing; with `teacher=0` a part has no weight of its own for `states`.

    Raises:
        InvalidSetting: A weight is out of bounds, or nothing is left to learn from.
    """
    own = {"answer": 0.5, "teacher": 1.0, **WEIGHTS.get(part, {})}
    if given.get("teacher") == 0:
        own.pop("states", None)
    return Objectives(
        **own | {name: weight for name, weight in given.items() if weight is not None}
    )


def rate_for(part: str, given: float | None = None) -> float:
    """The peak learning rate `given`, or the part's own where that is None."""
    return RATES.get(part, 1e-3) if given is None else given


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training run: the part to train, its data and its settings.

    Attributes:
        part: "reader" (reads existing kv memories), "compressor" (makes and reads kv memories: both
            adapters learn), "soft" (makes and reads soft memories), "cmt" (makes soft memories and
            gathers them as published), "matcher" (makes embeddings of the bare model's states: a
            head learns), "embedding" (makes embeddings: an adapter of the lower layers learns with
            the head), "gates" (scores the entries of kv memories in one pass; `train_gates`),
            "codec" (encodes the entries of kv memories; `train_codec`).
        out: The folder of the run and its bundle.
        questions: Question files, or folders of the files that MIXTURE names.
        texts: Files and folders of plain text, of which questions are made.
        weights: By a question file's name without suffixes, how often it is drawn, where that is
            not as MIXTURE says.
        model: A pulled model or a local folder.
        device: A torch device, or "auto".
        start: "default" (the adapter shipped for this model, if there is one), "none", or a folder
            with a bundle.
        plan: Steps, rate and schedule.
        minutes: The run stops after this time; the same recipe resumes it.
        objectives: The weighted losses; `objectives_for` and `rate_for` give the defaults of `cmt
            train`.
        ratio: Tokens per soft token, for "cmt".
        rank: Of new adapters.
        nf4: The share of examples that the base reads with NF4 weights (reader, compressor). 1, for
            every part: the base is loaded in NF4 alone (QLoRA, arXiv 2305.14314), and on a GPU the
            optimiser holds its moments in eight bits.
        ablate: Names of INGREDIENTS to leave out, for ablations.
        passages: The passages that the matcher learns from.
        candidates: The passages of a batch that "embedding" learns to distinguish; 0: a number that
            suits the device.
        held_out: The size of the validation set: packs, or tens of passages (matcher, embedding).
        checkpointing: Layers hold less memory, and compute again for their gradients.
        batch: Examples that are computed together (reader, compressor, soft). More fill a GPU and
            take its memory.
        fit: The rate decays with `minutes` too, not only with steps, so that it is low at the end.
        seed: Of everything that is drawn.

    Raises:
        InvalidSetting: An unknown part or ingredient, a value out of bounds, or a setting that the
            part does not use.
        InvalidInput: There are neither questions nor texts.
    """

    part: str
    out: Path
    questions: Sequence[Path] = ()
    texts: Sequence[Path] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    model: str = DEFAULT_MODEL
    device: str = "auto"
    start: str = "default"
    plan: Plan = field(default_factory=lambda: Plan(steps=1000))
    minutes: float = math.inf
    objectives: Objectives = field(default_factory=lambda: Objectives(answer=0.5, teacher=1.0))
    ratio: int = 8
    rank: int = 32
    nf4: float = 0.3
    ablate: Sequence[str] = ()
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
        self._check_use()
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise InvalidSetting(f"weight {name}={weight:g}: choose 0 or more")
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise InvalidSetting(f"{name}={getattr(self, name)}: choose {low} to {high}")
        if not self.minutes > 0:
            raise InvalidSetting(f"minutes={self.minutes:g}: choose more than 0")
        if not self.questions and not self.texts:
            raise InvalidInput(
                "there is nothing to learn from: give a question file, or a folder of texts"
            )

    def _check_use(self) -> None:
        """Raise InvalidSetting for an ingredient or a setting that the part does not have."""
        for piece in self.ablate:
            if self.part not in INGREDIENTS.get(piece, ()):
                there = ", ".join(name for name, parts in INGREDIENTS.items() if self.part in parts)
                raise InvalidSetting(
                    f"ablate={piece!r}: of part {self.part!r} choose among {there}"
                )
        given = {
            "checkpointing": self.checkpointing,
            "batch": self.batch,
            **asdict(self.objectives),
        }
        for name, (parts, off) in NOT_FOR_ALL.items():
            if given[name] != off and self.part not in parts:
                raise InvalidSetting(
                    f"{name}={given[name]}: part {self.part!r} does not use it; leave it out, or"
                    f" choose part {', '.join(parts)}"
                )

    @property
    def choices(self) -> dict[str, Any]:
        """The settings that decide examples and training: a resumed run must have the same."""
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
            | {"ablate": sorted(self.ablate), "files": files, "weights": dict(self.weights)}
        )


@dataclass(frozen=True, slots=True)
class ResourceEstimate:
    """The resources that a run needs.

    Attributes:
        memory: Bytes of memory.
        disk: Bytes on the disk.
        parameters: Numbers that are trained.
        seconds: Seconds per step; 0.0 where no step was timed.
    """

    memory: int
    disk: int
    parameters: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DatasetSizes:
    """The numbers of passages and questions of a run.

    Attributes:
        learned: By file, passages and questions that are learned from.
        judged: By file, those that are validated on.
    """

    learned: Mapping[str, tuple[int, int]]
    judged: Mapping[str, tuple[int, int]]
