"""The method `soft`: windows of a passage's states become soft tokens (CMT, arXiv 2412.07393),
merged where little is lost.

1. A passage runs through the first layers of the frozen model, with the encoder adapter.
2. Neighbouring states that differ least are merged (`ward.py`) until one in `ratio` is left.
3. A soft token is the sum of its window's states over the root of the window's length, in four
   bits.
4. To be read, soft tokens run through the later layers as tokens do, each at the position where its
   window ends, and count in attention as often as they have tokens (ToMe, Bolya et al. 2023, arXiv
   2210.09461).
5. Question and answer attend to them from that layer on.

Where positions are learned and added at the input (GPT-2), a soft token keeps those that it was
made at.

Measured on questions about held-out titles, nothing trained for it, in nats per answer token (text
0.47, no memory 3.3): windows of four embeddings in a row 3.7, of four states after four layers 2.6,
merged by how much they differ 2.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import rms_norm
from torch.nn.utils.rnn import pad_sequence

from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import InvalidInput, ModelUnsupported
from cmt_sdk.neural.batching import in_batches, padded
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.compatibility import NO_REMEDY, check_cached_reading, compare, read_probe
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import (
    MAX_PASSAGE_TOKENS,
    CompressionMethod,
    TrainedParts,
    has_valid_codes,
    quantized_rows,
)
from cmt_sdk.neural.methods.ward import merge_windows
from cmt_sdk.neural.partial_forward import run_from, run_until
from cmt_sdk.neural.quantization import GROUP, dequantize, quantize
from cmt_sdk.types import CompressedPassage

KIND = "soft"
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
        return torch.diff(self.ends, prepend=self.ends.new_full((1,), -1))

    @property
    def tokens(self) -> int:
        """Tokens of the passage."""
        return int(self.ends[-1]) + 1


def merge_layer(lm: FrozenModel) -> int:
    """The number of layers that a passage runs through before its states are merged."""
    return max(1, round(EARLY_LAYERS * len(lm.blocks)))


@dataclass(frozen=True)
class SoftMethod(CompressionMethod):
    """Compresses a passage to `ceil(tokens / ratio)` soft tokens."""

    lm: FrozenModel
    ratio: int

    def __post_init__(self) -> None:
        width = self.lm.model.get_input_embeddings().weight.shape[1]
        if width % GROUP:
            raise ModelUnsupported(
                f"embeddings of {width} values: soft memories need a multiple of {GROUP}"
            )
        if merge_layer(self.lm) >= len(self.lm.blocks):
            raise ModelUnsupported(
                f"a model of {len(self.lm.blocks)} layers: soft memories need a later one to go on"
                " from"
            )
        hidden = self.lm.model.config.get_text_config().hidden_size
        if hidden != width:
            raise ModelUnsupported(
                f"embeddings of {width} values, states of {hidden}: soft memories need them alike"
            )

    @classmethod
    def create(cls, lm: FrozenModel, settings: Settings, _trained: TrainedParts) -> SoftMethod:
        """See CompressionMethod.create."""
        check_soft(lm)
        return cls(lm, int(settings.tokens_per_entry))

    def fingerprint(self) -> Mapping[str, Any]:
        """See CompressionMethod.fingerprint."""
        return {"compressor": f"soft-merged:{self.ratio}", "keep": 1.0}

    # -- compress ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def compress(self, passages: Sequence[str]) -> list[CompressedPassage]:
        """Make one memory per passage, in the order given."""
        ids = [self.lm.passage_ids(passage) for passage in passages]
        with self.lm.activate("encoder"):
            made = in_batches(ids, self.encode)
        return [_packed(soft) for soft in made]

    def encode(self, ids: Sequence[list[int]]) -> list[SoftTokens]:
        """The soft tokens of passages, by the adapter that is on, and with gradients where they are
        on.

        Args:
            ids: Token ids of each passage.

        Raises:
            InvalidInput: A passage is longer than the model's context.
        """
        limit = (self.lm.context or MAX_PASSAGE_TOKENS) - len(self.lm.prefix_ids)
        longest = max(map(len, ids), default=0)
        if longest > limit:
            raise InvalidInput(
                f"a passage of {longest} tokens; behind the prompt's prefix this model holds"
                f" {limit}: choose a smaller passage_tokens"
            )
        tokens = padded(ids, self.lm.device, self.lm.end_id)  # (B, n)
        layer = merge_layer(self.lm)
        states = run_until(self.lm, tokens, [layer])[layer].float()  # (B, n, d)
        lengths = [len(i) for i in ids]
        counts = [-(-length // self.ratio) for length in lengths]
        normed = rms_norm(states.detach(), states.shape[-1:])
        windows = merge_windows(normed, lengths, counts)
        made = []
        for row, ends, length in zip(states, windows, lengths, strict=True):
            sizes = SoftTokens(row, ends).sizes.to(row.device)  # (m,)
            owner = torch.repeat_interleave(sizes, output_size=length)  # (length,) its window
            sums = row.new_zeros(len(ends), row.shape[1]).index_add(0, owner, row[:length])
            made.append(SoftTokens(sums / sizes.sqrt()[:, None], ends))
        return made

    def is_valid(self, memory: CompressedPassage) -> bool:
        """Whether the arrays agree in number, type and width, and are those of this ratio."""
        width = self.lm.model.get_input_embeddings().weight.shape[1]
        ends = memory.arrays.get("soft_ends")
        if memory.kind != KIND or not 0 < memory.tokens <= MAX_PASSAGE_TOKENS or ends is None:
            return False
        count = -(-memory.tokens // self.ratio)
        if (ends.dtype, ends.shape) != (np.dtype(np.uint8), (count, 2)):
            return False
        rising = np.diff(_ends(memory), prepend=-1) > 0
        return (
            bool(rising.all())
            and _ends(memory)[-1] == memory.tokens - 1
            and has_valid_codes(memory, "soft", count, width)
        )

    # -- read -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def cache(
        self,
        rows: Sequence[Sequence[CompressedPassage]],
        *,
        question: str = "",  # noqa: ARG002 - the entries do not depend on it
        room: int = 0,
        bias: float = 0.0,
    ) -> MemoryCache:
        """See CompressionMethod.cache. The later layers process the soft tokens, with the encoder
        adapter.
        """
        soft = [unpacked(memories, self.lm) for memories in rows]
        with self.lm.activate("encoder"):
            made = soft_cache(self.lm, soft, bias)
        return made.with_room(room) if room else made


def _packed(soft: SoftTokens) -> CompressedPassage:
    codes = quantize(soft.rows)
    arrays = {
        "soft_codes": codes.codes.cpu().numpy(),
        "soft_scales": codes.scales.cpu().numpy(),
        # two bytes per end, as the format has no 16-bit integers
        "soft_ends": soft.ends.numpy().astype("<u2")[:, None].view(np.uint8),
    }
    return CompressedPassage(KIND, soft.tokens, arrays)


def _ends(memory: CompressedPassage) -> NDArray[np.int64]:
    """Where each window ends, from pairs of bytes."""
    return memory.arrays["soft_ends"].view("<u2")[:, 0].astype(np.int64)


def unpacked(memories: Sequence[CompressedPassage], lm: FrozenModel) -> list[SoftTokens]:
    """The memories' soft tokens, as they are after four bits."""
    made = []
    for memory in memories:
        rows = dequantize(quantized_rows(memory, "soft")).to(lm.device)
        made.append(SoftTokens(rows, torch.from_numpy(_ends(memory))))
    return made


