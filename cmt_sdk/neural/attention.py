"""The attention function that this package registers with transformers.

It is ordinary SDPA, unless a call passes a cache of memories (`memory_cache=`) or an observer of
attention (`watch=`), or the model caps its logits. Knows no model, no tokenizer.

In comments: B rows of the batch, H query heads, KV key-value heads, group = H / KV (grouped-query
attention, arXiv 2305.13245), m new tokens, n entries before them, d values per head.
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
        """Called once per layer and forward pass, before attention is computed.

        Args:
            layer: Number of the layer.
            query: [batch, heads, m, d], rotated.
            key: [batch, kv_heads, n, d], rotated.
            scaling: Factor of the attention logits.
            cap: Limit of the attention logits, None without one.
        """


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    memory_cache: MemoryCache | None = None,
    watch: Watch | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it.

    A call without `memory_cache` is plain SDPA, so that the bare model computes exactly what it
    always did.

    Args:
        module: The model's attention module.
        query: [batch, heads, m, d], rotated.
        key: [batch, kv_heads, n, d], rotated: all that the cache returned.
        value: The same shape.
        attention_mask: [1 or batch, 1, m, n], bool or additive, or None for a causal one; with
            `memory_cache` additive [1 or batch, 1, m, m], among the new tokens.
        scaling: Factor of the logits; one over the root of d where a family (GPT-2 in transformers
            5.0) leaves it to the attention.
        memory_cache: The cache, where it holds memories.
        watch: Sees queries and keys.
        rest: The model's extensions of attention, by transformers' names.

    Returns:
        [batch, m, heads, d], and None in place of the weights.

    Raises:
        ModelUnsupported: The attention has an extension that memories are not read with.
    """
    cap = rest.get("softcap")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    if memory_cache is not None:
        layer = module.layer_idx
        _check_readable(module, memory_cache, rest)
        bias = memory_cache.bias[layer]
        return attend(query, key, value, bias, attention_mask, scaling, cap), None
    if watch is not None:
        watch.see(module.layer_idx, query, key, scaling, cap)
    # On a CPU the backward pass of SDPA takes three times as long as the written-out form.
    if cap is not None or (query.requires_grad and query.device.type == "cpu"):
        return _written_out_sdpa(query, key, value, attention_mask, scaling, cap), None
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

    1. The mask of the entries is their bias, the same for all new tokens.
    2. The mask of the new tokens among themselves is the one given, the same for all heads.
    3. The query heads of a group become rows of their key-value head, so no key is copied.
    4. One call of SDPA per key-value head reads entries and new tokens together.

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
    # Tokens of an answer that earlier passes wrote into the cache's room count as entries too.
    entries = key.shape[2] - count
    before = bias[..., :entries].expand(-1, -1, count, -1)  # (B, KV, m, n)
    among = mask.expand(batch, kv_heads, -1, -1)  # (B, KV, m, m)
    joined = torch.cat([before, among], dim=3)  # (B, KV, m, n + m)
    if count > 1:  # a single row is broadcast over the group instead
        joined = joined.repeat(1, 1, heads // kv_heads, 1)  # (B, KV, group * m, n + m)
    # transformers numbers the query heads of a group one after another.
    rows = query.reshape(batch, kv_heads, -1, width)  # (B, KV, group * m, d)
    attended = attend_rows(rows, key, value, joined, scaling, cap)  # (B, KV, group * m, d)
    return attended.reshape(batch, heads, count, width).transpose(1, 2)  # (B, m, H, d)


def leave_out_cudnn() -> None:
    """Switch cuDNN's SDPA kernels off for this process: torch has no narrower switch that threads
    share.

    From torch 2.11 on cuDNN's come first on Hopper and Blackwell GPUs, and with a mask their
    attention can be silently wrong (pytorch issues 191612, 193893, 196678).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def _check_readable(module: Any, memory_cache: MemoryCache, rest: dict[str, Any]) -> None:
    """Raise ModelUnsupported where `attend` would leave out a part of the model's attention.

    Args:
        module: The model's attention module.
        memory_cache: The cache that is read.
        rest: Further arguments of the call, by transformers' names.
    """
    family = module.config.model_type
    for name, does in UNSUPPORTED.items():
        if rest.get(name) is not None:
            raise ModelUnsupported(
                f"{family}: it {does}, which memories are not read with; use another model"
            )
    window = rest.get("sliding_window")
    # `attend` knows no window: it computes the same only while a window covers everything.
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
    """SDPA over all query rows of each key-value head, or the same with capped logits.

    Args:
        rows: [b, kv_heads, r, d]; row i of the r rows belongs to query head i // m of its group.
        key: [b, kv_heads, n, d].
        value: The same shape.
        mask: Additive [b, 1 or kv_heads, 1 or r, n].
        scaling: Factor of the logits.
        cap: Limit of the logits, None without one.

    Returns:
        [b, kv_heads, r, d].
    """
    if cap is None:
        return scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return _softmax_attention(rows, key, value, mask, scaling, cap)


def _softmax_attention(
    rows: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, cap: float | None
) -> Tensor:
    """`attend_rows` in plain operations; logits and softmax in fp32, as SDPA computes them."""
    products = (rows @ key.transpose(2, 3)).float()  # (b, kv_heads, r, n)
    logits = capped(products * scaling, cap)
    weights = (logits + mask).softmax(-1).to(value.dtype)
    return weights @ value  # (b, kv_heads, r, d)


def _written_out_sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    cap: float | None,
) -> Tensor:
    """SDPA written out in torch operations, with an optional cap.

    Args:
        query: [b, heads, m, d].
        key: [b, kv_heads, n, d].
        value: The same shape.
        mask: [b, 1, m, n], bool (True: seen) or additive; None for a causal one.
        scaling: Factor of the logits.
        cap: Limit of the logits, None without one.

    Returns:
        [b, m, heads, d].
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
    attended = _softmax_attention(rows, key, value, by_row, scaling, cap)  # (B, KV, group * m, d)
    return attended.reshape(batch, heads, count, width).transpose(1, 2)  # (B, m, H, d)


# FrozenModel chooses the attention by this name. The masks for it are those for SDPA: transformers
# would build none for an attention that it does not know.
AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
