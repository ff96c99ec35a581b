"""Embeddings: self-matching with the frozen model (CMT, arXiv 2412.07393). Pure tensor code.

A passage or a question runs, after the prompt's head, through the model's first layers, with the
matcher adapter where one was trained: what makes and reads memories has no say in a key. Each
token's states in some layers are brought to unit length and averaged, with a weight that depends on
the token and on its last state; the averages are projected to one vector. Stopping early halves the
cost of a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from cmt_sdk.neural.depth import states_after
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import batches, padded
from cmt_sdk.types import Vector

LONGEST = 512  # tokens; what comes after adds nothing to a key


@dataclass(frozen=True)
class MatchHead:
    """What was trained, or the plain mean over half of the model's layers.

    layers: int64 [l], how many layers have run where states are taken, ascending. tokens:
    [vocabulary], log weight of each token. attend: [d], how a token's last state changes its
    weight. projection: [dimension, l * d], bias: [dimension].
    """

    layers: Tensor
    tokens: Tensor
    attend: Tensor
    projection: Tensor
    bias: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> MatchHead:
        """The head in a file's tensors, computing in fp32."""
        return cls(
            **{
                f.name: t if (t := tensors[f.name]).dtype == torch.int64 else t.float()
                for f in fields(cls)
            }
        )

    @classmethod
    def plain(cls, lm: FrozenModel) -> MatchHead:
        """Without training: the mean state after half of the layers, every token alike."""
        width = lm.model.config.hidden_size
        vocabulary = lm.model.get_input_embeddings().weight.shape[0]
        layers = torch.tensor([lm.kv_shape[0] // 2])
        return cls(
            layers,
            torch.zeros(vocabulary),
            torch.zeros(width),
            torch.eye(width),
            torch.zeros(width),
        )

    def to(self, device: torch.device) -> MatchHead:
        """The head on a device."""
        return MatchHead(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __call__(self, ids: Tensor, states: Tensor, inside: Tensor) -> Tensor:
        """Vectors [n, dimension] of length 1.

        ids [n, t], states [n, t, l, d] of unit length, inside bool [n, t]: which tokens count.
        """
        weights = self.tokens[ids] + states[:, :, -1] @ self.attend
        weights = weights.masked_fill(~inside, float("-inf")).softmax(1)
        pooled = (states * weights[..., None, None]).sum(1).flatten(1)
        return normalize(linear(pooled, self.projection, self.bias), dim=-1)


def unit_states(lm: FrozenModel, tokens: Tensor, layers: Sequence[int]) -> Tensor:
    """Each token's states after the given numbers of layers, of unit length: [n, t, len(layers),
    d], fp32.

    tokens [n, t]. By the adapter that is on, and with gradients where they are on.
    """
    taken = states_after(lm, tokens, layers)
    return normalize(torch.stack([taken[n].float() for n in layers], dim=2), dim=-1)


def filled(rows: Sequence[list[int]], lm: FrozenModel) -> tuple[Tensor, Tensor]:
    """Rows of ids as one tensor [rows, t], and which of its tokens are theirs, bool [rows, t]."""
    tokens = padded(rows, lm.device, lm.end_id)
    lengths = torch.tensor([len(r) for r in rows], device=tokens.device)
    return tokens, torch.arange(tokens.shape[1], device=tokens.device)[None] < lengths[:, None]


@dataclass(frozen=True)
class Matcher:
    """Vectors of passages and questions in one space."""

    lm: FrozenModel
    head: MatchHead

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> Vector:
        """Vectors float32 [n, dimension] of texts, batched by length."""
        ids = [self.lm.ids(t)[:LONGEST] for t in texts]
        found: dict[int, Tensor] = {}
        layers = self.head.layers.tolist()
        with self.lm.activate("matcher"):
            for batch in batches([len(i) for i in ids]):
                tokens, inside = filled([ids[i] for i in batch], self.lm)
                made = self.head(tokens, unit_states(self.lm, tokens, layers), inside)
                found.update(zip(batch, made, strict=True))
        stacked: Vector = (
            torch.stack([found[i] for i in range(len(ids))]).cpu().numpy().astype(np.float32)
        )
        return stacked

    def query(self, question: str) -> Vector:
        """A question's vector [dimension], made like those of passages."""
        vector: Vector = self.vectors([question])[0]
        return vector
