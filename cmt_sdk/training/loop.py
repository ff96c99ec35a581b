"""The training loop: draw, step, validate, save, and resume after a kill at the same place.

A Task is trained; the loop knows optimisers and files, no model and no data. A run, in one call or
several:

1. Validate once before the first step: the log shows what training adds.
2. Step: sum the gradients of `accumulate` examples, over all processes; divide them by the number
   of answer tokens; clip them; AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101).
3. Every `validate_every` steps: validate, and save the weights where they are the best so far.
4. Every `save_every` steps: save the state, which a killed run resumes from.
5. End at the last step, after the time, or when patience is exhausted: validate and save.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.saved_state import restore_state, save_state
from cmt_sdk.training.task import Plan, Progress, Task
from cmt_sdk.weights.loading import import_bitsandbytes


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
        run.log({"plan": asdict(plan)})
        run.validate()
    run.advance_for(60 * minutes, fit=fit)
    if run.progress.step % plan.validate_every:  # else the last step has validated
        run.validate()
    run.save()
    run.log({"end": True})
    return run.progress


def time_one_step(task: Task, plan: Plan) -> float:
    """Seconds that a step takes, measured on one example whose gradients are dropped.

    The example runs twice: the first call of a process is slower.

    Args:
        task: The task; it draws the same example again afterwards.
        plan: Gives the examples per step.
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
        self.progress = restore_state(
            out / "state", task, self._chosen, self._parameters, self._optimizer, self._workers
        )

    def log(self, figures: Mapping[str, Any]) -> None:
        """Append a line to the log, and report it."""
        line = {"step": self.progress.step, "questions": self.progress.questions, **figures}
        if not self._workers.is_main:
            return
        with (self._out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._on_step(line)

    def advance_for(self, seconds: float, *, fit: bool) -> None:
        """Take steps until the run ends; `fit`: the rate follows the time too."""
        began = time.monotonic()
        while self._continues(seconds - (time.monotonic() - began)):
            # Each process has its own clock: all follow the main one's.
            done = self._agreed((time.monotonic() - began) / seconds) if fit else 0.0
            self._advance(began, done)

    def _continues(self, seconds: float) -> bool:
        """False after the last step, without seconds left, or when patience is exhausted."""
        patient = not 0 < self._plan.patience <= self.progress.since_best
        return self._workers.agree(
            self.progress.step < self._plan.steps and seconds > 0 and patient
        )

    def _agreed(self, value: float) -> float:
        """The main process's value, in every process."""
        return float(self._workers.gather(value)[0])

    def _advance(self, began: float, done: float) -> None:
        """Take one step, then validate and save where due.

        Args:
            began: The time.monotonic() at which this call's first step began, for the log.
            done: The share of the time that is used.
        """
        rate = self._plan.rate_at(self.progress.step, done)
        loss, tokens, asked = _step(
            self._task, self._plan, self._parameters, self._optimizer, rate, self._workers
        )
        self.progress.step += 1
        self.progress.questions += asked
        self.progress.tokens += tokens
        self.log({"loss": loss, "tokens": tokens, "seconds": time.monotonic() - began})
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
        self.log(figures)

    def save(self) -> None:
        """Write the state that a later call resumes from."""
        # Each process draws its own examples: every one has a position in the data.
        states = self._workers.gather(self._task.state())
        if self._workers.is_main:
            save_state(
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

    Args:
        task: Adds gradients to the parameters.
        plan: Gives the examples per step and the largest norm.
        parameters: The trained tensors.
        optimizer: Of these parameters.
        rate: The learning rate.
        workers: The processes of the run.

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
    # One exchange for three numbers; float64 counts exactly to 2^53.
    summed = workers.sum(torch.tensor([total, divisor, questions], dtype=torch.float64))
    total = float(summed[0])
    divisor = int(summed[1])
    questions = int(summed[2])
    if workers.size > 1:
        _sum_gradients(parameters, workers)
    for parameter in parameters:
        # An example may reach only some of the adapters.
        if parameter.grad is not None:
            parameter.grad /= divisor
    torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total / divisor, divisor, questions


def _sum_gradients(parameters: Sequence[Tensor], workers: Workers) -> None:
    """Sum the gradients over all processes, in one tensor: each exchange costs a wait."""
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([grad.flatten() for grad in own])  # (all parameters' values,)
    summed = workers.sum(flat)
    by_parameter = torch.split(summed, [p.numel() for p in parameters])
    for parameter, grad in zip(parameters, by_parameter, strict=True):
        parameter.grad = grad.view_as(parameter)
