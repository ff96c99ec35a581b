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
DEPTH = 0.5  # share of the layers that run


@dataclass(frozen=True)
class StateListener:
    """The mean state of a message's tokens, and the last one, within the bare model.

    name: of the model, for what is fitted to its states.
    """

    lm: FrozenModel
    name: str

    @torch.inference_mode()
    def states(self, texts: Sequence[str]) -> Vector:
        """States float32 [n, 2 * width] of n texts, batched by length."""
        ids = [self.lm.ids(text)[:LONGEST] or [self.lm.end_id] for text in texts]
        layer = max(1, round(self.lm.kv_shape[0] * DEPTH))
        found: dict[int, Vector] = {}
        for batch in batches([len(i) for i in ids]):
            tokens, inside = filled([ids[i] for i in batch], self.lm)
            states = normalize(states_after(self.lm, tokens, [layer])[layer].float(), dim=-1)
            mean = (states * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)
            last = states[torch.arange(len(batch)), inside.sum(1) - 1]
            rows = torch.cat([mean, last], dim=1).cpu().numpy().astype(np.float32)
            found.update(zip(batch, rows, strict=True))
        return np.stack([found[i] for i in range(len(ids))])
