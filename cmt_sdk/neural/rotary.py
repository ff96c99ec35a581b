"""Rotary positions: turning keys to a position and back, so that a memory has no position. Pure
tensor code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cmt_sdk.errors import ModelUnsupported


class Rotary:
    """The rotation that a model applies to its keys (RoFormer, arXiv 2104.09864), found in its own
    module.

    Serves every family that rotates the two halves of (a leading part of) each head. Layers may
    differ: in their frequencies (Gemma 3: local and global layers), or by not rotating at all
    (SmolLM3: frequencies of 0). That this is what a model does is proven on the model itself by
    `proof.kv_rotary`.
    """

    def __init__(self, model: Any) -> None:
        self._family = model.config.model_type
        layers = _by_layer(model)
        if not layers:
            raise ModelUnsupported(
                f"{self._family}: KV memories need rotary positions, which this architecture does"
                " not have; use compressor='soft'"
            )
        if len({len(frequencies) for frequencies, _ in layers}) > 1:
            raise ModelUnsupported(
                f"{self._family}: KV memories need heads that are all turned alike; use"
                " compressor='soft'"
            )
        # ordinary tensors: they are kept, and used with gradients too
        with torch.inference_mode(False):
            self._inv_freq = torch.stack([frequencies for frequencies, _ in layers])
            self._scale = torch.tensor([scale for _, scale in layers], device=self._inv_freq.device)
        self._alike = bool(
            (self._inv_freq == self._inv_freq[0]).all() and (self._scale == self._scale[0]).all()
        )

    def turn(self, keys: Tensor, positions: Tensor, layers: Tensor | None = None) -> Tensor:
        """Rotate keys [..., n, head_dim] to positions [..., n] (broadcast against the leading
        shape).

        layers: of which layer each key is, shaped like positions; may be left out where all layers
        turn alike.
        """
        return self._rotate(keys, positions, layers, 1.0) * self._scale_of(keys, layers)

    def turn_back(self, keys: Tensor, positions: Tensor, layers: Tensor | None = None) -> Tensor:
        """The inverse of `turn`: keys as if they stood at position 0, in fp32."""
        return self._rotate(keys.float(), positions, layers, -1.0) / self._scale_of(keys, layers)

    def _rotate(
        self, keys: Tensor, positions: Tensor, layers: Tensor | None, sign: float
    ) -> Tensor:
        angles = positions.unsqueeze(-1).float() * self._of(self._inv_freq.to(keys.device), layers)
        cos, sin = angles.cos().to(keys.dtype), (sign * angles.sin()).to(keys.dtype)
        half = angles.shape[-1]
        a, b, rest = keys[..., :half], keys[..., half : 2 * half], keys[..., 2 * half :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)

    def _scale_of(self, keys: Tensor, layers: Tensor | None) -> Tensor:
        return self._of(self._scale[:, None].to(keys.device, keys.dtype), layers)

    def _of(self, table: Tensor, layers: Tensor | None) -> Tensor:
        """Each key's row of a table [layers, values]."""
        if self._alike:
            return table[0]
        if layers is None:
            raise ModelUnsupported(
                f"{self._family}: its layers turn keys in different ways; use compressor='soft'"
            )
        return table[layers.to(table.device)]


def _by_layer(model: Any) -> list[tuple[Tensor, float]]:
    """Frequencies (fp32) and scale of each layer; none for a model without rotary positions."""
    config = model.config.get_text_config()
    kinds = [f"{kind}_" for kind in getattr(config, "layer_types", None) or ()] or [
        ""
    ] * config.num_hidden_layers
    for module in model.modules():
        if hasattr(module, "inv_freq") and hasattr(module, "attention_scaling"):
            kinds = [""] * len(kinds)
        if all(
            hasattr(module, f"{kind}inv_freq") and hasattr(module, f"{kind}attention_scaling")
            for kind in kinds
        ):
            # transformers' word: 1 where it does rotate
            turned = getattr(config, "no_rope_layers", None) or [1] * len(kinds)
            return [
                _layer(module, kind, turns=bool(t)) for kind, t in zip(kinds, turned, strict=True)
            ]
    return []


def _layer(module: Any, kind: str, *, turns: bool) -> tuple[Tensor, float]:
    frequencies = getattr(module, f"{kind}inv_freq").float()
    return (
        (frequencies, float(getattr(module, f"{kind}attention_scaling")))
        if turns
        else (0 * frequencies, 1.0)
    )