def soft_cache(
    lm: FrozenModel, rows: Sequence[Sequence[SoftTokens]], bias: float = 0.0
) -> MemoryCache:
    """Each row's soft tokens one memory after another behind the prefix, by the adapter that is on.

    Each memory is processed alone. Layers below `merge_layer` have entries of the prefix only.

    Args:
        lm: The model.
        rows: The memories of each prompt, in the order in which they are read.
        bias: Added to the attention logits of all memories of a row but the last.
    """
    prefix_length = len(lm.prefix_ids)
    # row i: (memories + 1,) where each memory begins, and where the last one ends
    starts = [np.cumsum([prefix_length, *(m.tokens for m in row)]) for row in rows]
    memories = [m for row in rows for m in row]
    begins = [int(start) for row in starts for start in row[:-1]]
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
            keys = torch.cat([keys, _gathered(entries[layer][0], index)], dim=2)
            values = torch.cat([values, _gathered(entries[layer][1], index)], dim=2)
            layer_bias = torch.cat([layer_bias, biases], dim=3)  # (B, 1, 1, prefix + n)
        all_keys.append(keys)
        all_values.append(values)
        all_biases.append(layer_bias.expand(-1, keys.shape[1], -1, -1))
    read = sum(len(m.ends) for m in memories)
    return MemoryCache(
        all_keys, all_values, all_biases, [int(row[-1]) for row in starts], tokens_read=read
    )


