"""Embeddings: self-matching with the frozen model (CMT, arXiv 2412.07393). Pure tensor code.

1. A passage or a question runs behind the prompt's prefix through the model's first layers, with
   the matcher adapter where one was trained. The encoder and the reader adapter do not take part.
   Stopping early halves the cost of a question.
2. Each token's states after some layers are brought to length 1 and averaged, with a weight that
   depends on the token and on its last state.
3. The averages are projected to one vector of length 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from cmt_sdk.neural.batching import batch_tokens, in_batches, padded_with_mask
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.partial_forward import run_until
from cmt_sdk.reading.limits import MAX_EMBEDDED_TOKENS
from cmt_sdk.types import Vector


@dataclass(frozen=True)
class MatchHead:
    """The trained weights of pooling and projection, or those of a plain mean after half of the
    model's layers.

    Attributes:
        layers: int64 [l], ascending: the numbers of layers after which states are taken.
        tokens: [vocabulary], the log weight of each token.
        attend: [d], how a token's last state changes its weight.
        projection: [dimension, l * d].
        bias: [dimension].
    """

    layers: Tensor
    tokens: Tensor
    attend: Tensor
    projection: Tensor
    bias: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> MatchHead:
        """The head in a file's tensors, computing in fp32.

        Raises:
            KeyError: A tensor is missing.
        """
        found = {f.name: tensors[f.name] for f in fields(cls)}
        # `layers` is whole numbers; the rest is stored in half precision.
        return cls(
            **{name: t if t.dtype == torch.int64 else t.float() for name, t in found.items()}
        )

    @classmethod
    def plain(cls, lm: FrozenModel) -> MatchHead:
        """Without training: the mean state after half of the layers, all tokens alike."""
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
        """Pool and project the states of n texts.

        Args:
            ids: [n, t].
            states: Of length 1, [n, t, l, d].
            inside: bool [n, t], True for the tokens that count.

        Returns:
            Embeddings [n, dimension] of length 1.
        """
        logits = self.tokens[ids] + states[:, :, -1] @ self.attend  # (n, t)
        # Padding has weight 0: a text's embedding does not depend on its batch.
        weights = logits.masked_fill(~inside, float("-inf")).softmax(1)  # (n, t)
        pooled = (states * weights[..., None, None]).sum(1)  # (n, l, d)
        projected = linear(pooled.flatten(1), self.projection, self.bias)  # (n, dimension)
        return normalize(projected, dim=-1)


def unit_states(lm: FrozenModel, tokens: Tensor, layers: Sequence[int]) -> Tensor:
    """Each token's states after the given numbers of layers, of length 1.

    By the adapter that is on, and with gradients where they are on.

    Args:
        lm: The model.
        tokens: Ids [n, t].
        layers: Numbers of layers.

    Returns:
        fp32 [n, t, len(layers), d].
    """
    taken = run_until(lm, tokens, layers)  # by layer, (n, t, d)
    states = torch.stack([taken[n].float() for n in layers], dim=2)  # (n, t, l, d)
    # At length 1 all layers count alike, however large their states are.
    return normalize(states, dim=-1)


@dataclass(frozen=True)
class Matcher:
    """Embeddings of passages and questions in one space.

    Attributes:
        lm: The frozen model.
        head: Pools and projects its states; on the model's device.
    """

    lm: FrozenModel
    head: MatchHead

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> Vector:
        """Embeddings float32 [n, dimension] of n texts, of length 1, in the order given."""
        ids = [self.lm.ids(text)[:MAX_EMBEDDED_TOKENS] for text in texts]
        with self.lm.activate("matcher"):
            most = batch_tokens(self.lm.device)
            found = in_batches(ids, self._embed_batch, most)  # n of (dimension,)
        stacked: Vector = torch.stack(found).cpu().numpy().astype(np.float32)
        return stacked

    def _embed_batch(self, ids: Sequence[list[int]]) -> list[Tensor]:
        """The embedding [dimension] of each row of token ids."""
        tokens, inside = padded_with_mask(ids, self.lm.device, self.lm.end_id)  # (n, t) each
        states = unit_states(self.lm, tokens, self.head.layers.tolist())  # (n, t, l, d)
        return list(self.head(tokens, states, inside))

    def query(self, question: str) -> Vector:
        """A question's embedding [dimension], made as those of passages are."""
        vector: Vector = self.vectors([question])[0]
        return vector
