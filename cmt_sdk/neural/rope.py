"""Rotary positions: keys are rotated to a position and back, so that a memory has none. Pure tensor
code.

Rotary positions (RoFormer, Su et al. 2021, arXiv 2104.09864, section 3.4) rotate pair i of a key's
values by the angle position * frequency_i. Rotations add up: a key that is rotated back by its own
position can be stored, and later rotated to any other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cmt_sdk.errors import ModelUnsupported


class Rotary:
    """The rotation that a model applies to its keys, found in the model's own module.

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

        Returns:
            The shape and the type of `keys`.

        Raises:
            ModelUnsupported: Layers rotate differently, and `layers` is left out.
        """
        rotated = self._rotate_by(keys, positions, layers, 1.0)
        return rotated * self._scale_of(keys, layers)

    def unrotate(self, keys: Tensor, positions: Tensor, layers: Tensor | None = None) -> Tensor:
        """The inverse of `rotate`: keys as if they stood at position 0, in fp32."""
        keys = keys.float()  # rounding here would add to that of every later rotation
        rotated = self._rotate_by(keys, positions, layers, -1.0)
        return rotated / self._scale_of(keys, layers)

    def _rotate_by(
        self, keys: Tensor, positions: Tensor, layers: Tensor | None, sign: float
    ) -> Tensor:
        """Keys [..., n, head_dim] rotated by their angles, forwards (sign 1) or back (-1)."""
        frequencies = self._of_layers(
            self._inv_freq.to(keys.device), layers
        )  # (half,) or (..., n, half)
        angles = positions.unsqueeze(-1).float() * frequencies  # (..., n, half)
        cos = angles.cos().to(keys.dtype)
        sin = (sign * angles.sin()).to(keys.dtype)
        half = angles.shape[-1]
        # transformers pairs value i with value half + i, not with its neighbour as the paper does.
        a = keys[..., :half]  # (..., n, half)
        b = keys[..., half : 2 * half]
        rest = keys[..., 2 * half :]  # Phi rotates a leading part of each head only
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)

    def _scale_of(self, keys: Tensor, layers: Tensor | None) -> Tensor:
        """The factor of each key [n, 1], or of all [1], which YaRN and LongRoPE have."""
        return self._of_layers(self._scale[:, None].to(keys.device, keys.dtype), layers)

    def _of_layers(self, table: Tensor, layers: Tensor | None) -> Tensor:
        """Each key's row of a table [layers, values]; the only row where all layers are alike."""
        if self._alike:
            return table[0]
        if layers is None:
            raise ModelUnsupported(
                f"{self._family}: its layers rotate keys in different ways; use compressor='soft'"
            )
        return table[layers.to(table.device)]


def _by_layer(model: Any) -> list[tuple[Tensor, float]]:
    """Frequencies (fp32 [half]) and scale of each layer; none for a model without rotary positions.

    1. Name the buffers of each layer: families with kinds of layers (Gemma 3) have some per kind,
       "full_attention_inv_freq"; other families have one "inv_freq".
    2. Find the module that has all of them.
    3. Read them layer by layer; a layer that does not rotate has frequencies of 0.
    """
    config = model.config.get_text_config()
    named = [f"{kind}_" for kind in getattr(config, "layer_types", None) or ()]
    kinds = named or [""] * config.num_hidden_layers
    for module in model.modules():
        # A family may have kinds of layers for its windows, and rotate all of them alike.
        if hasattr(module, "inv_freq") and hasattr(module, "attention_scaling"):
            kinds = [""] * len(kinds)
        if all(
            hasattr(module, f"{kind}inv_freq") and hasattr(module, f"{kind}attention_scaling")
            for kind in kinds
        ):
            # In spite of its name, 1 in `no_rope_layers` marks a layer that does rotate.
            rotates = getattr(config, "no_rope_layers", None) or [1] * len(kinds)
            return [
                _frequencies_and_scale(module, kind, rotates=bool(r))
                for kind, r in zip(kinds, rotates, strict=True)
            ]
    return []


def _frequencies_and_scale(module: Any, kind: str, *, rotates: bool) -> tuple[Tensor, float]:
    """The frequencies and the scale of one layer, from the buffers of its kind."""
    frequencies = getattr(module, f"{kind}inv_freq").float()  # (half,)
    if not rotates:
        return 0 * frequencies, 1.0
    return frequencies, float(getattr(module, f"{kind}attention_scaling"))
