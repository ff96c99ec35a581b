"""The method of the CMT paper (arXiv 2412.07393): soft memories become a few keys and values before
the question, however many memories there are.

1. psi, cross-attention: M* = softmax(Q K^T / sqrt(d)) V, where Q are the question's own soft tokens
   and K = V the memories of all chosen passages.
2. pi maps M* to keys and values of every layer.
3. The frozen, bare model reads the question after them.

In addition to the published form, three maps on Q, K and V start as the identity. Pure tensor code.

In comments: q soft tokens of the question, m of all memories, d values per hidden state, h of pi's
hidden layer, L layers, KV key-value heads, w values per head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import gelu

from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.neural.cache import MemoryCache, stacked
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import CompressionMethod, TrainedParts
from cmt_sdk.neural.methods.soft import SoftMethod, unpacked
from cmt_sdk.neural.methods.soft_tokens import SoftTokens, last_hidden_states
from cmt_sdk.neural.quantization import fake_quantize
from cmt_sdk.types import CompressedPassage

HIDDEN = 256  # h
SMALL = 0.02  # spread of pi's first weights: the entries start near zero


@dataclass(frozen=True)
class Aggregator:
    """The tensors of psi and pi.

    Attributes:
        query: psi's map of the question's states, [d, d].
        key: psi's map of the memories' states that are compared, [d, d].
        value: psi's map of those that are gathered, [d, d].
        narrow: pi's first map, [h, d].
        wide: pi's second map, [layers * 2 * kv_heads * w, h]; 2 for keys and values.
        shape: layers, kv_heads, w, int64 [3]: a file has tensors only.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    narrow: Tensor
    wide: Tensor
    shape: Tensor

    @classmethod
    def first(cls, width: int, shape: tuple[int, int, int]) -> Aggregator:
        """The tensors that training starts from.

        Args:
            width: d, values per hidden state.
            shape: layers, kv_heads, w.
        """
        layers, heads, size = shape
        eye = torch.eye(width)
        narrow = torch.randn(HIDDEN, width) / width**0.5  # (h, d)
        wide = SMALL * torch.randn(layers * 2 * heads * size, HIDDEN)
        return cls(
            query=eye.clone(),
            key=eye.clone(),
            value=eye.clone(),
            narrow=narrow,
            wide=wide,
            shape=torch.tensor(shape),
        )

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Aggregator:
        """From the tensors of a file, computing in fp32.

        Raises:
            KeyError: A tensor is missing.
        """
        found = {f.name: tensors[f.name] for f in fields(cls)}
        return cls(**{name: t if name == "shape" else t.float() for name, t in found.items()})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors as a file holds them."""
        return {f.name: getattr(self, f.name).detach().cpu().contiguous() for f in fields(self)}

    def to(self, device: torch.device) -> Aggregator:
        """A copy on another device."""
        return Aggregator(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def gather(self, question: Tensor, memories: Tensor) -> Tensor:
        """psi: gather what a question needs from memories, whose order does not matter.

        Args:
            question: Last states of the question's soft tokens, [q, d].
            memories: Those of all memories, one memory after another, [m, d].

        Returns:
            M*, [q, d].
        """
        queries = question @ self.query.T  # (q, d)
        keys = memories @ self.key.T  # (m, d)
        values = memories @ self.value.T  # (m, d)
        weights = (queries @ keys.T / queries.shape[1] ** 0.5).softmax(-1)  # (q, m)
        gathered: Tensor = weights @ values  # (q, d)
        return gathered

    def spread(self, gathered: Tensor) -> tuple[Tensor, Tensor]:
        """pi: make entries of every layer, without positions.

        Args:
            gathered: M*, [q, d].

        Returns:
            Keys and values, [layers, kv_heads, q, w] each.
        """
        layers, heads, size = self.shape.tolist()
        hidden = gelu(gathered @ self.narrow.T)  # (q, h)
        flat = hidden @ self.wide.T  # (q, L * 2 * KV * w)
        split = flat.reshape(len(gathered), layers, 2, heads, size)  # (q, L, 2, KV, w)
        made = split.permute(1, 2, 3, 0, 4)  # (L, 2, KV, q, w)
        return made[:, 0], made[:, 1]


@dataclass(frozen=True)
class AggregatedMethod(CompressionMethod):
    """Makes memories as `soft` does; reads all memories of a prompt together. The bare model reads
    question and answer.
    """

    lm: FrozenModel
    soft: SoftMethod
    aggregator: Aggregator | None  # None where the adapter lacks it: memories can be made only
    adapter_name: str = "none"  # the setting, for the error message
    adapter: ClassVar[str] = "bare"

    @classmethod
    def create(cls, lm: FrozenModel, settings: Settings, trained: TrainedParts) -> AggregatedMethod:
        """See CompressionMethod.create."""
        soft = SoftMethod.create(lm, settings, trained)
        aggregator = trained("aggregate", Aggregator.of)
        if aggregator is not None:
            aggregator = aggregator.to(lm.device)
        return cls(lm, soft, aggregator, settings.adapter)

    def fingerprint(self) -> Mapping[str, Any]:
        """That of `soft`: the memories are the same."""
        return self.soft.fingerprint()

    def compress(self, passages: Sequence[str]) -> list[CompressedPassage]:
        """See CompressionMethod.compress."""
        return self.soft.compress(passages)

    def is_valid(self, memory: CompressedPassage) -> bool:
        """See CompressionMethod.is_valid."""
        return self.soft.is_valid(memory)

    def positions(self, _memories: Sequence[CompressedPassage]) -> int:
        """None that depend on the memories."""
        return 0

    @torch.inference_mode()
    def cache(
        self,
        rows: Sequence[Sequence[CompressedPassage]],
        *,
        question: str = "",
        room: int = 0,
        bias: float = 0.0,  # with a question the memories are a set, and none is the best
    ) -> MemoryCache:
        """See CompressionMethod.cache. Without a question, memories are read as by `soft`.

        Raises:
            InvalidSetting: The adapter has no psi and pi.
        """
        if not question:
            return self.soft.cache(rows, room=room, bias=bias)
        made = stacked([self._row_cache(unpacked(row, self.lm), question) for row in rows])
        return made.with_room(room) if room else made

    def _row_cache(self, memories: Sequence[SoftTokens], question: str) -> MemoryCache:
        """The cache of one prompt: [prefix | q entries]; the prefix alone without memories."""
        lm = self.lm
        layers = lm.prefix_cache(1).layers
        keys: list[Tensor] = [layer.keys for layer in layers]  # (1, KV, prefix, w)
        values: list[Tensor] = [layer.values for layer in layers]
        count = 0
        if memories:
            new_keys, new_values = self._aggregated(memories, question)  # (L, KV, q, w) each
            count = new_keys.shape[2]
            for layer, (key, value) in enumerate(zip(new_keys, new_values, strict=True)):
                layer_keys = key[None].to(lm.dtype)  # (1, KV, q, w)
                layer_values = value[None].to(lm.dtype)
                keys[layer] = torch.cat([keys[layer], layer_keys], dim=2)  # (1, KV, prefix + q, w)
                values[layer] = torch.cat([values[layer], layer_values], dim=2)
        bias = [key.new_zeros(1, key.shape[1], 1, key.shape[2]) for key in keys]  # (1, KV, 1, n)
        start = len(lm.prefix_ids) + count  # the entries take up a position each
        return MemoryCache(keys, values, bias, [start], tokens_read=count)

    def _aggregated(self, memories: Sequence[SoftTokens], question: str) -> tuple[Tensor, Tensor]:
        """Keys and values [layers, kv_heads, q, w] of memories for a question of q soft tokens.

        Raises:
            InvalidSetting: The adapter has no psi and pi.
        """
        if self.aggregator is None:
            raise InvalidSetting(
                f"aggregation='cmt': the adapter {self.adapter_name!r} has no such part; make one"
                " with `cmt train --part cmt`, or use aggregation='concat'"
            )
        lm = self.lm
        with lm.activate("encoder"):
            (asked,) = self.soft.encode([lm.ids(question)])
            asked = replace(asked, rows=fake_quantize(asked.rows))  # as passages are stored
            queries, *bank = last_hidden_states(lm, [asked, *memories])  # (q, d), (m_i, d) each
        gathered = self.aggregator.gather(queries, torch.cat(bank))  # (q, d)
        return self.aggregator.spread(gathered)
