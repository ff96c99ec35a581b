"""A third compression method in one file: it stores the ids of every second token, as they are read
again. It shows how a method is added; nobody should use it.
"""

# ruff: noqa: D102 - the protocol describes the methods

from dataclasses import dataclass

import numpy as np
import torch

from cmt_sdk.config.methods import MethodInfo
from cmt_sdk.neural.cache import MemoryCache, stacked
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import CompressionMethod
from cmt_sdk.types import CompressedPassage

INFO = MethodInfo("tests.neural.toy_method:EverySecondToken", lambda _settings, _tokens: 0.5)


@dataclass(frozen=True)
class EverySecondToken(CompressionMethod):
    """Reads half of a passage's tokens, each at its own position."""

    lm: FrozenModel

    @classmethod
    def create(cls, lm, _settings, _trained):
        return cls(lm)

    def fingerprint(self):
        return {"compressor": "toy", "keep": 0.5}

    def compress(self, passages):
        ids = [self.lm.passage_ids(passage) for passage in passages]
        arrays = [{"ids": np.array(i[::2], "<u2").view(np.uint8)} for i in ids]
        return [CompressedPassage("toy", len(i), a) for i, a in zip(ids, arrays, strict=True)]

    def is_valid(self, memory):
        return memory.kind == "toy" and memory.arrays["ids"].size == 2 * -(-memory.tokens // 2)

    @torch.inference_mode()
    def cache(self, rows, *, question="", room=0, bias=0.0):
        made = stacked([self._read(row) for row in rows])
        return made.with_room(room) if room else made

    def _read(self, memories):
        cache = self.lm.prefix_cache(1)
        start = len(self.lm.prefix_ids)
        for memory in memories:
            ids = memory.arrays["ids"].view("<u2").astype(np.int64)[None]
            places = torch.arange(start, start + memory.tokens, 2)[None]
            self.lm.forward(cache, input_ids=torch.from_numpy(ids), position_ids=places)
            start += memory.tokens
        keys, values = zip(*((layer.keys, layer.values) for layer in cache.layers), strict=True)
        bias = [k.new_zeros(1, k.shape[1], 1, k.shape[2]) for k in keys]
        return MemoryCache(keys, values, bias, [start])
