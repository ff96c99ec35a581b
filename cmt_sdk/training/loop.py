"""The training loop: draw, step, validate, save, and resume after a kill at the same place.

A Task is trained; the loop knows optimisers and files, no model and no data.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.training.distributed import Workers
from cmt_sdk.weights.loading import import_bitsandbytes


class Task(Protocol):
    """A model part with its data, ready to train."""

    def parameters(self) -> Sequence[Tensor]:
        """The trained tensors, fp32, always in the same order."""

    def learn(self) -> tuple[float, int, int]:
        """Draw an example and add its gradients.

        Returns:
            The summed loss, the number to divide the sums by, and the number of questions.
        """

    def validate(self) -> Mapping[str, float]:
        """Figures on data that is never trained on."""

    def score(self, figures: Mapping[str, float]) -> float:
        """One number from such figures: the lower the better."""

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
        """The learning rate at a step: linear warm-up, then cosine to `floor` of the peak.

        The cosine follows the share of the steps or, where it is larger, the share `done` of the
        time.
        """
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, max(done, step / self.steps))))
        return (
            self.rate
            * min(1.0, (step + 1) / self.warmup)
            * (self.floor + (1 - self.floor) * cosine)
        )


@dataclass
class Progress:
    """How far a run is: steps, questions, answer tokens, best score, validations since the best."""

    step: int = 0
    questions: int = 0
    tokens: int = 0
    best: float = math.inf
    since_best: int = 0


def train(
    task: Task,
    plan: Plan,
    out: Path,
    on_step: Callable[[Mapping[str, Any]], None],
    minutes: float = math.inf,
    *,
    fit: bool = False,
    eight_bit: bool = False,
    choices: Mapping[str, Any] | None = None,
) -> Progress:
    """Train, or resume the run in `out`, for at most `minutes`.

    `out/log.jsonl` gets a line per step, `out/adapter` the weights with the best score, `out/state`
    the state that a later call resumes from.

    Args:
        task: The task to train.
        plan: The length and the speed of the run.
        out: The folder of the run.
        on_step: Called with each line of the log.
        minutes: Stop after this time.
        fit: Lower the rate to its floor within `minutes`, where the steps do not end sooner. A
            later call begins at the rate of its step, and lowers it again.
        eight_bit: AdamW of bitsandbytes holds its moments in eight bits.
        choices: JSON values that must be equal whenever the run resumes, as the plan must.

    Returns:
        The progress of the run, over all calls.

    Raises:
        InvalidSetting: `out` holds a run of another plan or other choices.
    """
    run = _Run(task, plan, out, on_step, choices or {}, eight_bit=eight_bit)
    if run.progress.step == 0:
        run.note({"plan": asdict(plan)})
        run.validate()
    began = time.monotonic()
    while run.has_time(60 * minutes - (time.monotonic() - began)):
        run.advance(began, run.agree((time.monotonic() - began) / (60 * minutes)) if fit else 0.0)
    if run.progress.step % plan.validate_every:
        run.validate()
    run.save()
    run.note({"end": True})
    return run.progress


def time_one_step(task: Task, plan: Plan) -> float:
    """Seconds that a step takes, measured on one example whose gradients are dropped.

    The example runs twice: the first call of a process is slower.
    """
    before = task.state()
    took = 0.0
    for _ in range(2):
        began = time.monotonic()
        task.learn()
        took = time.monotonic() - began
        for parameter in task.parameters():
            parameter.grad = None
        task.restore(before)
    return plan.accumulate * took


class _Run:
    """A task under way, with its optimiser, its log and its files.

    Only the main process writes the files.
    """

    def __init__(
        self,
        task: Task,
        plan: Plan,
        out: Path,
        on_step: Callable[[Mapping[str, Any]], None],
        choices: Mapping[str, Any],
        *,
        eight_bit: bool,
    ) -> None:
        self._task = task
        self._plan = plan
        self._out = out
        self._on_step = on_step
        self._workers = Workers()
        self._parameters = list(task.parameters())
        self._optimizer = _optimizer(self._parameters, plan.rate, eight_bit=eight_bit)
        out.mkdir(parents=True, exist_ok=True)
        self._chosen = {**asdict(plan), **choices, "eight_bit": eight_bit}
        self.progress = _restore(
            out / "state", task, self._chosen, self._parameters, self._optimizer, self._workers
        )

    def note(self, figures: Mapping[str, Any]) -> None:
        line = {"step": self.progress.step, "questions": self.progress.questions, **figures}
        if not self._workers.is_main:
            return
        with (self._out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        self._on_step(line)

    def has_time(self, seconds: float) -> bool:
        """False after the last step, when the time is over, or when patience is exhausted."""
        patient = not 0 < self._plan.patience <= self.progress.since_best
        return self._workers.agree(
            self.progress.step < self._plan.steps and seconds > 0 and patient
        )

    def agree(self, value: float) -> float:
        """The main process's value, in every process."""
        return float(self._workers.gather(value)[0])

    def advance(self, began: float, done: float) -> None:
        """Take one step, then validate and save where due; `done`: the share of the time used."""
        rate = self._plan.rate_at(self.progress.step, done)
        loss, tokens, asked = _step(
            self._task, self._plan, self._parameters, self._optimizer, rate, self._workers
        )
        self.progress.step += 1
        self.progress.questions += asked
        self.progress.tokens += tokens
        self.note({"loss": loss, "tokens": tokens, "seconds": time.monotonic() - began})
        if self.progress.step % self._plan.validate_every == 0:
            self.validate()
        if self.progress.step % self._plan.save_every == 0:
            self.save()

    def validate(self) -> None:
        """Compute the held-out figures; save the weights where they are the best so far."""
        figures = self._task.validate()
        score = self._task.score(figures)
        better = score < self.progress.best
        self.progress.since_best = 0 if better else self.progress.since_best + 1
        if better:
            self.progress.best = score
            if self._workers.is_main:
                self._task.save(self._out / "adapter")
        self.note(figures)

    def save(self) -> None:
        """Write the state that a later call resumes from."""
        states = self._workers.gather(self._task.state())
        if self._workers.is_main:
            _save(
                self._out / "state",
                states,
                self._chosen,
                self._parameters,
                self._optimizer,
                self.progress,
            )


