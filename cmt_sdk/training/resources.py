"""The memory and disk that a training run needs, and whether the machine has them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from cmt_sdk.errors import InvalidSetting, StorageDenied, StorageFull
from cmt_sdk.neural.batching import BATCH_TOKENS
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.recipe import Recipe, ResourceEstimate

MAX_TOKENS_AT_ONCE = 16384  # whose activations are held for the gradients of embeddings
HELD_TOKENS = 1400  # of passages and one pack, whose activations are held for the gradients
# Bytes of activations per token, layer and hidden value. Measured with the default model on a CPU;
# for four examples of `soft`, four packs of each per pass, an H200 held the 20 GB that this gives.
ACTIVATIONS = 200
# The same where layers compute again: per layer, in addition to one layer that holds all.
CHECKPOINTED_ACTIVATIONS = 16


def estimate(recipe: Recipe, model: Any, learned: int) -> ResourceEstimate:
    """Estimate a run's resources.

    They are the base twice (its own and its NF4 weights), the learned tensors with gradients and
    moments, and activations. A parameter takes 16 bytes of memory (itself, its gradient and AdamW's
    two moments, fp32); on the disk 12 in the state (all but the gradient), of which there are two
    while a new one is written, and at most 4 in the adapter.

    Args:
        recipe: The run.
        model: The base model.
        learned: The number of trained parameters.
    """
    base = sum(p.numel() * p.element_size() for p in model.parameters())
    config = model.config.get_text_config()
    layers = config.num_hidden_layers
    held = ACTIVATIONS * layers
    if recipe.checkpointing:
        held = ACTIVATIONS + CHECKPOINTED_ACTIVATIONS * layers
    activations = held * HELD_TOKENS * config.hidden_size * recipe.batch
    if recipe.part == "embedding":
        activations = _activations(model, layers // 2) * tokens_at_once(model, layers // 2)
    return ResourceEstimate(
        memory=2 * base + 16 * learned + activations,
        disk=2 * 12 * learned + 4 * learned,
        parameters=learned,
    )


def check(needs: ResourceEstimate, device: torch.device, out: Path) -> None:
    """Check, before anything is written, that the machine has the resources of a run.

    Args:
        needs: The resources.
        device: Where the run computes.
        out: The folder of the run, which may not exist yet.

    Raises:
        StorageDenied: The folder cannot be written.
        StorageFull: The disk has too little room.
        InvalidSetting: The device has too little memory.
    """
    # The nearest folder that exists: there `out` will be made.
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not os.access(place, os.W_OK):
        raise StorageDenied(f"{out}: nothing can be written in {place}: choose another folder")
    if (free := shutil.disk_usage(place).free) < needs.disk:
        raise StorageFull(
            f"{out}: training needs {_size(needs.disk)} on the disk, {_size(free)} are free: choose"
            " another folder"
        )
    if (free := _free_memory(device)) < needs.memory:
        raise InvalidSetting(
            f"training needs about {_size(needs.memory)} of memory on {device}, {_size(free)} are"
            " free: end other programs, choose a smaller --batch, --model or another --device, or"
            " --checkpointing (in Python checkpointing=True)"
        )


def _size(count: int) -> str:
    """Bytes in GiB or MiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _free_memory(device: torch.device) -> int:
    """Bytes that are free on the device for this process; sys.maxsize where the OS reports none."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(free, total // Workers().on_one_gpu))
    try:
        words = Path("/proc/meminfo").read_text(encoding="ascii").split()
        return 1024 * int(words[words.index("MemAvailable:") + 1])
    except (OSError, ValueError):
        return sys.maxsize


def _activations(model: Any, layers: int) -> int:
    """Bytes of activations per token of a model's first layers."""
    size: int = ACTIVATIONS * layers * model.config.get_text_config().hidden_size
    return size


def tokens_at_once(model: Any, layers: int) -> int:
    """The tokens whose activations fit into half of a GPU's free memory.

    On a CPU a fixed number: more are no faster there.

    Args:
        model: The model.
        layers: The number of its first layers that run.
    """
    if model.device.type != "cuda":
        return BATCH_TOKENS
    fitting = _free_memory(model.device) // 2 // _activations(model, layers)
    return max(BATCH_TOKENS // 4, min(MAX_TOKENS_AT_ONCE, fitting))
