"""Kv memories with gradients, and a cache of them: what `neural.methods.kv` stores and places, for
training. Knows no task.

A memory goes through the same four bits and the same choice of entries as in serving. In comments:
B passages or packs, L layers, KV key-value heads, n tokens of a passage, d values per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cmt_sdk.neural.batching import batches
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.methods.kvzip import top_share
from cmt_sdk.neural.quantization import KEY_GROUP, fake_quantize
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.reading.limits import NON_BEST_BIAS

AT_ONCE = 16384  # tokens of passages encoded in one pass, padding included, in every part


@dataclass(frozen=True)
class Entries:
    """A passage's memory with gradients.

    Attributes:
        keys: At position 0, after four bits, [layers, kv_heads, n, d].
        values: After four bits, the same shape.
        kept: bool [layers, kv_heads, n], True for the entries that are stored.
    """

    keys: Tensor
    values: Tensor
    kept: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The tensors through which gradients flow."""
        return self.keys, self.values

    def cut_off(self) -> Entries:
        """The same with gradients of its own, which end here."""
        keys, values = (t.detach().requires_grad_(t.requires_grad) for t in self.tensors)
        return Entries(keys, values, self.kept)

    def unpruned(self) -> Entries:
        """A copy with every entry stored."""
        return Entries(self.keys, self.values, torch.ones_like(self.kept))


def encode(
    lm: FrozenModel,
    rotary: Rotary,
    contents: Sequence[str],
    keeps: Sequence[float],
    *,
    rounding: bool = True,
) -> list[Entries]:
    """The passages' memories, by the adapter that is on.

    The scores that choose the kept entries have no gradient.

    Args:
        lm: The model.
        rotary: Its rotation.
        contents: The passages.
        keeps: Each passage's share of kept entries.
        rounding: Whether the entries go through the four bits that they are stored in.

    Returns:
        In the order given.
    """
    ids = [lm.passage_ids(content) for content in contents]
    made: dict[int, Entries] = {}  # by index of the passage
    for some in batches([len(i) for i in ids], AT_ONCE):
        chosen = [ids[i] for i in some]
        shares = [keeps[i] for i in some]
        encoded = _encode(lm, rotary, chosen, shares, rounding=rounding)
        made.update(zip(some, encoded, strict=True))
    return [made[i] for i in range(len(ids))]


def _encode(
    lm: FrozenModel,
    rotary: Rotary,
    ids: Sequence[list[int]],
    keeps: Sequence[float],
    *,
    rounding: bool,
) -> list[Entries]:
    """The memories of one batch.

    1. Encode the passages, with gradients, each read once.
    2. Encode those that are pruned a second time, without gradients, and with the repetition that
       gives the scores: holding its activations would double the memory.
    3. Send keys, without their head's mean, and values through four bits, as they are stored.
    4. Choose the kept entries of each passage.
    """
    keys, values, _ = KVMethod(lm, rotary).encode(ids)  # (B, L, KV, n, d) each
    pruned = [row for row, keep in enumerate(keeps) if keep < 1.0]
    scores = _repeat_scores(lm, rotary, [ids[row] for row in pruned])  # (pruned, L, KV, n)
    if rounding:
        mean = _stored_means(keys.detach(), [len(i) for i in ids])  # (B, L, KV, 1, d)
        keys = fake_quantize(keys - mean, KEY_GROUP) + mean
        values = fake_quantize(values)
    made = []
    for row, keep in enumerate(keeps):
        length = len(ids[row])
        own_keys = keys[row, :, :, :length]  # (L, KV, length, d)
        own_values = values[row, :, :, :length]
        kept = torch.ones(*own_keys.shape[:3], dtype=torch.bool, device=own_keys.device)
        if keep < 1.0:
            kept = top_share(scores[pruned.index(row)], length, keep)  # (L, KV, length)
        made.append(Entries(own_keys, own_values, kept))
    return made


@torch.no_grad()
def _repeat_scores(lm: FrozenModel, rotary: Rotary, ids: Sequence[list[int]]) -> Tensor:
    """Scores [b, layers, kv_heads, n] of passages, by the adapter that is on; empty for none."""
    # Any share below 1 makes KVMethod compute scores; the share itself does not change them.
    found = KVMethod(lm, rotary, 0.5).encode(ids)[2] if ids else None
    return torch.zeros(0) if found is None else found


