"""The states of a model that reads a message, from which others read what the message wants. Pure
tensor code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

from cmt_sdk.neural.batching import in_batches, padded_with_mask
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.partial_forward import run_until
from cmt_sdk.reading.limits import MAX_HEARD_TOKENS, heard_layers
from cmt_sdk.types import Vector


@dataclass(frozen=True)
class FrozenStateReader:
    """Mean and last state of a message, as a user's turn that the bare model is to answer.

    Attributes:
        lm: The frozen model.
        name: Of the model; a probe that is fitted to its states is kept under it.
    """

    lm: FrozenModel
    name: str

    @torch.inference_mode()
    def states(self, texts: Sequence[str]) -> Vector:
        """States float32 [n, 4 * width] of n texts: mean and last state after each of two layers.

        Args:
            texts: At least one message.
        """
        ids = [self.lm.heard_ids(text, MAX_HEARD_TOKENS) for text in texts]
        return np.stack(in_batches(ids, self._states_of_batch))

    def _states_of_batch(self, ids: Sequence[list[int]]) -> list[Vector]:
        """States [4 * width] of each row of token ids."""
        tokens, inside = padded_with_mask(ids, self.lm.device, self.lm.end_id)  # (n, t) each
        layers = heard_layers(self.lm.kv_shape[0])
        taken = run_until(self.lm, tokens, layers)  # by layer, (n, t, width)
        pooled = [self._pooled(taken[layer].float(), inside) for layer in layers]
        joined = torch.cat(pooled, dim=1)  # (n, 4 * width)
        return list(joined.cpu().numpy().astype(np.float32))

    @staticmethod
    def _pooled(states: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """The mean of the states, each at length 1, and the last state.

        Args:
            states: [n, t, width].
            inside: bool [n, t], True for the text's own tokens.

        Returns:
            [n, 2 * width].
        """
        lengths = inside.sum(1, keepdim=True)  # (n, 1)
        # At length 1 all tokens count alike, however large their states are.
        mean = (normalize(states, dim=-1) * inside[..., None]).sum(1) / lengths  # (n, width)
        rows = torch.arange(len(states), device=states.device)  # (n,)
        last = states[rows, lengths[:, 0] - 1]  # (n, width)
        return torch.cat([mean, last], dim=1)
