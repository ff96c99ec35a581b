"""Predicts KVzip's scores from the states of one pass, so that a passage is read once.

`kvzip.py` reads a passage twice to score its entries. What it finds is nearly a linear function of
the state that a layer gets (Fast KVzip, arXiv 2601.17668, has small networks for it): of the states
of a layer, scaled to a mean square of 1, and a weight per head. The weights are fitted once for a
model and its encoder (training.gates). Pure tensor code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cmt_sdk.neural.frozen import FrozenModel

LEAST = 1e-4  # scores below are equal: no share that is kept gets down to them


@dataclass(frozen=True)
class Gates:
    """A linear gate for each key-value head of each layer.

    Attributes:
        weight: [layers, d, kv_heads].
        bias: [layers, kv_heads].
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, lm: FrozenModel, tensors: Mapping[str, Tensor]) -> Gates:
        """The gates in a file's tensors, computing in fp32.

        Raises:
            KeyError: A tensor is missing.
            TypeError: A tensor is of another model, or holds values that are no numbers.
        """
        layers, heads, _ = lm.kv_shape
        weight, bias = tensors["weight"].float(), tensors["bias"].float()
        width = lm.model.get_input_embeddings().weight.shape[1]
        if weight.shape != (layers, width, heads) or bias.shape != (layers, heads):
            raise TypeError(f"gates of shape {tuple(weight.shape)}, not {(layers, width, heads)}")
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise TypeError("gates with values that are no numbers")
        return cls(weight.to(lm.device), bias.to(lm.device))

    def to(self, device: torch.device) -> Gates:
        """These on a device."""
        return Gates(self.weight.to(device), self.bias.to(device))

    def scores(self, states: Sequence[Tensor], lengths: Tensor) -> Tensor:
        """Scores of the entries of passages.

        Args:
            states: By layer, what it got, [batch, n, d].
            lengths: Tokens of each row's passage, [batch].

        Returns:
            [batch, layers, kv_heads, n] in [0, 1], as `kvzip.RepeatScores.result`; -1 beyond a
            row's passage.
        """
        by_layer = [
            scaled(state) @ weight + bias
            for state, weight, bias in zip(states, self.weight, self.bias, strict=True)
        ]  # (B, n, KV) each
        scores = torch.stack(by_layer, dim=1).transpose(2, 3).exp().clamp(max=1.0)
        steps = torch.arange(scores.shape[-1], device=scores.device)
        outside = steps[None] >= lengths[:, None]  # (B, n)
        return scores.masked_fill(outside[:, None, None], -1.0)


def scaled(states: Tensor) -> Tensor:
    """States in fp32 with a mean square of 1, as a layer's own norm makes them."""
    states = states.float()
    return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + 1e-6)


def wanted(scores: Tensor) -> Tensor:
    """What a gate's product is fitted to: the logarithm of KVzip's score."""
    return scores.clamp(min=LEAST).log()
