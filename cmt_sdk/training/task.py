"""What the training loop trains: a task, the plan of its run, and how far it is. Plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cmt_sdk.errors import InvalidSetting

if TYPE_CHECKING:
    from torch import Tensor


class Task(Protocol):
    """A model part with its data, ready to train."""

    def parameters(self) -> Sequence[Tensor]:
        """The trained tensors, fp32, always in the same order."""

    def learn(self) -> tuple[float, int, int]:
        """Draw an example and add its gradients.

        Returns:
            The summed loss, the number to divide loss and gradients by (answer tokens, or
            questions), and the number of questions.
        """

    def validate(self) -> Mapping[str, float]:
        """Figures by name, on data that is never trained on."""

    def score(self, figures: Mapping[str, float]) -> float:
        """One number from the figures of `validate`: the lower the better."""

    def save(self, folder: Path) -> None:
        """Write the adapter in the form in which it is shipped."""

    def state(self) -> Any:
        """The position of the data stream, as JSON."""

    def restore(self, state: Any) -> None:
        """Continue from that position."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The length and the speed of a run.

    Args:
        steps: Optimiser steps, of `accumulate` examples each.
        rate: The peak learning rate.
        accumulate: Examples per step.
        warmup: Steps of linear warm-up.
        floor: The share of the peak at which the cosine ends.
        clip: The largest norm of the gradients.
        validate_every: Steps between two validations.
        save_every: Steps between two saved states.
        patience: Stop after this many validations in a row without a better score; 0 never stops.

    Raises:
        InvalidSetting: A value is out of bounds.
    """

    steps: int
    rate: float = 1e-3
    accumulate: int = 3
    warmup: int = 20
    floor: float = 0.05
    clip: float = 1.0
    validate_every: int = 100
    save_every: int = 50
    patience: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InvalidSetting(f"rate={self.rate:g}: choose more than 0, at most 1")
        for name in ("steps", "accumulate", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"{name}={getattr(self, name)}: choose at least 1")
        if self.patience < 0:
            raise InvalidSetting(f"patience={self.patience}: choose at least 1, or 0 for never")

    def rate_at(self, step: int, done: float = 0.0) -> float:
        """The learning rate at a step: linear warm-up, and cosine to `floor` of the peak (SGDR,
        Loshchilov & Hutter 2016, arXiv 1608.03983).

        Args:
            step: Steps that are done.
            done: The share of the time that is used; the cosine follows it where it is larger than
                the share of the steps.
        """
        share = min(1.0, max(done, step / self.steps))
        cosine = 0.5 * (1 + math.cos(math.pi * share))  # from 1 to 0
        warm = min(1.0, (step + 1) / self.warmup)
        return self.rate * warm * (self.floor + (1 - self.floor) * cosine)


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: Optimiser steps.
        questions: Questions that were learned from.
        tokens: Answer tokens that were learned from.
        best: The best score of a validation; the lower the better.
        since_best: Validations since the best.
    """

    step: int = 0
    questions: int = 0
    tokens: int = 0
    best: float = math.inf
    since_best: int = 0