def _stored_means(keys: Tensor, lengths: Sequence[int]) -> Tensor:
    """Each head's mean key of a passage's own tokens, as it is stored.

    Args:
        keys: [b, layers, kv_heads, n, d].
        lengths: Tokens of each passage.

    Returns:
        [b, layers, kv_heads, 1, d], fp32 after rounding to half precision.
    """
    counts = torch.tensor(lengths, device=keys.device)[:, None, None, None, None]  # (b, 1, 1, 1, 1)
    steps = torch.arange(keys.shape[3], device=keys.device)[:, None]  # (n, 1)
    inside = steps < counts  # (b, 1, 1, n, 1)
    mean: Tensor = (keys * inside).sum(3, keepdim=True) / counts
    return mean.half().float()


def kv_cache(lm: FrozenModel, rotary: Rotary, rows: Sequence[Sequence[Entries]]) -> MemoryCache:
    """Each row's memories behind the prompt's prefix, as `neural.methods.kv` lays them out.

    Entries that are not kept, and the padding of shorter rows, are closed by a bias of -inf instead
    of being left out: so all heads have the same entries, and one rotation serves all.

    Args:
        lm: The model.
        rotary: Its rotation.
        rows: The memories of each prompt, at least one each, in the order in which they are read.

    Returns:
        A cache without room, with gradients where the entries have some.
    """
    start = len(lm.prefix_ids)
    counts = [sum(m.keys.shape[2] for m in row) for row in rows]  # by row, tokens of its passages
    longest = max(counts)
    keys = torch.stack([_filled([m.keys for m in row], longest) for row in rows])
    layers = torch.arange(keys.shape[1], device=lm.device)[:, None, None]  # (L, 1, 1)
    # With every entry in place, slots and positions are the same.
    positions = torch.arange(start, start + longest, device=lm.device)  # (longest,)
    keys = rotary.rotate(keys, positions, layers).to(lm.dtype)  # (B, L, KV, longest, d)
    row_values = [_filled([m.values.to(lm.dtype) for m in row], longest) for row in rows]
    values = torch.stack(row_values)  # (B, L, KV, longest, d)
    row_biases = [_filled(_biases(row), longest, float("-inf")) for row in rows]
    bias = torch.stack(row_biases).to(lm.dtype)  # (B, L, KV, longest)
    all_keys: list[Tensor] = []
    all_values: list[Tensor] = []
    all_biases: list[Tensor] = []
    for layer, prefix in enumerate(lm.prefix_cache(len(rows)).layers):
        all_keys.append(torch.cat([prefix.keys, keys[:, layer]], dim=2))  # (B, KV, entries, d)
        all_values.append(torch.cat([prefix.values, values[:, layer]], dim=2))
        before = torch.zeros(*prefix.keys.shape[:3], dtype=lm.dtype, device=lm.device)
        joined = torch.cat([before, bias[:, layer]], dim=2)  # (B, KV, entries)
        all_biases.append(joined[:, :, None])  # (B, KV, 1, entries)
    return MemoryCache(all_keys, all_values, all_biases, [start + n for n in counts])


def _filled(parts: Sequence[Tensor], longest: int, filler: float = 0.0) -> Tensor:
    """Parts [layers, kv_heads, n, ...] joined along n and padded there to `longest`."""
    joined = torch.cat(list(parts), dim=2)
    missing = longest - joined.shape[2]
    extra = joined.new_full((*joined.shape[:2], missing, *joined.shape[3:]), filler)
    return torch.cat([joined, extra], dim=2)


def _biases(row: Sequence[Entries]) -> list[Tensor]:
    """The biases [layers, kv_heads, n] of each memory's entries: -inf for those not kept."""
    biases = [NON_BEST_BIAS] * (len(row) - 1) + [0.0]
    return [
        m.keys.new_full(m.kept.shape, bias).masked_fill(~m.kept, float("-inf"))
        for m, bias in zip(row, biases, strict=True)
    ]
