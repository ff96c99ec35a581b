"""CMT's aggregation (arXiv 2412.07393): memories become a few keys and values before the question,
however many they are.

psi, cross-attention: M* = softmax(Q K^T / sqrt(d)) V, where Q comes from the question's own soft
tokens and K = V are the memories of all chosen passages. pi maps M* to keys and values of every
layer; the frozen model reads the question after them. Beside the published form stand three maps on
Q, K and V, which start as the identity. Pure tensor code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import gelu

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.quantization import through
from cmt_sdk.neural.soft import Soft, SoftCompressor, latents

HIDDEN = 256
SMALL = 0.02  # the spread of pi's first weights: the prefix starts near nothing


@dataclass(frozen=True)
class Aggregator:
    """psi: query, key, value [d, d]. pi: narrow [h, d], wide [layers * 2 * kv_heads * w, h]. shape:
    layers, kv_heads, w.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    narrow: Tensor
    wide: Tensor
    shape: Tensor

    @classmethod
    def first(cls, width: int, shape: tuple[int, int, int]) -> Aggregator:
        """Where training starts."""
        layers, heads, size = shape
        eye = torch.eye(width)
        narrow = torch.randn(HIDDEN, width) / width**0.5
        wide = SMALL * torch.randn(layers * 2 * heads * size, HIDDEN)
        return cls(eye.clone(), eye.clone(), eye.clone(), narrow, wide, torch.tensor(shape))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Aggregator:
        """From the tensors of a file."""
        return cls(
            **{
                f.name: tensors[f.name] if f.name == "shape" else tensors[f.name].float()
                for f in fields(cls)
            }
        )

    def tensors(self) -> dict[str, Tensor]:
        """As they are written to a file."""
        return {f.name: getattr(self, f.name).detach().cpu().contiguous() for f in fields(self)}

    def to(self, device: torch.device) -> Aggregator:
        """The same on another device."""
        return Aggregator(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def gather(self, question: Tensor, memories: Tensor) -> Tensor:
        """psi: M* [q, d] of a question's soft tokens [q, d] and the memories [m, d]; their order
        does not matter.
        """
        asked, keys = question @ self.query.T, memories @ self.key.T
        weights = (asked @ keys.T / asked.shape[1] ** 0.5).softmax(-1)
        gathered: Tensor = weights @ (memories @ self.value.T)
        return gathered

    def spread(self, gathered: Tensor) -> tuple[Tensor, Tensor]:
        """pi: keys and values [layers, kv_heads, q, w] of M* [q, d]."""
        layers, heads, size = self.shape.tolist()
        flat = gelu(gathered @ self.narrow.T) @ self.wide.T
        made = flat.reshape(len(gathered), layers, 2, heads, size).permute(1, 2, 3, 0, 4)
        return made[:, 0], made[:, 1]


@dataclass(frozen=True)
class Aggregation:
    """An aggregator with the compressor that makes soft tokens of questions as of passages."""

    aggregator: Aggregator
    compressor: SoftCompressor

    @torch.inference_mode()
    def prefix(
        self, lm: FrozenModel, memories: Sequence[Soft], question: str
    ) -> tuple[Tensor, Tensor]:
        """Keys and values [layers, kv_heads, q, w] of memories for a question."""
        with lm.activate("encoder"):
            (asked,) = self.compressor.forward([lm.ids(question)])
            latent, *told = latents(lm, [replace(asked, rows=through(asked.rows)), *memories])
        return self.aggregator.spread(self.aggregator.gather(latent, torch.cat(told)))
