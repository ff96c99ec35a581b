"""The base model with two sets of weights: its own, and the same after a round trip through NF4.

An adapter that learns on both reads well on either; serving quantises to NF4 where memory is short.
The round trip runs once, and `use` exchanges the tensors by pointer. Arithmetic stays that of the
base.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cmt_sdk.reading.codes import LEVELS

BLOCK = 64


class Bases:
    """Both weights of every linear layer but the output layer, which serving does not quantise.

    Args:
        model: The base model; it computes with its own weights until `use` is called.
    """

    def __init__(self, model: Any) -> None:
        output = model.get_output_embeddings()
        layers = [
            m
            for m in model.modules()
            if isinstance(m, nn.Linear) and m is not output and not m.weight.requires_grad
        ]  # adapters' layers learn, and stay as they are
        self._weights = [(layer, layer.weight.data, as_nf4(layer.weight.data)) for layer in layers]

    def use(self, *, nf4: bool) -> None:
        """Make the model compute with these weights, in forward and in the backward after it.

        Args:
            nf4: True for those after the round trip, False for the model's own.
        """
        for layer, original, imitated in self._weights:
            layer.weight.data = imitated if nf4 else original


def as_nf4(weight: Tensor) -> Tensor:
    """A weight after a round trip through NF4.

    Each value becomes the nearest of 16 levels times the largest value of its block of 64 (Dettmers
    et al. 2023, arXiv 2305.14314, section 3), as bitsandbytes computes it: from bf16, to bf16.

    Args:
        weight: Any shape; blocks run over its values in order of memory.

    Returns:
        The type and the shape of `weight`.
    """
    flat = weight.to(torch.bfloat16).float().flatten()  # (n,)
    blocks = pad(flat, (0, -len(flat) % BLOCK)).reshape(-1, BLOCK)  # (blocks, 64)
    levels = torch.from_numpy(LEVELS).to(weight.device)  # (16,)
    borders = (levels[1:] + levels[:-1]) / 2  # (15,)
    largest = blocks.abs().amax(1, keepdim=True)  # (blocks, 1)
    # A block of zeros stays zero.
    nearest = torch.bucketize(blocks / largest.clamp(min=1e-30), borders)  # (blocks, 64)
    rounded = (levels[nearest] * largest).to(torch.bfloat16)
    back = rounded.flatten()[: len(flat)]  # (n,)
    return back.reshape(weight.shape).to(weight.dtype)
