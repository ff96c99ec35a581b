"""The attention function that this package registers with transformers: ordinary SDPA, unless a call brings notes
to attend to (`notes=`) or an observer of attention (`watch=`). Knows no model, no tokenizer.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "cmt_sdk"


class Notes(Protocol):
    """Keys and values that were computed earlier, with a different number of entries in every head."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
        """Attention over the notes and the new tokens, mask [1, 1, m, m]; returns [1, m, heads, head_dim]."""


class Watch(Protocol):
    """Sees queries and keys as they are used."""

    def see(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Called once a layer with query [batch, heads, m, d] and key [batch, kv_heads, n, d], both rotated."""


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    notes: Notes | None = None,
    watch: Watch | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """SDPA for all calls without `notes`, so that the bare model computes exactly what it always did."""
    if notes is not None:
        return notes.attend(module.layer_idx, query, key, value, attention_mask, scaling), None
    if watch is not None:
        watch.see(module.layer_idx, query, key, scaling)
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **rest)
    return output, None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
