"""The attention function that this package registers with transformers: ordinary SDPA, unless a
call brings notes to attend to (`notes=`) or an observer of attention (`watch=`), or a model caps
its logits. Knows no model, no tokenizer.
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

NAME = "cmt_sdk"
# What a model's attention may add to the ordinary, as transformers names it in the call, and notes
# are not read with.
UNREAD = {"s_aux": "has attention sinks", "position_bias": "adds a bias for distance"}


class Notes(Protocol):
    """Keys and values that were computed earlier, with a different number of entries in every
    head.
    """

    def get_seq_length(self, layer: int) -> int:
        """Tokens that the notes stand for, and the new ones that they were given."""

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        scaling: float,
        cap: float | None,
    ) -> Tensor:
        """Attention over the notes and the new tokens, mask [b, 1, m, m], logits capped at `cap`;
        returns [b, m, heads, d].
        """


class Watch(Protocol):
    """Sees queries and keys as they are used."""

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
    notes: Notes | None = None,
    watch: Watch | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """SDPA for all calls without `notes`, so that the bare model computes exactly what it always
    did.

    Raises ModelUnsupported for notes and an attention that would read them wrongly.
    """
    if notes is not None:
        _refuse(module, notes, rest)
        return (
            notes.attend(
                module.layer_idx, query, key, value, attention_mask, scaling, rest.get("softcap")
            ),
            None,
        )
    if watch is not None:
        watch.see(module.layer_idx, query, key, scaling, rest.get("softcap"))
    if rest.get("softcap") is not None or (query.requires_grad and query.device.type == "cpu"):
        return _written_out(query, key, value, attention_mask, scaling, rest.get("softcap")), None
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **rest
    )
    return output, None


def leave_out_cudnn() -> None:
    """From now on SDPA takes other kernels than cuDNN's, in the whole process: torch knows no
    narrower switch that threads share.

    From torch 2.11 on cuDNN's come first on Hopper and Blackwell GPUs, and with a mask their
    attention can be silently wrong (pytorch issues 191612, 193893, 196678).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def _refuse(module: Any, notes: Notes, rest: dict[str, Any]) -> None:
    family = module.config.model_type
    for name, does in UNREAD.items():
        if rest.get(name) is not None:
            raise ModelUnsupported(
                f"{family}: it {does}, which memories are not read with; use another model"
            )
    window, length = rest.get("sliding_window"), notes.get_seq_length(module.layer_idx)
    if window is not None and length > window:
        raise ModelUnsupported(
            f"{family}: the notes and the question reach over {length} tokens, some layers see the"
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
    """As SDPA, but capped; and without a cap, on a CPU, where SDPA's backward pass takes three
    times as long.

    query [b, heads, m, d], mask bool or additive [b, 1, m, n]; returns [b, m, heads, d].
    """
    batch, heads, count, width = query.shape
    kv_heads, total = key.shape[1], key.shape[2]
    if mask is None:  # transformers leaves it out where it is causal
        mask = torch.ones(count, total, dtype=torch.bool, device=key.device).tril(total - count)[
            None, None
        ]
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))
    rows = query.reshape(batch, kv_heads, -1, width)
    attended = _softmax_attention(
        rows, key, value, mask.repeat(1, 1, heads // kv_heads, 1), scaling, cap
    )
    return attended.reshape(batch, heads, count, width).transpose(1, 2)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
