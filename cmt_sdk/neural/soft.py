"""The `soft` compressor: windows of a passage's states become soft tokens (CMT, arXiv 2412.07393),
merged where little is lost.

A passage runs through the first layers of the frozen model, with the encoder adapter. Neighbouring
states that differ least are merged, by Ward's criterion (Ward 1963), until one in `ratio` is left;
a soft token is the sum of its window over the root of the window's length. Read, soft tokens go on
from that layer as tokens do, each where its window ends, and count in attention as often as it had
tokens (ToMe, Bolya et al. 2023, arXiv 2210.09461). Question and answer attend to them from that
layer on. Where positions are learned and added at the input (GPT-2), a soft token keeps those it
was made at.

Measured on questions about held-out titles, nothing trained for it, nats an answer token (text
0.47, none 3.3): windows of four embeddings in a row 3.7, of four states after four layers 2.6,
merged by how much they differ 2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad, rms_norm
from torch.nn.utils.rnn import pad_sequence

from cmt_sdk.errors import InvalidInput, ModelUnsupported
from cmt_sdk.neural.abreast import Abreast
from cmt_sdk.neural.depth import entering, states_after
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import LONGEST, batches, codes_of, is_coded, padded
from cmt_sdk.neural.quantization import GROUP, dequantize, quantize
from cmt_sdk.neural.reading import Prefix
from cmt_sdk.types import PackedMemory

Array: TypeAlias = NDArray[Any]
# of the model's layers, that a passage runs through: 4 of 30; fewer know too little, more forget
# the words
SHARE = 0.13


@dataclass(frozen=True)
class Soft:
    """A passage's soft tokens: rows [m, d] fp32; ends int64 [m], on the CPU, the last token of each
    one's window.
    """

    rows: Tensor
    ends: Tensor

    @property
    def sizes(self) -> Tensor:
        """Tokens in each window, int64 [m]."""
        return torch.diff(self.ends, prepend=self.ends.new_full((1,), -1))

    @property
    def tokens(self) -> int:
        """Tokens of the passage."""
        return int(self.ends[-1]) + 1


@dataclass(frozen=True)
class Notes:
    """Soft memories as entries to attend to, by layer: keys and values [b, kv_heads, n, w], bias
    [b, kv_heads, 1, n], with the prompt's head first. starts: the position of each row's first new
    token.
    """

    keys: list[Tensor]
    values: list[Tensor]
    bias: list[Tensor]
    starts: list[int]

    def abreast(self) -> Abreast:
        """A cache for one reading by every row."""
        return Abreast(self.keys, self.values, self.bias, self.starts)

    def prefix(self, room: int) -> Prefix:
        """A cache for the one row there is, with room for `room` new tokens."""
        keys, values = (
            [pad(t, (0, 0, 0, room)) for t in side] for side in (self.keys, self.values)
        )
        return Prefix(
            keys,
            values,
            [pad(b, (0, room)) for b in self.bias],
            [k.shape[2] for k in self.keys],
            self.starts[0],
        )


def depth(lm: FrozenModel) -> int:
    """How many layers a passage runs through before its states are merged."""
    return max(1, round(SHARE * len(lm.blocks)))


def windows(states: Tensor, lengths: Sequence[int], counts: Sequence[int]) -> list[Tensor]:
    """Where each of `counts` windows over rows of states [b, n, d] with these lengths ends, int64
    on the CPU: neighbours whose merging adds least squared error go first. All rows go a step at a
    time, side by side.
    """
    rows, longest = np.arange(len(states))[:, None], states.shape[1]
    length, surplus = np.array(lengths)[:, None], np.subtract(lengths, counts)[:, None]
    with torch.autocast(states.device.type, enabled=False):
        products = states @ states.mT
        # which MPS has not
        products = products.to(
            "cpu" if states.device.type == "mps" else states.device, torch.float64
        )
    products = products.cumsum(1).cumsum(2)
    # [b, i, j]: of all states before i times all before j
    sums = pad(products, (1, 0, 1, 0)).cpu().numpy()
    del products  # of a long passage it is large
    places = np.arange(longest + 1)[None].repeat(len(states), axis=0)  # the last one is nowhere
    ends = np.minimum(places + 1, longest)  # of the window that begins here
    before = np.roll(places, 1, axis=1)  # where the window before it begins
    begins, cost = places < length, _prices(sums, ends, places, length)
    for done in range(surplus.max(initial=0)):
        start = np.where(done < surplus, cost.argmin(1)[:, None], longest)
        gone = ends[rows, start]
        after = ends[rows, gone]
        ends[rows, start], before[rows, after] = after, start
        begins[rows, gone], cost[rows, gone] = False, np.inf
        changed = np.concatenate([start, before[rows, start]], axis=1)
        cost[rows, changed] = _prices(sums, ends, changed, length)
    return [torch.from_numpy(row[kept] - 1) for row, kept in zip(ends, begins, strict=True)]


def _prices(sums: Array, ends: Array, starts: Array, length: Array) -> Array:
    """The squared error that is added where the windows that begin here [b, k] are merged with the
    next; inf for the last.

    sums [b, n + 1, n + 1], ends [b, n + 1] and length [b, 1] as in `windows`.
    """
    rows = np.arange(len(sums))[:, None]
    middles = ends[rows, starts]
    stops = ends[rows, middles]
    left, right = np.maximum(middles - starts, 1), np.maximum(stops - middles, 1)
    to_middle, to_stop, within = (
        sums[rows, starts, middles],
        sums[rows, starts, stops],
        sums[rows, middles, middles],
    )
    across = sums[rows, middles, stops]
    # the squared norm of the window's sum
    first = within - 2 * to_middle + sums[rows, starts, starts]
    second = sums[rows, stops, stops] - 2 * across + within
    both = across - to_stop - within + to_middle
    # the squared distance between their means
    apart = first / left**2 + second / right**2 - 2 * both / (left * right)
    return np.where(middles < length, left * right / (left + right) * apart, np.inf)


@dataclass(frozen=True)
class SoftCompressor:
    """Packs passages to `ceil(tokens / ratio)` soft tokens each."""

    lm: FrozenModel
    ratio: int

    def __post_init__(self) -> None:
        width = self.lm.model.get_input_embeddings().weight.shape[1]
        if width % GROUP:
            raise ModelUnsupported(
                f"embeddings of {width} values: soft memories need a multiple of {GROUP}"
            )
        if depth(self.lm) >= len(self.lm.blocks):
            raise ModelUnsupported(
                f"a model of {len(self.lm.blocks)} layers: soft memories need a later one to go on"
                " from"
            )
        if (inner := self.lm.model.config.get_text_config().hidden_size) != width:
            raise ModelUnsupported(
                f"embeddings of {width} values, states of {inner}: soft memories need them alike"
            )

    def forward(self, ids: Sequence[list[int]]) -> list[Soft]:
        """The passages' soft tokens, by the adapter that is on, with gradients where they are on.

        Raises InvalidInput for a passage that is longer than the model's context.
        """
        room = (self.lm.context or LONGEST) - len(self.lm.head_ids)
        if (most := max(map(len, ids), default=0)) > room:
            raise InvalidInput(
                f"a passage of {most} tokens; behind the prompt's head this model holds {room}: cut"
                " it shorter"
            )
        tokens, after = padded(ids, self.lm.device, self.lm.end_id), depth(self.lm)
        states = states_after(self.lm, tokens, [after])[after].float()
        lengths, made = [len(i) for i in ids], []
        found = windows(
            rms_norm(states.detach(), states.shape[-1:]),
            lengths,
            [-(-n // self.ratio) for n in lengths],
        )
        for row, ends, length in zip(states, found, lengths, strict=True):
            sizes = Soft(row, ends).sizes.to(row.device)
            owner = torch.repeat_interleave(sizes, output_size=length)
            sums = row.new_zeros(len(ends), row.shape[1]).index_add(0, owner, row[:length])
            made.append(Soft(sums / sizes.sqrt()[:, None], ends))
        return made

    def reads(self, memory: PackedMemory) -> bool:
        """Whether a memory is whole, and one of this model's at this ratio."""
        width, ends = (
            self.lm.model.get_input_embeddings().weight.shape[1],
            memory.arrays.get("soft_ends"),
        )
        if memory.kind != "soft" or not 0 < memory.tokens <= LONGEST or ends is None:
            return False
        count = -(-memory.tokens // self.ratio)
        if (ends.dtype, ends.shape) != (np.dtype(np.uint8), (count, 2)):
            return False
        rising = np.diff(_ends(memory), prepend=-1) > 0
        return (
            bool(rising.all())
            and _ends(memory)[-1] == memory.tokens - 1
            and is_coded(memory, "soft", count, width)
        )

    @torch.inference_mode()
    def pack(self, contents: Sequence[str]) -> list[PackedMemory]:
        """One memory a passage, in the order given."""
        ids = [self.lm.passage_ids(c) for c in contents]
        packed: dict[int, PackedMemory] = {}
        with self.lm.activate("encoder"):
            for batch in batches([len(i) for i in ids]):
                packed.update(
                    zip(batch, map(_packed, self.forward([ids[i] for i in batch])), strict=True)
                )
        return [packed[i] for i in range(len(ids))]


def _packed(soft: Soft) -> PackedMemory:
    codes = quantize(soft.rows)
    arrays = {
        "soft_codes": codes.codes.cpu().numpy(),
        "soft_scales": codes.scales.cpu().numpy(),
        "soft_ends": soft.ends.numpy().astype("<u2")[:, None].view(np.uint8),
    }
    return PackedMemory("soft", soft.tokens, arrays)


def _ends(memory: PackedMemory) -> NDArray[np.int64]:
    """Where each window ends, from pairs of bytes."""
    return memory.arrays["soft_ends"].view("<u2")[:, 0].astype(np.int64)


def unpacked(memories: Sequence[PackedMemory], lm: FrozenModel) -> list[Soft]:
    """The memories' soft tokens, as they come back from four bits."""
    pairs = [(dequantize(codes_of(m, "soft")), torch.from_numpy(_ends(m))) for m in memories]
    return [Soft(rows.to(lm.device), ends) for rows, ends in pairs]


def notes_of(lm: FrozenModel, rows: Sequence[Sequence[Soft]], prior: float = 0.0) -> Notes:
    """Each row's memories one after another behind the head, each read alone, by the adapter that
    is on.

    `prior` is added to the attention logits of all memories of a row but the last.
    """
    head, first, places = (
        len(lm.head_ids),
        depth(lm),
        [np.cumsum([len(lm.head_ids), *(m.tokens for m in row)]) for row in rows],
    )
    notes = Notes([], [], [], [int(at[-1]) for at in places])
    flat, begun = (
        [m for row in rows for m in row],
        [int(start) for at in places for start in at[:-1]],
    )
    told = _read(lm, flat, begun)[1] if flat else []
    numbers, weights = _laid_out(rows, prior)
    numbers, weights = numbers.to(lm.device), weights[:, None, None].to(lm.device, lm.dtype)
    for layer, before in enumerate(lm.head_cache(len(rows)).layers):
        sides, bias = [before.keys, before.values], before.keys.new_zeros(len(rows), 1, 1, head)
        if layer >= first and flat:
            made = [
                _rows_of(side.transpose(1, 2).flatten(0, 1), numbers).transpose(1, 2)
                for side in told[layer]
            ]
            sides = [torch.cat(pair, dim=2) for pair in zip(sides, made, strict=True)]
            bias = torch.cat([bias, weights], dim=3)
        notes.keys.append(sides[0])
        notes.values.append(sides[1])
        notes.bias.append(bias.expand(-1, before.keys.shape[1], -1, -1))
    return notes


def _laid_out(rows: Sequence[Sequence[Soft]], prior: float) -> tuple[Tensor, Tensor]:
    """For each row's entries [rows, n]: where they stand among those of all memories, padded side
    by side, and what is added to their attention logits: the log of the window's length, and the
    prior; -inf fills a row up.
    """
    most, first = max((len(m.ends) for row in rows for m in row), default=0), 0
    numbers, weights = [], []
    for row in rows:
        nothing, priors = torch.zeros(0, dtype=torch.int64), [prior] * (len(row) - 1) + [0.0]
        numbers.append(
            torch.cat(
                [
                    nothing,
                    *((first + i) * most + torch.arange(len(m.ends)) for i, m in enumerate(row)),
                ]
            )
        )
        weights.append(
            torch.cat(
                [
                    nothing.float(),
                    *(m.sizes.float().log() + p for m, p in zip(row, priors, strict=False)),
                ]
            )
        )
        first += len(row)
    return pad_sequence(numbers, batch_first=True), pad_sequence(
        weights, batch_first=True, padding_value=float("-inf")
    )


def _rows_of(entries: Tensor, numbers: Tensor) -> Tensor:
    """entries[numbers], without the gradients of indexing: these take a GPU long where a number
    comes often, as filler does.
    """
    return entries.index_select(0, numbers.flatten()).reshape(*numbers.shape, *entries.shape[1:])


def latents(lm: FrozenModel, softs: Sequence[Soft]) -> list[Tensor]:
    """What the last layer makes of each passage's soft tokens [m, d], read alone behind the head,
    by the adapter that is on.
    """
    states, _ = _read(lm, softs, [len(lm.head_ids)] * len(softs))
    return [row[: len(soft.ends)].float() for row, soft in zip(states, softs, strict=True)]


def _read(
    lm: FrozenModel, softs: Sequence[Soft], starts: Sequence[int]
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """States [b, most, d], and keys and values [b, kv_heads, most, w] of every layer, for passages
    that begin at these positions, each read alone. Layers before `depth` read nothing that is
    meant.
    """
    rows = pad_sequence([s.rows for s in softs], batch_first=True).to(lm.dtype)
    positions = pad_sequence(
        [s.ends + start for s, start in zip(softs, starts, strict=True)], batch_first=True
    )
    weights = pad_sequence([s.sizes.float().log() for s in softs], batch_first=True).to(lm.device)
    cache, head, most = lm.head_cache(len(softs)), len(lm.head_ids), rows.shape[1]
    causal = (
        torch.full((most, most), float("-inf"), device=rows.device).triu(1) + weights[:, None, None]
    )
    mask = torch.cat([causal.new_zeros(len(softs), 1, most, head), causal], dim=3).to(lm.dtype)
    with entering(lm, depth(lm), rows):
        states = lm.states(
            cache,
            inputs_embeds=rows.detach(),
            position_ids=positions.to(lm.device),
            attention_mask=mask,
        )
    return states, [(layer.keys[:, :, head:], layer.values[:, :, head:]) for layer in cache.layers]
