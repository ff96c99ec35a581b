"""Soft tokens, and how the later layers of a model read them. Knows no memory and no bits.

Soft tokens run through the layers from `merge_layer` on as tokens do, each at the position where
its window ends. In attention each counts as often as its window has tokens (proportional attention
of ToMe, Bolya et al. 2023, arXiv 2210.09461, section 3): the log of the window's length is added to
its logits. Passages are read apart from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.partial_forward import run_from

# The share of the model's layers that a passage runs through: 4 of 30. After fewer layers the
# states know too little, after more they lose the words.
EARLY_LAYERS = 0.13


@dataclass(frozen=True)
class SoftTokens:
    """A passage's soft tokens.

    Attributes:
        rows: fp32 [m, d].
        ends: int64 [m], on the CPU: the last token of each one's window.
    """

    rows: Tensor
    ends: Tensor

    @property
    def sizes(self) -> Tensor:
        """Tokens in each window, int64 [m]."""
        return window_sizes(self.ends)

    @property
    def tokens(self) -> int:
        """Tokens of the passage."""
        return int(self.ends[-1]) + 1


def window_sizes(ends: Tensor) -> Tensor:
    """Tokens in each of a passage's windows, int64 [m], from their last tokens [m]."""
    return torch.diff(ends, prepend=ends.new_full((1,), -1))


def merge_layer(lm: FrozenModel) -> int:
    """The number of layers that a passage runs through before its states are merged."""
    return max(1, round(EARLY_LAYERS * len(lm.blocks)))


def soft_cache(
    lm: FrozenModel, rows: Sequence[Sequence[SoftTokens]], bias: float = 0.0
) -> MemoryCache:
    """Each row's soft tokens one memory after another behind the prefix, by the adapter that is on.

    Each memory is processed alone. Layers below `merge_layer` have entries of the prefix only.

    Args:
        lm: The model.
        rows: The memories of each prompt, in the order in which they are read.
        bias: Added to the attention logits of all memories of a row but the last.

    Returns:
        A cache without room, with gradients where the rows have some.
    """
    prefix_length = len(lm.prefix_ids)
    # row i: (memories + 1,) where each memory begins, and where the last one ends
    starts = [np.cumsum([prefix_length, *(m.tokens for m in row)]) for row in rows]
    memories = [m for row in rows for m in row]
    begins = [int(start) for row in starts for start in row[:-1]]
    # All memories of all rows in one pass, each as a row of its own.
    entries = _run_later_layers(lm, memories, begins).entries if memories else []
    index, biases = _layout(rows, bias)
    index = index.to(lm.device)  # (B, n)
    biases = biases[:, None, None].to(lm.device, lm.dtype)  # (B, 1, 1, n)
    all_keys: list[Tensor] = []
    all_values: list[Tensor] = []
    all_biases: list[Tensor] = []
    for layer, prefix in enumerate(lm.prefix_cache(len(rows)).layers):
        keys = prefix.keys  # (B, KV, prefix, w)
        values = prefix.values
        layer_bias = keys.new_zeros(len(rows), 1, 1, prefix_length)
        if layer >= merge_layer(lm) and memories:
            layer_keys, layer_values = entries[layer]  # (memories, KV, most, w) each
            keys = torch.cat([keys, _gathered(layer_keys, index)], dim=2)  # (B, KV, prefix + n, w)
            values = torch.cat([values, _gathered(layer_values, index)], dim=2)
            layer_bias = torch.cat([layer_bias, biases], dim=3)  # (B, 1, 1, prefix + n)
        all_keys.append(keys)
        all_values.append(values)
        all_biases.append(layer_bias.expand(-1, keys.shape[1], -1, -1))  # (B, KV, 1, prefix + n)
    read = sum(len(m.ends) for m in memories)
    return MemoryCache(
        all_keys, all_values, all_biases, [int(row[-1]) for row in starts], tokens_read=read
    )


