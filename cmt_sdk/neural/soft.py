"""The `soft` compressor (CMT, arXiv 2412.07393; pooled as in arXiv 2510.20797): windows of hidden states to soft tokens.

A passage runs through the frozen model with the encoder adapter and attention in both directions. Each window of
`ratio` tokens becomes one soft token in the model's own embedding space:
(sum of the window's input embeddings) / sqrt(window) + map(mean of its hidden states). The map starts at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import batches, codes_of, is_coded, padded
from cmt_sdk.neural.quantization import GROUP, dequantize, quantize
from cmt_sdk.types import PackedMemory


def pooled(states: Tensor, inside: Tensor, ratio: int) -> tuple[Tensor, Tensor]:
    """Sums over windows of `ratio` tokens: states [b, n, d], inside bool [b, n] -> [b, ceil(n / ratio), d], [b, ..., 1]."""
    extra = -states.shape[1] % ratio
    masked = pad(states * inside[..., None], (0, 0, 0, extra))
    counts = pad(inside.float(), (0, extra))
    windows = masked.reshape(len(masked), -1, ratio, masked.shape[2]).sum(2)
    return windows, counts.reshape(len(counts), -1, ratio).sum(2).unsqueeze(-1)


@dataclass(frozen=True)
class SoftCompressor:
    """Packs passages to `ceil(tokens / ratio)` soft tokens each.

    projection: the map [d, d], fp32, or None before training (then a soft token is the superposition alone).
    """

    lm: FrozenModel
    projection: Tensor | None
    ratio: int

    def __post_init__(self) -> None:
        width = self.lm.model.get_input_embeddings().weight.shape[1]
        if width % GROUP:
            raise ModelUnsupported(f"embeddings of {width} values: soft memories need a multiple of {GROUP}")

    def forward(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Soft tokens [b, windows, d] of passages, with gradients where they are on, and each row's count [b]."""
        lengths = torch.tensor([len(i) for i in ids], device=self.lm.device)
        tokens = padded(ids, self.lm.device, min(self.lm.stop_ids))
        inside = torch.arange(tokens.shape[1], device=tokens.device)[None] < lengths[:, None]
        embeddings = self.lm.model.get_input_embeddings()(tokens)
        summed, counts = pooled(embeddings.float(), inside, self.ratio)
        soft = summed / counts.clamp(min=1).sqrt()
        if self.projection is not None:
            both_ways = inside[:, None, None, :].expand(-1, -1, tokens.shape[1], -1)
            hidden = self.lm.model.base_model(input_ids=tokens, attention_mask=both_ways, use_cache=False)
            means, _ = pooled(hidden.last_hidden_state.float(), inside, self.ratio)
            soft = soft + (means / counts.clamp(min=1)) @ self.projection.T
        return soft, -(-lengths // self.ratio)

    def reads(self, memory: PackedMemory) -> bool:
        """Whether a memory is whole, and one of this model's at this ratio."""
        width = self.lm.model.get_input_embeddings().weight.shape[1]
        return memory.kind == "soft" and memory.tokens > 0 and is_coded(memory, "soft", -(-memory.tokens // self.ratio), width)

    @torch.inference_mode()
    def pack(self, contents: Sequence[str]) -> list[PackedMemory]:
        """One memory a passage, in the order given."""
        ids = [self.lm.passage_ids(c) for c in contents]
        packed: dict[int, PackedMemory] = {}
        with self.lm.activate("encoder"):
            for batch in batches([len(i) for i in ids]):
                soft, counts = self.forward([ids[i] for i in batch])
                for row, i in enumerate(batch):
                    codes = quantize(soft[row, : counts[row]])
                    arrays = {"soft_codes": codes.codes.cpu().numpy(), "soft_scales": codes.scales.cpu().numpy()}
                    packed[i] = PackedMemory("soft", len(ids[i]), arrays)
        return [packed[i] for i in range(len(ids))]


def soft_tokens(memories: Sequence[PackedMemory], lm: FrozenModel) -> Tensor:
    """The memories' soft tokens one after another, [1, tokens, d] in the model's type."""
    rows = [dequantize(codes_of(m, "soft")) for m in memories]
    return torch.cat(rows)[None].to(lm.device, lm.dtype)
