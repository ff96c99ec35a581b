"""Proof, on the model itself, that its memories can be read. KV memories: made at one place and
read at another, nothing changes. Soft memories: the later layers go on from states of the first
ones, and read notes as they read text.

Which families can is not a list of names: a few random tokens are read both ways. Knows no prompt
and no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.reading import Prefix, causal
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.soft import SoftCompressor, depth, notes_of

# tokens read as notes, tokens that read them, and by how far the notes are moved
NOTES, ASKED, MOVED = 12, 4, 64
MASKED = 5  # entries that nobody may see: there are attention kernels that look at them
# The largest relative difference that is taken for rounding. Measured: below 1e-5 in fp32; in bf16
# 0.02 on SmolLM2-135M, up to 0.06 on random models; a wrong turn changes a layer's keys by 0.8 and
# more.
TOLERANCE = {torch.float32: 0.005}
TOLERANCE_ELSEWHERE = 0.2
NOT_AS_TEXT, BOTH = "its attention does not read notes as it reads text", "KV and soft"


@dataclass(frozen=True)
class _Read:
    """The same tokens at their own place (row 0) and moved (row 1): states [2, n, d], and the cache
    with their entries.
    """

    ids: Tensor
    positions: Tensor
    states: Tensor
    cache: Any


@torch.inference_mode()
def kv_rotary(lm: FrozenModel) -> Rotary:
    """The model's rotation, after the proof that memories turned by it are read as the text would
    be.

    Two short forward passes. Raises ModelUnsupported, with the difference that was measured.
    """
    rotary = Rotary(lm.model)
    read = _read(lm)
    _compare(lm, read.states[1], read.states[0], "what it says depends on where a text stands")
    moved = [_moved(rotary, read, layer) for layer in range(len(read.cache.layers))]
    for number, (layer, keys) in enumerate(zip(read.cache.layers, moved, strict=True)):
        _compare(
            lm,
            keys,
            layer.keys[1:],
            f"the keys of layer {number} are not moved by the turn of its rotary positions",
        )
    _compare(lm, _read_notes(lm, read, moved, 1), read.states[1, NOTES:], NOT_AS_TEXT, BOTH)
    first = lm.model(input_ids=read.ids[:1, :1], use_cache=False).logits[0]
    _compare(lm, lm.logits(read.states[0, :1]), first, "its output layer does more than multiply")
    return rotary


@torch.inference_mode()
def goes_on(lm: FrozenModel) -> None:
    """The proof for soft memories. Five short forward passes; raises ModelUnsupported, with the
    difference that was measured.
    """
    read, first = _read(lm), depth(lm)
    own = [layer.keys[:1] for layer in read.cache.layers]
    _compare(lm, _read_notes(lm, read, own, 0), read.states[0, NOTES:], NOT_AS_TEXT, BOTH)
    (made,) = SoftCompressor(lm, 1).forward([read.ids[0].tolist()])
    cache, head = lm.head_cache(1), len(lm.head_ids)
    lm.states(cache, input_ids=read.ids[:1], position_ids=read.positions[:1] + head)
    for number, (layer, keys) in enumerate(
        zip(cache.layers, notes_of(lm, [[made]]).keys, strict=True)
    ):
        if number >= first:
            problem = f"layer {number} does not go on from states of layer {first}"
            _compare(lm, keys[:, :, head:], layer.keys[:, :, head:], problem, "soft")


def _read(lm: FrozenModel) -> _Read:
    vocabulary = lm.model.get_input_embeddings().weight.shape[0]
    count = NOTES + ASKED
    ids = (
        torch.randint(vocabulary, (count,), generator=torch.Generator().manual_seed(0))
        .to(lm.device)
        .expand(2, -1)
    )
    steps = torch.arange(count, device=lm.device)
    positions = torch.stack([steps, steps + MOVED])
    cache = DynamicCache()
    return _Read(ids, positions, lm.states(cache, input_ids=ids, position_ids=positions), cache)


def _moved(rotary: Rotary, read: _Read, layer: int) -> Tensor:
    """A layer's keys [1, kv_heads, n, d] of row 0, turned to the positions of row 1."""
    keys = read.cache.layers[layer].keys[:1]
    layers = torch.full_like(read.positions[0], layer)
    back = rotary.turn_back(keys, read.positions[0], layers)
    return rotary.turn(back, read.positions[1], layers).to(keys.dtype)


def _read_notes(lm: FrozenModel, read: _Read, keys: list[Tensor], row: int) -> Tensor:
    """States [ASKED, d] of a row's last tokens, which read the entries of those before them as
    notes.
    """
    values = [_among_masked(layer.values[:1]) for layer in read.cache.layers]
    bias = [
        _among_masked(k.new_zeros(1, k.shape[1], k.shape[2], 1), float("-inf")).transpose(2, 3)
        for k in keys
    ]
    entries = [NOTES + MASKED] * len(keys)
    notes = Prefix([_among_masked(k) for k in keys], values, bias, entries, NOTES + row * MOVED)
    asked = {
        "input_ids": read.ids[row, None, NOTES:],
        "position_ids": read.positions[row, None, NOTES:],
    }
    try:
        return lm.states(notes, **asked, attention_mask=causal(ASKED, bias[0]), notes=notes)[0]
    except TypeError as error:  # a forward of its own, to which attention's arguments mean nothing
        raise ModelUnsupported(
            f"{lm.family}: its layers do not pass notes on ({error}); use another model"
        ) from error


def _among_masked(entries: Tensor, filler: float = 1.0) -> Tensor:
    """Entries [1, kv_heads, NOTES + room, ...] with the masked ones behind the notes."""
    notes, room = entries[:, :, :NOTES], entries[:, :, NOTES:]
    return torch.cat(
        [notes, entries.new_full((*notes.shape[:2], MASKED, *notes.shape[3:]), filler), room], dim=2
    )


def _compare(
    lm: FrozenModel, got: Tensor, expected: Tensor, problem: str, kind: str = "KV"
) -> None:
    difference = float((got.float() - expected.float()).norm() / expected.float().norm())
    limit = TOLERANCE.get(lm.dtype, TOLERANCE_ELSEWHERE)
    if not difference <= limit:  # not a number is a difference too
        remedy = (
            "use another model, or compressor='soft' after `cmt train --part soft`"
            if kind == "KV"
            else "use another model"
        )
        raise ModelUnsupported(
            f"{lm.family}: {kind} memories cannot be read by this model: {problem} (relative"
            f" difference {difference:.2g}, at most {limit} is rounding); {remedy}"
        )
