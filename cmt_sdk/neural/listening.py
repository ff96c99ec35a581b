"""A model's states of a message, which tell what the message wants. Pure tensor code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

from cmt_sdk.neural.depth import states_after
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import batches
from cmt_sdk.neural.matching import filled
from cmt_sdk.types import Vector

LONGEST = 128  # tokens of a message that are read
# shares of the layers after which states are taken; later layers do not run
DEPTHS = (1 / 2, 2 / 3)


@dataclass(frozen=True)
class StateListener:
    """Mean and last state of a message, as a user's turn that the bare model is to answer.

    name: of the model, for what is fitted to its states.
    """

    lm: FrozenModel
    name: str

    @torch.inference_mode()
    def states(self, texts: Sequence[str]) -> Vector:
        """States float32 [n, 4 * width] of n texts, batched by length."""
        ids = [self.lm.heard_ids(text, LONGEST) for text in texts]
        layers = [max(1, round(self.lm.kv_shape[0] * depth)) for depth in DEPTHS]
        found: dict[int, Vector] = {}
        for batch in batches([len(i) for i in ids]):
            tokens, inside = filled([ids[i] for i in batch], self.lm)
            taken = states_after(self.lm, tokens, layers)
            rows = [self._pooled(taken[layer].float(), inside) for layer in layers]
            made = torch.cat(rows, dim=1).cpu().numpy().astype(np.float32)
            found.update(zip(batch, made, strict=True))
        return np.stack([found[i] for i in range(len(ids))])

    @staticmethod
    def _pooled(states: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """The mean state of unit length and the last state [n, 2 * width] of states [n, t,
        width].
        """
        lengths = inside.sum(1, keepdim=True)
        mean = (normalize(states, dim=-1) * inside[..., None]).sum(1) / lengths
        last = states[torch.arange(len(states), device=states.device), lengths[:, 0] - 1]
        return torch.cat([mean, last], dim=1)
