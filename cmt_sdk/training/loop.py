"""The training loop: draw, step, validate, save, and go on after a kill as if nothing had happened.

What is trained is a Task; the loop knows optimisers and files, no model and no data.
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


class Task(Protocol):
    """Something to train."""

    def parameters(self) -> Sequence[Tensor]:
        """The trained tensors, fp32, always in the same order."""

    def loss(self) -> tuple[Tensor, int, int]:
        """Draw an example: its summed loss, what to divide the sum by, and the questions in it."""

    def validate(self) -> Mapping[str, float]:
        """Figures on what is never trained on."""

    def save(self, folder: Path) -> None:
        """Write the adapter as it is shipped."""

    def state(self) -> Any:
        """Where the data stream stands, as JSON."""

    def restore(self, state: Any) -> None:
        """Go on from there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. `steps` optimiser steps of `accumulate` examples each; `rate` is the peak."""

    steps: int
    rate: float = 1e-3
    accumulate: int = 3
    warmup: int = 20
    floor: float = 0.05
    clip: float = 1.0
    validate_every: int = 100
    save_every: int = 50

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then cosine to `floor` of the peak."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.rate * min(1.0, (step + 1) / self.warmup) * (self.floor + (1 - self.floor) * cosine)


def train(task: Task, plan: Plan, out: Path, on_step: Callable[[Mapping[str, Any]], None], minutes: float = math.inf) -> int:
    """Train, or go on with what `out` holds, for at most `minutes`; returns the steps done in all.

    `out/log.jsonl` gets a line a step, `out/adapter` the weights, `out/state` what a later call goes on from.
    """
    parameters = list(task.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0)
    step, questions = _restore(out / "state", task, parameters, optimizer)
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:

        def note(figures: Mapping[str, Any]) -> None:
            log.write(json.dumps(figures) + "\n")
            log.flush()
            on_step(figures)

        if step == 0:
            note({"step": 0, "plan": asdict(plan)})
        while step < plan.steps and time.monotonic() - began < 60 * minutes:
            loss, asked = _step(task, plan, parameters, optimizer, step)
            step, questions = step + 1, questions + asked
            note({"step": step, "loss": loss, "questions": questions, "seconds": time.monotonic() - began})
            if step % plan.save_every == 0:
                _save(out / "state", task, parameters, optimizer, step, questions)
            if step % plan.validate_every == 0:
                task.save(out / "adapter")
                note({"step": step, "questions": questions, **task.validate()})
        _save(out / "state", task, parameters, optimizer, step, questions)
        task.save(out / "adapter")
        note({"step": step, "questions": questions, "end": True, **task.validate()})
    return step


def _step(task: Task, plan: Plan, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer, step: int) -> tuple[float, int]:
    for group in optimizer.param_groups:
        group["lr"] = plan.rate_at(step)
    total, divisor, questions = 0.0, 0, 0
    for _ in range(plan.accumulate):
        loss, count, asked = task.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        total, divisor, questions = total + float(loss.detach()), divisor + count, questions + asked
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= divisor
    torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total / divisor, questions


def _save(
    folder: Path,
    task: Task,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    questions: int,
) -> None:
    """Two files, each replaced whole; the scalars name the step that the tensors must have."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{n}": p.detach().contiguous() for n, p in enumerate(parameters)}
    for number, parameter in enumerate(parameters):
        for name, value in optimizer.state[parameter].items():
            tensors[f"{name}.{number}"] = torch.as_tensor(value).contiguous()
    part = folder / f"step-{step}.safetensors"
    save_file(tensors, part)
    scalars = {"step": step, "questions": questions, "tensors": part.name, "task": task.state()}
    new = folder / "state.json.new"
    new.write_text(json.dumps(scalars), encoding="utf-8")
    new.replace(folder / "state.json")
    for old in folder.glob("step-*.safetensors"):
        if old != part:
            old.unlink()


def _restore(folder: Path, task: Task, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> tuple[int, int]:
    if not (folder / "state.json").exists():
        return 0, 0
    scalars = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / scalars["tensors"])
    for number, parameter in enumerate(parameters):
        parameter.data.copy_(tensors[f"parameter.{number}"])
        names = [n for n in ("step", "exp_avg", "exp_avg_sq") if f"{n}.{number}" in tensors]
        optimizer.state[parameter] = {n: tensors[f"{n}.{number}"].to(_place(n, parameter)) for n in names}
    task.restore(scalars["task"])
    return int(scalars["step"]), int(scalars["questions"])


def _place(name: str, parameter: Tensor) -> torch.device:
    return torch.device("cpu") if name == "step" else parameter.device
