"""Tiny random models of each common family, built in code: tests need no download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cmt_sdk.testing.tiny import SIZES


@dataclass(frozen=True)
class Family:
    """A model type of transformers, and its configuration."""

    model_type: str
    settings: Mapping[str, Any]


def _family(model_type: str, **own: Any) -> Family:
    """3 layers, 4 query and 2 key-value heads of 32 values, and the family's own settings."""
    sizes = SIZES | {"pad_token_id": 0}
    return Family(model_type, MappingProxyType({**sizes, **own}))


# Absolute positions learned, Conv1D layers, as many key-value heads as query heads.
_GPT2 = {
    "vocab_size": 258,
    "n_embd": 128,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 1024,
    "initializer_range": 0.2,
}
_STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "gpt2": Family("gpt2", MappingProxyType(_GPT2 | {"bos_token_id": 1, "eos_token_id": 0})),
        "llama": _family("llama"),
        "llama3": _family("llama", rope_parameters=_STRETCHED),
        "smollm2": _family("llama", tie_word_embeddings=True),
        "mistral": _family("mistral", sliding_window=512),  # in every layer
        "qwen2": _family("qwen2"),  # biases on queries, keys and values
        # norms on queries and keys, heads wider than their share
        "qwen3": _family("qwen3", head_dim=64),
        "gemma": _family("gemma", head_dim=64),  # scaled embeddings, tied to the output
        # logits capped, in attention and at the end; windows in every second layer
        "gemma2": _family(
            "gemma2",
            head_dim=64,
            sliding_window=512,
            query_pre_attn_scalar=48,
            attn_logit_softcapping=5.0,
        ),
        # two rotary bases
        "gemma3": _family("gemma3_text", head_dim=64, sliding_window=512, layer_types=_ALTERNATING),
        "phi": _family("phi", partial_rotary_factor=0.5),  # half of each head is not rotated
        "phi3": _family("phi3", sliding_window=512),  # fused projections
        "smollm3": _family("smollm3", no_rope_layers=[1, 1, 0]),  # a layer without positions
    }
)


def tiny_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random model of a family in `FAMILIES`, fp32, in eval mode.

    Args:
        family: A key of FAMILIES.
        seed: Draws the weights.
        changes: Values of the configuration to change.
    """
    torch.manual_seed(seed)
    made = FAMILIES[family]
    config = AutoConfig.for_model(made.model_type, **{**made.settings, **changes})
    return AutoModelForCausalLM.from_config(config).float().eval().requires_grad_(False)
