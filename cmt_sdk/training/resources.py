"""Whether the machine has the memory and the disk that a training run needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from cmt_sdk.errors import InvalidSetting, StorageDenied, StorageFull
from cmt_sdk.neural.batching import BATCH_TOKENS
from cmt_sdk.system.ram import free_memory, size_text
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.recipe import NOT_FOR_ALL, Recipe, ResourceEstimate
from cmt_sdk.training.sizes import ModelSizes, estimate
from cmt_sdk.weights.loading import multiplies_bf16

MAX_TOKENS_AT_ONCE = 16384  # whose activations are held for the gradients of embeddings
# Bytes of activations per token, layer and hidden value: on the safe side.
ACTIVATIONS = 200
# What makes a run smaller, the cheapest first.
SAVINGS: tuple[Mapping[str, Any], ...] = (
    {"batch": 1},
    {"nf4": 0.0},
    {"checkpointing": True},
    {"nf4": 1.0},
    {"checkpointing": True, "nf4": 1.0},
    {"batch": 1, "checkpointing": True, "nf4": 1.0},
)


def needs(
    recipe: Recipe, sizes: ModelSizes, passage: int, device: torch.device
) -> ResourceEstimate:
    """The resources that a run takes on a device.

    Args:
        recipe: The run.
        sizes: Those of its model.
        passage: Tokens of a long passage of its data.
        device: Where it computes.
    """
    width = 2 if multiplies_bf16(device) else 4
    return estimate(recipe, sizes, passage, width, is_gpu=device.type == "cuda")


def check(recipe: Recipe, sizes: ModelSizes, passage: int, device: torch.device) -> None:
    """Check that the machine has the resources of a run, before weights are loaded.

    Args:
        recipe: The run, whose folder may not exist yet.
        sizes: Those of its model.
        passage: Tokens of a long passage of its data.
        device: Where it computes.

    Raises:
        StorageDenied: The folder cannot be written.
        StorageFull: The disk has too little room.
        InvalidSetting: The device has too little memory.
    """
    wanted = needs(recipe, sizes, passage, device)
    out = recipe.out
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not os.access(place, os.W_OK):
        raise StorageDenied(f"{out}: nothing can be written in {place}: choose another folder")
    if (free := shutil.disk_usage(place).free) < wanted.disk:
        raise StorageFull(
            f"{out}: training needs {size_text(wanted.disk)} on the disk,"
            f" {size_text(free)} are free: choose another folder"
        )
    if (free := _free_memory(device)) >= wanted.memory:
        return
    smaller = {
        flags: needs(replace(recipe, **changes), sizes, passage, device).memory
        for changes in SAVINGS
        if (flags := _flags(recipe, changes))
    }
    fitting = [
        f"{flags} ({size_text(memory)})" for flags, memory in smaller.items() if memory <= free
    ]
    least = min(smaller.items(), key=lambda pair: pair[1], default=None)
    remedy = "choose a smaller --model, or another --device"
    if fitting:
        remedy = f"choose {fitting[0]}"
    elif least is not None and least[1] < wanted.memory:
        remedy = f"{least[0]} needs the least, {size_text(least[1])}: {remedy}"
    raise InvalidSetting(
        f"training {recipe.model} needs about {size_text(wanted.memory)} of memory on {device},"
        f" {size_text(free)} are free: end other programs, or {remedy}"
    )


def _flags(recipe: Recipe, changes: Mapping[str, Any]) -> str:
    """The changes as options of `cmt train`; empty where they change nothing, or the part has them
    not.
    """
    named = []
    for name, value in changes.items():
        if getattr(recipe, name) == value:
            continue
        if name in NOT_FOR_ALL and recipe.part not in NOT_FOR_ALL[name][0]:
            return ""
        named.append(f"--{name}" if value is True else f"--{name} {value:g}")
    return " ".join(named)


def _free_memory(device: torch.device) -> int:
    """Bytes that are free on the device for this process; sys.maxsize where the OS reports none."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(free, total // Workers().on_one_gpu))
    return free_memory()


def tokens_at_once(model: Any, layers: int) -> int:
    """The tokens whose activations fit into half of a GPU's free memory.

    On a CPU a fixed number: more are no faster there.
    """
    if model.device.type != "cuda":
        return BATCH_TOKENS
    token: int = ACTIVATIONS * layers * model.config.get_text_config().hidden_size
    fitting = _free_memory(model.device) // 2 // token
    return max(BATCH_TOKENS // 4, min(MAX_TOKENS_AT_ONCE, fitting))
