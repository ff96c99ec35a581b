"""The base as it is and as NF4 makes it, in one model: an adapter that learns on both reads well on
either.

Serving quantises to NF4 where memory is short. What bitsandbytes makes of a weight is quantised and
dequantised once, and the two are exchanged by pointer; arithmetic is that of the base.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cmt_sdk.neural.quantization import LEVELS

BLOCK = 64


class Bases:
    """Both weights of every linear layer but the output layer, which serving does not quantise
    either.
    """

    def __init__(self, model: Any) -> None:
        output = model.get_output_embeddings()
        layers = [
            m
            for m in model.modules()
            if isinstance(m, nn.Linear) and m is not output and not m.weight.requires_grad
        ]
        self._weights = [(layer, layer.weight.data, as_nf4(layer.weight.data)) for layer in layers]

    def use(self, *, nf4: bool) -> None:
        """From now on the model computes with these weights. Backward takes what is in use then, as
        forward did.
        """
        for layer, original, imitated in self._weights:
            layer.weight.data = imitated if nf4 else original


def as_nf4(weight: Tensor) -> Tensor:
    """A weight after a round trip through NF4, in its own type: the nearest of 16 levels in blocks
    of 64, each times the block's largest value (Dettmers et al. 2023, arXiv 2305.14314), as
    bitsandbytes computes it.
    """
    flat = weight.to(torch.bfloat16).float().flatten()
    blocks = pad(flat, (0, -len(flat) % BLOCK)).reshape(-1, BLOCK)
    levels = torch.tensor(LEVELS, device=weight.device)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = torch.bucketize(blocks / largest.clamp(min=1e-30), (levels[1:] + levels[:-1]) / 2)
    back = (levels[nearest] * largest).to(torch.bfloat16).flatten()[: len(flat)]
    return back.reshape(weight.shape).to(weight.dtype)