def _layout(rows: Sequence[Sequence[SoftTokens]], bias: float) -> tuple[Tensor, Tensor]:
    """Where each row's entries are, and their biases.

    Returns:
        index int64 [rows, n]: of each entry among those of all memories, where memory k begins at k
        times the longest memory's length. biases fp32 [rows, n]: the log of the window's length,
        plus `bias` for all memories but the last; -inf pads a row.
    """
    longest = max((len(m.ends) for row in rows for m in row), default=0)
    index = []
    biases = []
    number = 0
    for row in rows:
        places = [torch.zeros(0, dtype=torch.int64)]  # a row may have no memories
        weights = [torch.zeros(0)]
        for n, memory in enumerate(row):
            places.append(number * longest + torch.arange(len(memory.ends)))
            is_best = n == len(row) - 1
            weights.append(memory.sizes.float().log() + (0.0 if is_best else bias))
            number += 1
        index.append(torch.cat(places))
        biases.append(torch.cat(weights))
    return (
        pad_sequence(index, batch_first=True),
        pad_sequence(biases, batch_first=True, padding_value=float("-inf")),
    )


def _gathered(entries: Tensor, index: Tensor) -> Tensor:
    """Entries [b, kv_heads, n, w] at index [rows, m] into their first and third axes together:
    [rows, kv_heads, m, w].

    index_select instead of indexing: on a GPU the gradient of indexing is slow where one index
    repeats often, as that of padding does.
    """
    flat = entries.transpose(1, 2).flatten(0, 1)  # (b * n, KV, w)
    found = flat.index_select(0, index.flatten()).reshape(*index.shape, *flat.shape[1:])
    return found.transpose(1, 2)


def last_hidden_states(lm: FrozenModel, softs: Sequence[SoftTokens]) -> list[Tensor]:
    """The last layer's states [m, d] of each passage's soft tokens, read alone behind the prefix,
    by the adapter that is on.
    """
    read = _run_later_layers(lm, softs, [len(lm.prefix_ids)] * len(softs))
    return [row[: len(s.ends)].float() for row, s in zip(read.states, softs, strict=True)]


@dataclass(frozen=True)
class _LaterLayers:
    """Last states [b, most, d]; by layer, keys and values [b, kv_heads, most, w]."""

    states: Tensor
    entries: list[tuple[Tensor, Tensor]]


def _run_later_layers(
    lm: FrozenModel, softs: Sequence[SoftTokens], starts: Sequence[int]
) -> _LaterLayers:
    """Run soft tokens through the layers from `merge_layer` on, each passage alone.

    Outputs of layers below merge_layer are meaningless here; do not use them.

    Args:
        lm: The model.
        softs: The soft tokens of each passage.
        starts: The position at which each passage begins.
    """
    rows = pad_sequence([s.rows for s in softs], batch_first=True).to(lm.dtype)  # (b, most, d)
    ends = [s.ends + start for s, start in zip(softs, starts, strict=True)]
    positions = pad_sequence(ends, batch_first=True).to(lm.device)  # (b, most)
    sizes = [s.sizes.float().log() for s in softs]
    weights = pad_sequence(sizes, batch_first=True).to(lm.device)  # (b, most)
    prefix_length = len(lm.prefix_ids)
    most = rows.shape[1]
    causal = torch.full((most, most), float("-inf"), device=rows.device).triu(1)
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


# -- check ----------------------------------------------------------------------------------------


@torch.inference_mode()
def check_soft(lm: FrozenModel) -> None:
    """Test on the model itself that its later layers run from given states, and that it reads
    cached entries as it reads text.

    Five short forward passes.

    Raises:
        ModelUnsupported: It does not; the message has the measured difference.
    """
    probe = read_probe(lm)
    own = [layer.keys[:1] for layer in probe.cache.layers]
    check_cached_reading(lm, probe, own, row=0)
    # Windows of one token each are the tokens themselves.
    (soft,) = SoftMethod(lm, 1).encode([probe.ids[0].tolist()])
    made = soft_cache(lm, [[soft]])
    start = len(lm.prefix_ids)
    cache = lm.prefix_cache(1)
    lm.forward(cache, input_ids=probe.ids[:1], position_ids=probe.positions[:1] + start)
    first = merge_layer(lm)
    for number in range(first, len(cache.layers)):
        keys = cache.layers[number].keys[:, :, start:]
        problem = f"layer {number} does not go on from states of layer {first}"
        compare(lm, made.keys[number][:, :, start:], keys, problem, "soft", NO_REMEDY)
