"""Partial forward passes: the first layers alone, all layers up to the last one's entries, or the
later layers from given states. Pure tensor code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

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

    def input_hook(layer: int) -> Any:
        """A hook that takes the input of layer `layer`: the states after that many layers."""

        def take_input(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            taken[layer] = args[0] if args else kwargs["hidden_states"]
            if layer == last:
                raise _Reached

        return take_input

    # Before the hooks are set: making the prefix's entries is a forward pass too.
    cache = lm.prefix_cache(len(tokens))
    blocks = lm.blocks
    # The states after all layers are no layer's input: the complete pass returns them.
    hooks = [
        blocks[n].register_forward_pre_hook(input_hook(n), with_kwargs=True)
        for n in layers
        if n < len(blocks)
    ]
    start = len(lm.prefix_ids)
    end = start + tokens.shape[1]
    # Padding may reach beyond learned positions (GPT-2): it repeats the last one.
    last_position = (lm.context or end) - 1
    positions = torch.arange(start, end, device=tokens.device).clamp(max=last_position)
    with _until_reached(hooks):
        taken[len(blocks)] = lm.forward(cache, input_ids=tokens, position_ids=positions[None])
    return taken


@contextmanager
def _until_reached(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    """A forward pass within the block may end with _Reached; the hooks are removed after it."""
    try:
        yield
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()


class _Stop:
    """Watches attention, and ends the pass at a layer, whose entries the cache has by then."""

    def __init__(self, layer: int) -> None:
        self._layer = layer

    def see(self, layer: int, *_: object) -> None:
        """See attention.Watch."""
        if layer == self._layer:
            raise _Reached


def run_entries(lm: FrozenModel, cache: Any, **inputs: Any) -> list[Tensor]:
    """Run tokens until the cache has their entries in all layers; the last layer does no more.

    By the adapter that is on, without gradients.

    Args:
        lm: The model.
        cache: A cache of transformers, which takes the entries.
        inputs: input_ids [batch, n] and other arguments of the model's forward.

    Returns:
        What each layer gets, [batch, n, d] each.
    """
    taken: list[Tensor] = []

    def take_input(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taken.append(args[0] if args else kwargs["hidden_states"])

    hooks = [b.register_forward_pre_hook(take_input, with_kwargs=True) for b in lm.blocks]
    with _until_reached(hooks):
        lm.forward(cache, **inputs, watch=_Stop(len(lm.blocks) - 1))
    return taken


@contextmanager
def run_from(lm: FrozenModel, layer: int, states: Tensor) -> Iterator[None]:
    """Within the block, layers from this number on run from given states and ignore the outputs of
    the layers before, which run all the same.

    Args:
        lm: The model.
        layer: Number of the first layer that runs from the states.
        states: [n, t, d], of the type that the model computes in.
    """

    def replace_input(
        _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (states, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": states}  # some families name every argument

    hook = lm.blocks[layer].register_forward_pre_hook(replace_input, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def capture(lm: FrozenModel, layers: Sequence[int]) -> Iterator[list[Tensor]]:
    """Within the block, the list that is yielded collects the outputs of these layers as they run.

    Args:
        lm: The model.
        layers: Numbers of layers.

    Yields:
        The list; after one forward pass it has one output [n, t, d] per layer, first layer first.
    """
    taken: list[Tensor] = []

    def take_output(_module: Any, _args: tuple[Any, ...], output: Any) -> None:
        # Some families return attention weights too.
        taken.append(output if isinstance(output, Tensor) else output[0])

    hooks = [lm.blocks[layer].register_forward_hook(take_output) for layer in layers]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()
