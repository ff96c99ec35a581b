"""Training the reader adapter: the frozen model's own memories, as they will be stored, and the answers' cross-entropy.

The passages are compressed by the bare model (no gradient, four bits, some share kept); only the question and answer
tokens run with the adapter. So memories stay readable by every later adapter, and a step costs what its questions cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import KVCompressor
from cmt_sdk.neural.reading import Prefix, place
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.training.packs import Pack


@dataclass
class GradientPrefix(Prefix):
    """A prefix through which gradients flow to the new tokens: joined, not written in place."""

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """The layer's notes and the new keys and values [1, kv_heads, m, d]."""
        size = self.entries[layer]
        keys, values = self.keys[layer][:, :, :size], self.values[layer][:, :, :size]
        return torch.cat([keys.clone(), key], dim=2), torch.cat([values.clone(), value], dim=2)


def notes_of(lm: FrozenModel, rotary: Rotary, contents: Sequence[str], keep: float) -> GradientPrefix:
    """The passages as a prefix, compressed and decoded exactly as when they are stored and loaded."""
    memories = KVCompressor(lm, rotary, keep).pack(contents)
    made = place(lm, rotary, memories, 0)
    return GradientPrefix(made.keys, made.values, made.bias, made.entries, made.position)


def answer_loss(lm: FrozenModel, notes: GradientPrefix, pack: Pack) -> tuple[Tensor, int]:
    """Summed cross-entropy of the answers, and the number of their tokens. The reader adapter must be active."""
    hidden = lm.model.base_model(
        input_ids=pack.ids,
        position_ids=pack.offsets + notes.position,
        attention_mask=pack.mask,
        past_key_values=notes,
        use_cache=True,
        notes=notes,
    ).last_hidden_state[0]
    told = pack.labels >= 0
    return cross_entropy(lm.logits(hidden[told]), pack.labels[told], reduction="sum"), int(told.sum())


def rate(step: int, steps: int, peak: float, warmup: int = 20, floor: float = 0.05) -> float:
    """The learning rate of a step: linear warm-up, then cosine to `floor` of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return peak * min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * cosine)

