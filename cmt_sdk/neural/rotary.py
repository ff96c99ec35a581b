"""Rotary positions: turning keys to a position and back, so that a memory has no position. Pure tensor code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cmt_sdk.errors import ModelUnsupported


class Rotary:
    """The rotation that a model applies to its keys (RoFormer, arXiv 2104.09864), found in its own module.

    Serves every family whose attention layers share one `rotary_emb` and rotate the two halves of (a leading part
    of) each head. `check` proves it on the model itself.
    """

    def __init__(self, model: Any) -> None:
        found = [m for m in model.modules() if hasattr(m, "inv_freq") and hasattr(m, "attention_scaling")]
        if not found:
            raise ModelUnsupported(
                f"{model.config.model_type}: KV memories need rotary positions, which this architecture does not have; "
                "use compressor='soft'"
            )
        self._inv_freq = found[0].inv_freq.float()
        self._scale = float(found[0].attention_scaling)

    def turn(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Rotate keys [..., n, head_dim] to positions [..., n] (broadcast against the leading shape)."""
        return self._rotate(keys, positions, 1.0) * self._scale

    def turn_back(self, keys: Tensor, positions: Tensor) -> Tensor:
        """The inverse of `turn`: keys as if they stood at position 0, in fp32."""
        return self._rotate(keys.float(), positions, -1.0) / self._scale

    def _rotate(self, keys: Tensor, positions: Tensor, sign: float) -> Tensor:
        angles = positions.unsqueeze(-1).float() * self._inv_freq.to(keys.device)
        cos, sin = angles.cos().to(keys.dtype), (sign * angles.sin()).to(keys.dtype)
        half = angles.shape[-1]
        a, b, rest = keys[..., :half], keys[..., half : 2 * half], keys[..., 2 * half :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)
