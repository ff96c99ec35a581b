"""Partial forward passes: the first layers alone, or the later ones from given states. Pure tensor
code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cmt_sdk.neural.frozen import FrozenModel


class _Reached(Exception):
    """Ends a forward pass after the last layer that is needed."""


def run_until(lm: FrozenModel, tokens: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """Run tokens behind the prompt's prefix through the first layers only.

    By the adapter that is on, and with gradients where they are on.

    Args:
        lm: The model.
        tokens: Ids [n, t].
        layers: Numbers of layers after which states are taken; layers after the largest one do not
            run.

    Returns:
        By number of layers, the states [n, t, d] of the tokens.
    """
    taken: dict[int, Tensor] = {}
    last = max(layers)

    def take(layer: int) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            taken[layer] = args[0] if args else kwargs["hidden_states"]
            if layer == last:
                raise _Reached

        return hook

    # Before the hooks are set: making the prefix's entries is a forward pass too.
    cache = lm.prefix_cache(len(tokens))
    blocks = lm.blocks
    hooks = [
        blocks[n].register_forward_pre_hook(take(n), with_kwargs=True)
        for n in layers
        if n < len(blocks)
    ]
    start = len(lm.prefix_ids)
    end = start + tokens.shape[1]
    # Padding may reach beyond learned positions (GPT-2): it repeats the last one.
    last_position = (lm.context or end) - 1
    positions = torch.arange(start, end, device=tokens.device).clamp(max=last_position)[None]
    try:
        taken[len(blocks)] = lm.forward(cache, input_ids=tokens, position_ids=positions)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return taken


@contextmanager
def run_from(lm: FrozenModel, layer: int, states: Tensor) -> Iterator[None]:
    """Within the block, layers from this number on run from `states` [n, t, d] and ignore the
    outputs of the layers before.
    """

    def replace(
        _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (states, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": states}

    hook = lm.blocks[layer].register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def capture(lm: FrozenModel, layers: Sequence[int]) -> Iterator[list[Tensor]]:
    """Within the block, the list that is yielded collects the outputs [n, t, d] of these layers as
    they run.
    """
    taken: list[Tensor] = []

    def take(_module: Any, _args: tuple[Any, ...], output: Any) -> None:
        # some families return attention weights too
        taken.append(output if isinstance(output, Tensor) else output[0])

    hooks = [lm.blocks[layer].register_forward_hook(take) for layer in layers]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()
