"""Rotary positions: keys are rotated to a position and back, so that a memory has none. Pure tensor
code.
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
    differ in their frequencies (Gemma 3: local and global layers), or may not rotate at all
    (SmolLM3: frequencies of 0). `methods.kv.check_kv` tests on the model itself that it rotates
    this way.

    Raises:
        ModelUnsupported: The model has no rotary positions, or its layers rotate parts of different
            sizes.
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
                f"{self._family}: KV memories need heads that are all rotated alike; use"
                " compressor='soft'"
            )
        # Ordinary tensors, not those of inference mode: training uses them with gradients.
        with torch.inference_mode(False):
            self._inv_freq = torch.stack([frequencies for frequencies, _ in layers])
            self._scale = torch.tensor([scale for _, scale in layers], device=self._inv_freq.device)
        self._alike = bool(
            (self._inv_freq == self._inv_freq[0]).all() and (self._scale == self._scale[0]).all()
        )

    def rotate(self, keys: Tensor, positions: Tensor, layers: Tensor | None = None) -> Tensor:
        """Rotate keys from position 0 to their positions.

        Args:
            keys: [..., n, head_dim].
            positions: [..., n], broadcast against the leading shape.
            layers: The layer of each key, shaped like `positions`; may be left out where all layers
                rotate alike.
        """
        return self._rotated(keys, positions, layers, 1.0) * self._scale_of(keys, layers)

    def unrotate(self, keys: Tensor, positions: Tensor, layers: Tensor | None = None) -> Tensor:
        """The inverse of `rotate`: keys as if they stood at position 0, in fp32."""
        keys = keys.float()
        return self._rotated(keys, positions, layers, -1.0) / self._scale_of(keys, layers)

    def _rotated(
        self, keys: Tensor, positions: Tensor, layers: Tensor | None, sign: float
    ) -> Tensor:
        frequencies = self._of_layers(self._inv_freq.to(keys.device), layers)
        angles = positions.unsqueeze(-1).float() * frequencies  # (..., n, rotated / 2)
        cos = angles.cos().to(keys.dtype)
        sin = (sign * angles.sin()).to(keys.dtype)
        half = angles.shape[-1]
        a = keys[..., :half]
        b = keys[..., half : 2 * half]
        rest = keys[..., 2 * half :]  # Phi rotates a leading part of each head only
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)

    def _scale_of(self, keys: Tensor, layers: Tensor | None) -> Tensor:
        return self._of_layers(self._scale[:, None].to(keys.device, keys.dtype), layers)

    def _of_layers(self, table: Tensor, layers: Tensor | None) -> Tensor:
        """Each key's row of a table [layers, values]."""
        if self._alike:
            return table[0]
        if layers is None:
            raise ModelUnsupported(
                f"{self._family}: its layers rotate keys in different ways; use compressor='soft'"
            )
        return table[layers.to(table.device)]


def _by_layer(model: Any) -> list[tuple[Tensor, float]]:
    """Frequencies (fp32) and scale of each layer; none for a model without rotary positions."""
    config = model.config.get_text_config()
    # Families with kinds of layers (Gemma 3) have buffers per kind: "full_attention_inv_freq".
    named = [f"{kind}_" for kind in getattr(config, "layer_types", None) or ()]
    kinds = named or [""] * config.num_hidden_layers
    for module in model.modules():
        if hasattr(module, "inv_freq") and hasattr(module, "attention_scaling"):
            kinds = [""] * len(kinds)
        if all(
            hasattr(module, f"{kind}inv_freq") and hasattr(module, f"{kind}attention_scaling")
            for kind in kinds
        ):
            # transformers' name; a layer with 1 does rotate
            rotates = getattr(config, "no_rope_layers", None) or [1] * len(kinds)
            return [
                _layer(module, kind, rotates=bool(r))
                for kind, r in zip(kinds, rotates, strict=True)
            ]
    return []


def _layer(module: Any, kind: str, *, rotates: bool) -> tuple[Tensor, float]:
    frequencies = getattr(module, f"{kind}inv_freq").float()
    if not rotates:
        return 0 * frequencies, 1.0
    return frequencies, float(getattr(module, f"{kind}attention_scaling"))
