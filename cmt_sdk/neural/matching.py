"""Key vectors: self-matching with the frozen model (CMT, arXiv 2412.07393, section on self-matching). Pure tensor code.

A passage or a question runs through the model's first `depth` layers with the encoder adapter and attention in both
directions; the mean over its tokens is projected and normalised. Stopping early halves the cost of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import batches, padded
from cmt_sdk.types import Vector

LONGEST = 512  # tokens; what comes after adds nothing to a key


class _Reached(Exception):
    """Carries the hidden states out of the model once the last layer that is needed has run."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def hidden_after(model: Any, depth: int, **inputs: Any) -> Tensor:
    """Hidden states [batch, tokens, d] after the first `depth` layers; the layers above do not run."""
    layers = model.base_model.layers

    def stop(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached(args[0] if args else kwargs["hidden_states"])

    if depth >= len(layers):
        return model.base_model(**inputs).last_hidden_state  # type: ignore[no-any-return]
    hook = layers[depth].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model.base_model(**inputs)
    except _Reached as reached:
        return reached.hidden
    finally:
        hook.remove()
    raise AssertionError(f"layer {depth} never ran")


@dataclass(frozen=True)
class Matcher:
    """Vectors of passages and questions in one space.

    projection: [dimension, d], fp32, or None where no matching head was trained: then the plain mean is used, with
    causal attention and no adapter. depth: layers that run.
    """

    lm: FrozenModel
    projection: Tensor | None
    depth: int

    def forward(self, ids: Sequence[list[int]]) -> Tensor:
        """Vectors [n, dimension] of length 1, with gradients where they are on."""
        lengths = torch.tensor([min(len(i), LONGEST) for i in ids], device=self.lm.device)
        tokens = padded([i[:LONGEST] for i in ids], self.lm.device, min(self.lm.stop_ids))
        inside = torch.arange(tokens.shape[1], device=tokens.device)[None] < lengths[:, None]
        both_ways = inside[:, None, None, :].expand(-1, -1, tokens.shape[1], -1)
        inputs = {"input_ids": tokens, "use_cache": False}
        if self.projection is not None:
            inputs["attention_mask"] = both_ways
        hidden = hidden_after(self.lm.model, self.depth, **inputs).float()
        mean = (hidden * inside[..., None]).sum(1) / lengths[:, None]
        return normalize(mean if self.projection is None else mean @ self.projection.T, dim=-1)

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> Vector:
        """Vectors float32 [n, dimension] of texts, batched by length."""
        ids = [self.lm.ids(t)[:LONGEST] for t in texts]
        adapter = nullcontext() if self.projection is None else self.lm.activate("encoder")
        found: dict[int, Tensor] = {}
        with adapter:
            for batch in batches([len(i) for i in ids]):
                made = self.forward([ids[i] for i in batch])
                found.update(zip(batch, made, strict=True))
        stacked: Vector = torch.stack([found[i] for i in range(len(ids))]).cpu().numpy().astype(np.float32)
        return stacked