def _layout(rows: Sequence[Sequence[SoftTokens]], bias: float) -> tuple[Tensor, Tensor]:
    """Where each row's entries are, and their biases.

    Args:
        rows: The memories of each prompt.
        bias: Added for all memories of a row but the last.

    Returns:
        index int64 [rows, n]: of each entry among those of all memories, where memory k begins at k
        times the longest memory's length. biases fp32 [rows, n]: the log of the window's length,
        plus `bias` for all memories but the last; -inf pads a row.
    """
    longest = max((len(m.ends) for row in rows for m in row), default=0)
    index = []
    biases = []
    number = 0  # of the memory, over all rows
    for row in rows:
        row_index = [torch.zeros(0, dtype=torch.int64)]  # a row may have no memories
        row_biases = [torch.zeros(0)]
        for n, memory in enumerate(row):
            row_index.append(number * longest + torch.arange(len(memory.ends)))
            is_best = n == len(row) - 1
            # exp(log k + logit): the softmax counts a window of k tokens k times (ToMe, eq. 1).
            row_biases.append(memory.sizes.float().log() + (0.0 if is_best else bias))
            number += 1
        index.append(torch.cat(row_index))
        biases.append(torch.cat(row_biases))
    padded_index = pad_sequence(index, batch_first=True)  # (rows, n)
    padded_biases = pad_sequence(biases, batch_first=True, padding_value=float("-inf"))
    return padded_index, padded_biases


def _gathered(entries: Tensor, index: Tensor) -> Tensor:
    """Entries chosen by an index into their first and third axes together.

    index_select instead of indexing: on a GPU the gradient of indexing is slow where one index
    repeats often, as that of padding does.

    Args:
        entries: [b, kv_heads, n, w].
        index: [rows, m]; entry i of row r has the index r * n + i.

    Returns:
        [rows, kv_heads, m, w].
    """
    flat = entries.transpose(1, 2).flatten(0, 1)  # (b * n, KV, w)
    found = flat.index_select(0, index.flatten())  # (rows * m, KV, w)
    by_row = found.reshape(*index.shape, *flat.shape[1:])  # (rows, m, KV, w)
    return by_row.transpose(1, 2)  # (rows, KV, m, w)


def last_hidden_states(lm: FrozenModel, softs: Sequence[SoftTokens]) -> list[Tensor]:
    """The last layer's states of each passage's soft tokens, read alone behind the prefix, by the
    adapter that is on.

    Args:
        lm: The model.
        softs: The soft tokens of each passage, at least one passage.

    Returns:
        In the order given, fp32 [m, d].
    """
    read = _run_later_layers(lm, softs, [len(lm.prefix_ids)] * len(softs))
    return [row[: len(s.ends)].float() for row, s in zip(read.states, softs, strict=True)]


@dataclass(frozen=True)
class _LaterLayers:
    """What the later layers make of b passages' soft tokens, padded to the most.

    Attributes:
        states: Last hidden states [b, most, d].
        entries: By layer, keys and values [b, kv_heads, most, w] each.
    """

    states: Tensor
    entries: list[tuple[Tensor, Tensor]]


def _run_later_layers(
    lm: FrozenModel, softs: Sequence[SoftTokens], starts: Sequence[int]
) -> _LaterLayers:
    """Run soft tokens through the layers from `merge_layer` on, each passage alone.

    Outputs of layers below merge_layer are meaningless here; do not use them.

    1. Pad the soft tokens to rows of one length. Padding is behind them: causal attention hides it.
    2. Each has the position of its window's last token.
    3. Each sees the prefix, and those before it with the log of their window's length added.
    4. One forward pass, in which the states replace the input of layer `merge_layer`.

    Args:
        lm: The model.
        softs: The soft tokens of each passage.
        starts: The position at which each passage begins.
    """
    rows = pad_sequence([s.rows for s in softs], batch_first=True).to(lm.dtype)  # (b, most, d)
    ends = [s.ends + start for s, start in zip(softs, starts, strict=True)]
    positions = pad_sequence(ends, batch_first=True).to(lm.device)  # (b, most)
    log_sizes = [s.sizes.float().log() for s in softs]
    weights = pad_sequence(log_sizes, batch_first=True).to(lm.device)  # (b, most)
    prefix_length = len(lm.prefix_ids)
    most = rows.shape[1]
    causal = torch.full((most, most), float("-inf"), device=rows.device).triu(1)  # (most, most)
    among = causal + weights[:, None, None]  # (b, 1, most, most): a key counts as its window
    before = among.new_zeros(len(softs), 1, most, prefix_length)
    mask = torch.cat([before, among], dim=3).to(lm.dtype)  # (b, 1, most, prefix + most)
    cache = lm.prefix_cache(len(softs))
    with run_from(lm, merge_layer(lm), rows):
        states = lm.forward(
            cache,
            inputs_embeds=rows.detach(),  # the layers below run on anything of this shape
            position_ids=positions,
            attention_mask=mask,
        )
    entries = [
        (layer.keys[:, :, prefix_length:], layer.values[:, :, prefix_length:])
        for layer in cache.layers
    ]
    return _LaterLayers(states, entries)
