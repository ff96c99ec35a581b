"""Activation checkpointing: a layer keeps its input, and computes the rest again for its gradients
(Chen et al. 2016, arXiv 1604.06174).

A step takes about a third longer, and holds a fraction of the memory. Since every layer runs twice,
a cache must not take its keys and values twice: `_OnePassCache`. Knows no task.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from cmt_sdk.neural.frozen import FrozenModel


class CheckpointedModel(FrozenModel):
    """A frozen model whose layers compute twice where gradients are on.

    `trainable` makes one per model.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for block in self.blocks:
            # `dataclasses.replace` makes another instance over the same layers
            if not isinstance(block.forward, partial):
                block.forward = partial(_forward, block.forward)

    def prefix_cache(self, batch: int) -> DynamicCache:
        """As FrozenModel's, for one pass."""
        return _OnePassCache(super().prefix_cache(batch))


def _forward(forward: Any, *inputs: Any, **named: Any) -> Any:
    """A layer's forward, checkpointed where gradients are on."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    # No layer draws random numbers: dropout is off.
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)


class _OnePassCache(DynamicCache):  # type: ignore[misc] # transformers ships no types
    """The prefix's entries and those of one pass.

    A layer that is called again finds the prefix alone, as in its first call.

    Args:
        prefix: A cache of the prefix alone.
    """

    def __init__(self, prefix: DynamicCache) -> None:
        super().__init__()
        self._prefix = [(layer.keys, layer.values) for layer in prefix.layers]
        self._passed = [False] * len(self._prefix)  # by layer, whether it was called
        for number, (keys, values) in enumerate(self._prefix):
            super().update(keys, values, number)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values to a layer; only those of its first call stay.

        Args:
            key_states: [b, kv_heads, m, d].
            value_states: The same shape.
            layer_idx: Number of the layer.

        Returns:
            Keys and values [b, kv_heads, prefix + m, d].
        """
        prefix_keys, prefix_values = self._prefix[layer_idx]  # (b, kv_heads, prefix, d) each
        keys = torch.cat([prefix_keys, key_states], dim=2)  # (b, kv_heads, prefix + m, d)
        values = torch.cat([prefix_values, value_states], dim=2)
        if not self._passed[layer_idx]:
            self._passed[layer_idx] = True
            self.layers[layer_idx].keys = keys
            self.layers[layer_idx].values = values
        return keys, values
