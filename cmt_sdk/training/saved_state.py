"""The state of a training run on disk, from which a later call resumes: trained tensors, optimiser
moments, and the position in the data.

`step-N.safetensors` has the tensors, `state.json` the rest and the name of that file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.task import Progress, Task


def save_state(
    folder: Path,
    states: Sequence[object],
    chosen: Mapping[str, Any],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write the tensors of a step, then the scalars that name them, each by a rename.

    A kill at any point leaves scalars and tensors of one step: old tensors go last. The state of
    one step may be written twice, and must never be half of it.

    Args:
        folder: The folder of the state.
        states: The task's state of each process, by rank.
        chosen: What a resumed run must have alike.
        parameters: The trained tensors.
        optimizer: Of these parameters.
        progress: How far the run is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{n}": p.detach().contiguous() for n, p in enumerate(parameters)}
    for number, parameter in enumerate(parameters):
        for name, value in optimizer.state[parameter].items():
            # bitsandbytes shares tables among its parameters, and safetensors refuses that
            tensors[f"{name}.{number}"] = torch.as_tensor(value).clone().contiguous()
    part = folder / f"step-{progress.step}.safetensors"
    save_file(tensors, folder / "tensors.new")
    (folder / "tensors.new").replace(part)
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


def restore_state(
    folder: Path,
    task: Task,
    chosen: Mapping[str, Any],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    workers: Workers,
) -> Progress:
    """Continue from a saved state, where there is one; the arguments are those of `save_state`.

    Returns:
        How far the run is.

    Raises:
        InvalidSetting: The state is of another plan, of other choices or of more or fewer
            processes.
    """
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
    values: dict[str, dict[str, Tensor]] = {}  # by the parameter's number, by name
    for key, value in tensors.items():
        name, _, number = key.rpartition(".")
        values.setdefault(number, {})[name] = value
    for n, parameter in enumerate(parameters):
        own = values[str(n)]
        parameter.data.copy_(own.pop("parameter"))
        optimizer.state[parameter] = {
            name: _restored(name, value, parameter) for name, value in own.items()
        }
    task.restore(workers.share(scalars["tasks"]))
    return Progress(**scalars["progress"])


def _restored(name: str, value: Tensor, parameter: Tensor) -> Tensor | int:
    """A value of the optimiser's state. torch counts the steps in a tensor on the CPU, bitsandbytes
    in an integer.
    """
    if name != "step":
        return value.to(parameter.device)
    return value if value.is_floating_point() else int(value)
