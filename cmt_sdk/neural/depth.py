"""Running a model's first layers alone, and its later ones from states that came from elsewhere.
Pure tensor code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cmt_sdk.neural.frozen import FrozenModel


class _Reached(Exception):
    """Ends a forward pass once the last layer that is needed has run."""


def states_after(lm: FrozenModel, tokens: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """Each token's states [n, t, d] after the given numbers of layers, behind the head of the
    prompt; later layers do not run.

    tokens [n, t]. By the adapter that is on, and with gradients where they are on.
    """
    taken: dict[int, Tensor] = {}
    last = max(layers)

    def take(layer: int) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            taken[layer] = args[0] if args else kwargs["hidden_states"]
            if layer == last:
                raise _Reached

        return hook

    # before the hooks: making the head's entries is a forward pass too
    cache = lm.head_cache(len(tokens))
    blocks = lm.blocks
    hooks = [
        blocks[n].register_forward_pre_hook(take(n), with_kwargs=True)
        for n in layers
        if n < len(blocks)
    ]
    head = len(lm.head_ids)
    # what fills rows up may reach beyond learned positions
    last_place = (lm.context or head + tokens.shape[1]) - 1
    positions = torch.arange(head, head + tokens.shape[1], device=tokens.device).clamp(
        max=last_place
    )[None]
    try:
        taken[len(blocks)] = lm.states(cache, input_ids=tokens, position_ids=positions)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return taken


@contextmanager
def watching(lm: FrozenModel, layers: Sequence[int]) -> Iterator[list[Tensor]]:
    """Within the block, the list that is given takes what these layers make [n, t, d], as they
    run.
    """
    taken: list[Tensor] = []

    def take(_module: Any, _args: tuple[Any, ...], made: Any) -> None:
        # some families also give attention weights
        taken.append(made if isinstance(made, Tensor) else made[0])

    hooks = [lm.blocks[layer].register_forward_hook(take) for layer in layers]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def entering(lm: FrozenModel, layer: int, states: Tensor) -> Iterator[None]:
    """Within the block, the model's layers from this number on run from `states` [n, t, d],
    whatever the first ones made.
    """

    def replace(
        _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (
            ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})
        )

    hook = lm.blocks[layer].register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