def _optimizer(
    parameters: Sequence[Tensor], rate: float, *, eight_bit: bool
) -> torch.optim.Optimizer:
    if not eight_bit:
        return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    import_bitsandbytes()
    from bitsandbytes.optim import AdamW8bit

    made: torch.optim.Optimizer = AdamW8bit(
        parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    return made


def _step(
    task: Task,
    plan: Plan,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    rate: float,
    workers: Workers,
) -> tuple[float, int, int]:
    """One optimiser step over all processes.

    Returns:
        The mean loss, the answer tokens and the questions.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    total = 0.0
    divisor = 0
    questions = 0
    for _ in range(plan.accumulate):
        loss, count, asked = task.learn()
        total = total + loss
        divisor = divisor + count
        questions = questions + asked
    summed = workers.sum(torch.tensor([total, divisor, questions], dtype=torch.float64))
    total = float(summed[0])
    divisor = int(summed[1])
    questions = int(summed[2])
    if workers.size > 1:
        _exchange(parameters, workers)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= divisor
    torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total / divisor, divisor, questions


def _exchange(parameters: Sequence[Tensor], workers: Workers) -> None:
    """Sum the gradients over all processes, in one tensor: each exchange costs a wait."""
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    summed = workers.sum(torch.cat([grad.flatten() for grad in own]))
    for parameter, grad in zip(
        parameters, torch.split(summed, [p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = grad.view_as(parameter)


def _save(
    folder: Path,
    states: Sequence[object],
    chosen: Mapping[str, Any],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write two files, each by a rename; the scalars name the step that the tensors must have."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{n}": p.detach().contiguous() for n, p in enumerate(parameters)}
    for number, parameter in enumerate(parameters):
        for name, value in optimizer.state[parameter].items():
            # bitsandbytes shares tables among its parameters, and safetensors refuses that
            tensors[f"{name}.{number}"] = torch.as_tensor(value).clone().contiguous()
    part = folder / f"step-{progress.step}.safetensors"
    save_file(tensors, part)
    scalars = {
        "plan": chosen,
        "progress": asdict(progress),
        "tensors": part.name,
        "tasks": list(states),
    }
    new = folder / "state.json.new"
    new.write_text(json.dumps(scalars), encoding="utf-8")
    new.replace(folder / "state.json")
    for old in folder.glob("step-*.safetensors"):
        if old != part:
            old.unlink()


def _restore(
    folder: Path,
    task: Task,
    chosen: Mapping[str, Any],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    workers: Workers,
) -> Progress:
    if not (folder / "state.json").exists():
        return Progress()
    scalars = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if changed := [
        f"{name}={value}" for name, value in scalars["plan"].items() if chosen.get(name) != value
    ]:
        raise InvalidSetting(
            f"{folder.parent} holds a run with {', '.join(changed)}: resume with these settings, or"
            " choose another folder"
        )
    if (before := len(scalars["tasks"])) != workers.size:
        raise InvalidSetting(
            f"{folder.parent} holds a run of {before} processes, this one has {workers.size}: start"
            f" {before}"
        )
    tensors = load_file(folder / scalars["tensors"])
    own: dict[str, dict[str, Tensor]] = {}  # by the parameter's number
    for name, tensor in tensors.items():
        kind, _, number = name.rpartition(".")
        own.setdefault(number, {})[kind] = tensor
    for n, parameter in enumerate(parameters):
        values = own[str(n)]
        parameter.data.copy_(values.pop("parameter"))
        optimizer.state[parameter] = {
            kind: _restored(kind, value, parameter) for kind, value in values.items()
        }
    task.restore(workers.share(scalars["tasks"]))
    return Progress(**scalars["progress"])


def _restored(name: str, value: Tensor, parameter: Tensor) -> Tensor | int:
    """A value of the optimiser's state: torch counts steps in a tensor on the CPU, bitsandbytes in
    an integer.
    """
    if name != "step":
        return value.to(parameter.device)
    return value if value.is_floating_point() else int(value)
