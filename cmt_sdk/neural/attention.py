"""The attention function that this package registers with transformers.

It is ordinary SDPA, unless a call passes a cache of memories (`memory_cache=`) or an observer of
attention (`watch=`), or the model caps its logits. Knows no model, no tokenizer.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.cache import MemoryCache

NAME = "cmt_sdk"
# Arguments by which transformers passes extensions of attention that memories are not read with.
UNSUPPORTED = {"s_aux": "has attention sinks", "position_bias": "adds a bias for distance"}


class Watch(Protocol):
    """Observes queries and keys as attention uses them."""

    def see(
        self, layer: int, query: Tensor, key: Tensor, scaling: float, cap: float | None
    ) -> None:
        """Called once a layer with query [batch, heads, m, d] and key [batch, kv_heads, n, d], both
        rotated.
        """


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    memory_cache: MemoryCache | None = None,
    watch: Watch | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query [batch, heads, m, d], key and value [batch,
    kv_heads, n, d]; returns [batch, m, heads, d].

    A call without `memory_cache` is plain SDPA, so that the bare model computes exactly what it
    always did.

    Raises:
        ModelUnsupported: The attention has an extension that memories are not read with.
    """
    cap = rest.get("softcap")
    if memory_cache is not None:
        layer = module.layer_idx
        _refuse(module, memory_cache, rest)
        bias = memory_cache.bias[layer]
        return attend(query, key, value, bias, attention_mask, scaling, cap), None
    if watch is not None:
        watch.see(module.layer_idx, query, key, scaling, cap)
    # On a CPU the backward pass of SDPA takes three times as long as the written-out form.
    if cap is not None or (query.requires_grad and query.device.type == "cpu"):
        return _written_out(query, key, value, attention_mask, scaling, cap), None
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **rest
    )
    return output, None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    mask: Tensor,
    scaling: float,
    cap: float | None = None,
) -> Tensor:
    """Attention of m new tokens over n cached entries and over themselves.

    The query heads of a group become rows of their key-value head, so no key is copied.

    Args:
        query: [batch, heads, m, d].
        key: [batch, kv_heads, n + m, d], the new tokens last.
        value: The same shape.
        bias: [batch, kv_heads, 1, >= n], added to the logits of the entries; -inf closes one.
        mask: [1 or batch, 1, m, m], added to the logits of the new tokens.
        scaling: Factor of the logits.
        cap: Limit of the logits, None without one.

    Returns:
        [batch, m, heads, d].
    """
    batch, heads, count, width = query.shape
    kv_heads = key.shape[1]
    entries = key.shape[2] - count
    before = bias[..., :entries].expand(-1, -1, count, -1)  # (B, KV, m, n)
    among = mask.expand(batch, kv_heads, -1, -1)  # (B, KV, m, m)
    whole = torch.cat([before, among], dim=3)  # (B, KV, m, n + m)
    if count > 1:  # a single row is broadcast over the group instead
        whole = whole.repeat(1, 1, heads // kv_heads, 1)  # (B, KV, group * m, n + m)
    rows = query.reshape(batch, kv_heads, -1, width)  # (B, KV, group * m, d)
    attended = attend_rows(rows, key, value, whole, scaling, cap)
    return attended.reshape(batch, heads, count, width).transpose(1, 2)  # (B, m, H, d)


def leave_out_cudnn() -> None:
    """Switch cuDNN's SDPA kernels off for this process: torch has no narrower switch that threads
    share.

    From torch 2.11 on cuDNN's come first on Hopper and Blackwell GPUs, and with a mask their
    attention can be silently wrong (pytorch issues 191612, 193893, 196678).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def _refuse(module: Any, memory_cache: MemoryCache, rest: dict[str, Any]) -> None:
    family = module.config.model_type
    for name, does in UNSUPPORTED.items():
        if rest.get(name) is not None:
            raise ModelUnsupported(
                f"{family}: it {does}, which memories are not read with; use another model"
            )
    window = rest.get("sliding_window")
    length = memory_cache.get_seq_length(module.layer_idx)
    if window is not None and length > window:
        raise ModelUnsupported(
            f"{family}: the memories and the question span {length} tokens, some layers see the"
            f" last {window} only; ask with a smaller k, or with budget="
        )


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """Logits within -cap and cap (Gemma 2, arXiv 2408.00118), which SDPA does not have."""
    return logits if cap is None else cap * torch.tanh(logits / cap)


def attend_rows(
    rows: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, cap: float | None
) -> Tensor:
    """SDPA, or the same with capped logits: rows [b, kv_heads, r, d], key and value [b, kv_heads,
    n, d], additive mask [b, 1 or kv_heads, r, n]; returns [b, kv_heads, r, d].
    """
    if cap is None:
        return scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return _softmax_attention(rows, key, value, mask, scaling, cap)


def _softmax_attention(
    rows: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, cap: float | None
) -> Tensor:
    logits = capped((rows @ key.transpose(2, 3)).float() * scaling, cap)
    return (logits + mask).softmax(-1).to(value.dtype) @ value


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    cap: float | None,
) -> Tensor:
    """SDPA written out in torch operations, with an optional cap.

    query [b, heads, m, d], mask bool or additive [b, 1, m, n]; returns [b, m, heads, d].
    """
    batch, heads, count, width = query.shape
    kv_heads = key.shape[1]
    total = key.shape[2]
    if mask is None:  # transformers leaves a causal mask out
        visible = torch.ones(count, total, dtype=torch.bool, device=key.device)
        mask = visible.tril(total - count)[None, None]  # (1, 1, m, n)
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))
    rows = query.reshape(batch, kv_heads, -1, width)  # (B, KV, group * m, d)
    by_row = mask.repeat(1, 1, heads // kv_heads, 1)  # (B, 1, group * m, n)
    attended = _softmax_attention(rows, key, value, by_row, scaling, cap)
    return attended.reshape(batch, heads, count, width).transpose(1, 2)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
