"""The sizes of a Llama-shaped decoder, read from its config.json. Knows no graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Families whose layers attend with rotary positions, then have a gated MLP with SiLU.
FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# The matrices of a layer that are multiplied in one step, by the name of the step.
PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder.

    Attributes:
        layers: Layers.
        width: Of a token's state.
        inner: Of the MLP.
        heads: Query heads of a layer.
        kv_heads: Key-value heads of a layer.
        head: Values of a head.
        context: The most positions.
        eps: Of the normalisation.
        theta: Base of the rotation's frequencies (RoFormer, arXiv 2104.09864).
    """

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    context: int
    eps: float
    theta: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape | None:
        """The sizes in a config.json; None for a decoder of another form."""
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        is_plain = (
            config.get("model_type") in FAMILIES
            and rope.get("rope_type", rope.get("type", "default")) == "default"
            and config.get("hidden_act") == "silu"
            and not config.get("use_sliding_window", False)
            and not (config.get("model_type") == "mistral" and config.get("sliding_window"))
            and not config.get("mlp_bias", False)
        )
        if not is_plain:
            return None
        heads = int(config["num_attention_heads"])
        width = int(config["hidden_size"])
        return cls(
            layers=int(config["num_hidden_layers"]),
            width=width,
            inner=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head=int(config.get("head_dim") or width // heads),
            context=int(config["max_position_embeddings"]),
            eps=float(config["rms_norm_eps"]),
            theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        )

    def sizes(self, part: str) -> tuple[int, int]:
        """Inputs and outputs of a part of a layer."""
        attended = self.heads * self.head
        return {
            "qkv": (self.width, attended + 2 * self.kv_heads * self.head),
            "out": (attended, self.width),
            "gate_up": (self.width, 2 * self.inner),
            "down": (self.inner, self.width),
        }[part]

    def rotation(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines float32 [context, head / 2] of each position."""
        half = np.arange(0, self.head, 2, dtype=np.float32) / self.head
        frequencies = (1.0 / self.theta**half).astype(np.float32)
        angles = np.arange(self.context, dtype=np.float32)[:, None] * frequencies
        return np.cos(angles), np.sin(angles)
