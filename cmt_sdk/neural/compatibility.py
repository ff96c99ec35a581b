"""Tests on the model itself whether it reads cached entries as it reads text.

No list of names says which model families can: a few random tokens are read both ways, and the
relative difference is compared with what rounding explains. The checks of a method use these parts.
Knows no prompt and no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel

PASSAGE = 12  # tokens that are read as cached entries
QUESTION = 4  # tokens that read them
MOVED = 64  # positions by which row 1 is moved
MASKED = 5  # closed entries after the passage: some attention kernels read them all the same
# The largest relative difference that counts as rounding. Measured: below 1e-5 in fp32; in bf16
# 0.02 on SmolLM2-135M, up to 0.06 on random models. A wrong rotation changes a layer's keys by 0.8
# and more.
TOLERANCE = {torch.float32: 0.005}
TOLERANCE_ELSEWHERE = 0.2
ANY_KIND = "KV and soft"
NO_REMEDY = "use another model"


@dataclass(frozen=True)
class Probe:
    """The same random tokens read at position 0 (row 0) and moved (row 1).

    Attributes:
        ids: [2, PASSAGE + QUESTION].
        positions: The same shape.
        states: Last hidden states [2, PASSAGE + QUESTION, d].
        cache: transformers' cache with the tokens' entries.
    """

    ids: Tensor
    positions: Tensor
    states: Tensor
    cache: Any


def read_probe(lm: FrozenModel) -> Probe:
    """Read the random tokens, without the prompt's prefix, in one forward pass."""
    vocabulary = lm.model.get_input_embeddings().weight.shape[0]
    count = PASSAGE + QUESTION
    # The same tokens at every start: a model that passes once always passes.
    seeded = torch.Generator().manual_seed(0)
    drawn = torch.randint(vocabulary, (count,), generator=seeded)
    ids = drawn.to(lm.device).expand(2, -1)  # (2, count)
    steps = torch.arange(count, device=lm.device)
    positions = torch.stack([steps, steps + MOVED])  # (2, count)
    cache = DynamicCache()
    states = lm.forward(cache, input_ids=ids, position_ids=positions)  # (2, count, d)
    return Probe(ids, positions, states, cache)


def check_cached_reading(lm: FrozenModel, probe: Probe, keys: Sequence[Tensor], row: int) -> None:
    """Read the question's tokens after cached entries of the passage, and compare with the states
    of a row.

    The cache is laid out as a real one: [passage | closed entries | room for the question].

    Args:
        lm: The model.
        probe: The tokens, and the values of row 0.
        keys: By layer, [1, kv_heads, PASSAGE + QUESTION, d], at the positions of `row`.
        row: 0 or 1.

    Raises:
        ModelUnsupported: The states differ, or the model passes no cache to its attention.
    """
    open_bias = [k.new_zeros(1, k.shape[1], k.shape[2], 1) for k in keys]
    bias = [_with_masked(b, float("-inf")).transpose(2, 3) for b in open_bias]  # (1, KV, 1, n) each
    cache = MemoryCache(
        [_with_masked(k) for k in keys],
        [_with_masked(layer.values[:1]) for layer in probe.cache.layers],
        bias,
        [PASSAGE + row * MOVED],
        room=QUESTION,
    )
    question = probe.ids[row, None, PASSAGE:]  # (1, QUESTION)
    try:
        states = lm.forward(cache, **cache.inputs(question))[0]  # (QUESTION, d)
    except TypeError as error:  # a forward of its own that does not accept attention's arguments
        raise ModelUnsupported(
            f"{lm.family}: its layers do not pass memories on ({error}); use another model"
        ) from error
    problem = "its attention does not read notes as it reads text"
    compare(lm, states, probe.states[row, PASSAGE:], problem, ANY_KIND, NO_REMEDY)


def _with_masked(entries: Tensor, filler: float = 1.0) -> Tensor:
    """Entries [1, kv_heads, PASSAGE + QUESTION, ...] with MASKED closed ones after the passage:
    [1, kv_heads, PASSAGE + MASKED + QUESTION, ...].
    """
    passage = entries[:, :, :PASSAGE]
    room = entries[:, :, PASSAGE:]
    # Not zeros: a kernel that reads closed entries must change the result.
    closed = entries.new_full((*passage.shape[:2], MASKED, *passage.shape[3:]), filler)
    return torch.cat([passage, closed, room], dim=2)


def compare(
    lm: FrozenModel, got: Tensor, expected: Tensor, problem: str, kinds: str, remedy: str
) -> None:
    """Raise ModelUnsupported where two tensors differ by more than rounding explains.

    Args:
        lm: The model.
        got: Any shape.
        expected: The same shape.
        problem: What a difference means, for the message.
        kinds: The kinds of memories that cannot be read then.
        remedy: What the user can do.

    Raises:
        ModelUnsupported: The norm of their difference, relative to that of `expected`, is too
            large.
    """
    difference = float((got.float() - expected.float()).norm() / expected.float().norm())
    limit = TOLERANCE.get(lm.dtype, TOLERANCE_ELSEWHERE)
    if not difference <= limit:  # also for NaN
        raise ModelUnsupported(
            f"{lm.family}: {kinds} memories cannot be read by this model: {problem} (relative"
            f" difference {difference:.2g}, at most {limit} is rounding); {remedy}"
        )
