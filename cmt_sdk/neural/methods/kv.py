"""The method `kv`: a passage becomes the KV-cache entries that matter, without positions, in four
bits.

Training-free for every model with rotary positions. docs/format.md defines the arrays of such a
memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmt_sdk.config.methods import kept_share
from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.batching import in_batches, padded
from cmt_sdk.neural.cache import MemoryCache, stacked
from cmt_sdk.neural.compatibility import check_cached_reading, compare, read_probe
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import (
    MAX_PASSAGE_TOKENS,
    CompressionMethod,
    TrainedParts,
    has_valid_codes,
    quantized_rows,
)
from cmt_sdk.neural.methods.kvzip import REPEAT, RepeatScores, top_share
from cmt_sdk.neural.quantization import GROUP, KEY_GROUP, dequantize, quantize
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.types import CompressedPassage

KIND = "kv"
REMEDY = "use another model, or compressor='soft' after `cmt train --part soft`"


@dataclass(frozen=True)
class KVMethod(CompressionMethod):
    """Compresses with the encoder adapter, where there is one. The reader adapter may change;
    memories stay readable.

    Attributes:
        lm: The frozen model.
        rotary: Its rotation.
        keep: The share of entries kept, over all layers and heads together.
        at_least: Tokens of a passage whose entries are kept in any case, as a mean over layers and
            heads: a passage of at most `at_least` tokens is kept completely.
    """

    lm: FrozenModel
    rotary: Rotary
    keep: float = 1.0
    at_least: int = 0

    def __post_init__(self) -> None:
        width = self.lm.kv_shape[2]
        if width % GROUP:
            raise ModelUnsupported(
                f"heads of {width} values: KV memories need a multiple of {GROUP}"
            )

    @classmethod
    def create(cls, lm: FrozenModel, settings: Settings, _trained: TrainedParts) -> KVMethod:
        """See CompressionMethod.create."""
        return cls(lm, check_kv(lm), settings.keep, settings.keep_at_least)

    def fingerprint(self) -> Mapping[str, Any]:
        """See CompressionMethod.fingerprint."""
        return {"compressor": KIND, "keep": self.keep, "keep_at_least": self.at_least}

    # -- compress ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def compress(self, passages: Sequence[str]) -> list[CompressedPassage]:
        """Make one memory per passage, in the order given."""
        ids = [self.lm.passage_ids(passage) for passage in passages]
        with self.lm.activate("encoder"):
            return in_batches(ids, self._compress_batch)

    def _compress_batch(self, ids: Sequence[list[int]]) -> list[CompressedPassage]:
        keys, values, scores = self.encode(ids)
        memories = []
        for row, length in enumerate(map(len, ids)):
            if scores is None:
                layers, heads, _ = self.lm.kv_shape
                kept = torch.ones(layers, heads, length, dtype=torch.bool, device=self.lm.device)
            else:
                kept = top_share(scores[row], length, self._share(length))
            memories.append(_packed(keys[row, :, :, :length], values[row, :, :, :length], kept))
        return memories

    def _share(self, length: int) -> float:
        """The share of entries that a passage of `length` tokens keeps."""
        return kept_share(length, self.keep, self.at_least)

    def encode(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Run passages behind the prompt's prefix, by the adapter that is on, and with gradients
        where they are on.

        Args:
            ids: Token ids of each passage.

        Returns:
            Keys at position 0 and values [batch, layers, kv_heads, longest, d], and the scores
            [batch, layers, kv_heads, longest] of `kvzip`, None where every entry is kept.
        """
        lengths = torch.tensor([len(i) for i in ids], device=self.lm.device)
        longest = int(lengths.max())
        start = len(self.lm.prefix_ids)
        cue = self.lm.ids(REPEAT)
        is_pruned = self._share(longest) < 1.0
        watch = RepeatScores(start, lengths, len(cue)) if is_pruned else None
        rows = [i + cue + i for i in ids] if watch else list(ids)
        tokens = padded(rows, self.lm.device, self.lm.end_id)  # (B, m)
        positions = torch.arange(start, start + tokens.shape[1], device=self.lm.device)[None]
        cache = self.lm.prefix_cache(len(ids))
        self.lm.forward(cache, input_ids=tokens, position_ids=positions, watch=watch)
        passage = slice(start, start + longest)
        keys = torch.stack([layer.keys[:, :, passage] for layer in cache.layers], dim=1)
        values = torch.stack([layer.values[:, :, passage] for layer in cache.layers], dim=1)
        layers = torch.arange(keys.shape[1], device=keys.device)[:, None, None]  # (L, 1, 1)
        keys = self.rotary.unrotate(keys, positions[0, :longest], layers)
        return keys, values, watch.result() if watch else None

    def is_valid(self, memory: CompressedPassage) -> bool:
        """Whether the arrays agree in number, type and width, and are finite."""
        layers, heads, width = self.lm.kv_shape
        kept = memory.arrays.get("kept")
        mean = memory.arrays.get("key_mean")
        if memory.kind != KIND or not 0 < memory.tokens <= MAX_PASSAGE_TOKENS:
            return False
        if kept is None or kept.dtype != np.dtype(np.uint8):
            return False
        if mean is None or mean.dtype != np.dtype(np.float16):
            return False
        if kept.shape != (layers * heads, -(-memory.tokens // 8)):  # one bit per token
            return False
        if mean.shape != (layers * heads, width):
            return False
        count = int(_kept_bits(memory).sum())
        return bool(np.isfinite(mean).all()) and all(
            has_valid_codes(memory, which, count, width) for which in ("key", "value")
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
        """See CompressionMethod.cache. No token of a passage is processed."""
        placed = [self._place(memories, room, bias) for memories in rows]
        return placed[0] if len(placed) == 1 else stacked(placed)

    def _place(self, memories: Sequence[CompressedPassage], room: int, bias: float) -> MemoryCache:
        """Lay out [prefix | memory 1 | memory 2 | ... | room], every head with its own entries.

        1. Find each entry's row (layer * kv_heads + head), position and slot in its row.
        2. Pad every row to the longest one of its layer, add the room, and put all rows one behind
           the other in one flat buffer; an entry's target is its row's start plus its slot.
        3. Decode all entries, rotate the keys to their positions, and copy both to their targets.
        4. Copy the prefix's entries to the first slots of every row.
        5. Write the biases: `bias` for the entries of all memories but the last, -inf for padding.
        """
        layers, kv_heads, width = self.lm.kv_shape
        prefix_length = len(self.lm.prefix_ids)
        device = self.lm.device
        places = _placed(memories, prefix_length, layers * kv_heads)
        entries = places.per_row.reshape(layers, kv_heads).max(1)  # (L,) the layers' longest rows
        lengths = np.repeat(entries + room, kv_heads)  # (rows,)
        starts = torch.from_numpy(np.cumsum(lengths) - lengths)
        targets = (starts[places.row] + places.slot).to(device)  # (entries of all memories,)
        flat = torch.zeros(2, int(lengths.sum()), width, dtype=self.lm.dtype, device=device)
        if memories:
            keys, values = self._decoded(memories, places.row)
            layer_of = places.row.to(device) // kv_heads
            keys = self.rotary.rotate(keys, places.position.to(device), layer_of)
            flat[0].index_copy_(0, targets, keys.to(self.lm.dtype))
            flat[1].index_copy_(0, targets, values)
        is_best = places.memory == len(memories) - 1
        biases = torch.zeros(flat.shape[1], dtype=self.lm.dtype, device=device)
        biases[targets] = torch.where(is_best, 0.0, bias).to(device, self.lm.dtype)
        blocks = _by_layer(flat, lengths, kv_heads)  # by layer: (2, KV, padded + room, d)
        made = MemoryCache(
            [block[0][None] for block in blocks],
            [block[1][None] for block in blocks],
            _masked(biases, places.per_row, lengths, entries, kv_heads),
            [places.end],
            room,
        )
        for layer, prefix in enumerate(self.lm.prefix_cache(1).layers):
            made.keys[layer][:, :, :prefix_length] = prefix.keys
            made.values[layer][:, :, :prefix_length] = prefix.values
        return made

    def _decoded(self, memories: Sequence[CompressedPassage], row: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (fp32, at position 0) and values (the model's type) [n, d] of all entries, in the
        order of the memories; row [n] as in _Places.
        """
        keys = torch.cat([dequantize(quantized_rows(m, "key")) for m in memories])
        values = torch.cat([dequantize(quantized_rows(m, "value")) for m in memories])
        stored = np.concatenate([m.arrays["key_mean"] for m in memories])  # (memories * rows, d)
        means = torch.from_numpy(stored.astype(np.float32))
        rows = len(memories[0].arrays["key_mean"])
        counts = torch.tensor([len(m.arrays["key_codes"]) for m in memories])
        owner = torch.arange(len(memories)).repeat_interleave(counts)  # (n,) the entry's memory
        keys += means[owner * rows + row]
        return keys.to(self.lm.device), values.to(self.lm.device, self.lm.dtype)


def _packed(keys: Tensor, values: Tensor, kept: Tensor) -> CompressedPassage:
    """Quantise the kept entries of one passage.

    The mean of a head's keys is stored once (`key_mean`), so that the codes spend their bits on
    differences only.

    Args:
        keys: At position 0, [layers, heads, n, d].
        values: [layers, heads, n, d].
        kept: bool [layers, heads, n].
    """
    layers, heads, length, width = keys.shape
    mean = keys.float().mean(2).half()  # (L, H, d)
    centred = keys.float() - mean.float()[:, :, None]
    key_rows = quantize(centred[kept], KEY_GROUP)  # (kept entries, ...)
    value_rows = quantize(values[kept])
    arrays = {
        "kept": np.packbits(kept.reshape(layers * heads, length).cpu().numpy(), axis=1),
        "key_mean": mean.reshape(layers * heads, width).cpu().numpy(),
        "key_codes": key_rows.codes.cpu().numpy(),
        "key_scales": key_rows.scales.cpu().numpy(),
        "value_codes": value_rows.codes.cpu().numpy(),
        "value_scales": value_rows.scales.cpu().numpy(),
    }
    return CompressedPassage(KIND, length, arrays)


def _kept_bits(memory: CompressedPassage) -> NDArray[np.uint8]:
    """Which entries a memory holds, 0 or 1, [rows, tokens]."""
    return np.unpackbits(memory.arrays["kept"].view(np.uint8), axis=1, count=memory.tokens)


@dataclass(frozen=True)
class _Places:
    """Where the n entries of all memories go.

    Attributes:
        row: [n], layer * kv_heads + head.
        position: [n], in the prompt.
        slot: [n], index in the row.
        memory: [n], number of the memory.
        per_row: [rows], entries of each row, the prefix included.
        end: The first position after all memories.
    """

    row: Tensor
    position: Tensor
    slot: Tensor
    memory: Tensor
    per_row: NDArray[Any]
    end: int


def _placed(memories: Sequence[CompressedPassage], prefix_length: int, rows: int) -> _Places:
    found_rows = []
    positions = []
    slots = []
    owners = []
    filled = np.full(rows, prefix_length)
    start = prefix_length
    for number, memory in enumerate(memories):
        # The codes of a memory are in the order of its bits: row by row, then by token.
        kept = _kept_bits(memory)  # (rows, tokens)
        row, position = np.nonzero(kept)  # (n,) each
        counts = kept.sum(1, dtype=np.int64)  # (rows,)
        first = np.cumsum(counts) - counts  # index of each row's first entry in `row`
        found_rows.append(row)
        positions.append(position + start)
        slots.append(np.arange(len(row)) - first[row] + filled[row])
        owners.append(np.full(len(row), number))
        filled = filled + counts
        start += memory.tokens
    return _Places(
        _joined(found_rows), _joined(positions), _joined(slots), _joined(owners), filled, start
    )


def _joined(parts: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts]))


def _by_layer(flat: Tensor, lengths: NDArray[Any], kv_heads: int) -> list[Tensor]:
    """Views [2, kv_heads, padded + room, d] of the flat buffer [2, n, d], one per layer."""
    sizes = lengths.reshape(-1, kv_heads).sum(1).tolist()
    parts = torch.split(flat, sizes, dim=1)
    return [part.reshape(2, kv_heads, -1, flat.shape[2]) for part in parts]


def _masked(
    biases: Tensor,
    per_row: NDArray[Any],
    lengths: NDArray[Any],
    entries: NDArray[Any],
    kv_heads: int,
) -> list[Tensor]:
    """By layer, the biases [1, kv_heads, 1, padded + room], with -inf where padding is.

    biases [n] in the order of the flat buffer; per_row and lengths [rows]; entries [layers].
    """
    masked = []
    by_layer = torch.split(biases, lengths.reshape(-1, kv_heads).sum(1).tolist())
    for layer, longest in enumerate(entries):
        rows = slice(layer * kv_heads, (layer + 1) * kv_heads)
        slots = np.arange(lengths[rows.start])[None]  # (1, padded + room)
        is_padding = (slots >= per_row[rows, None]) & (slots < longest)  # the room stays open
        closed = torch.from_numpy(is_padding).to(biases.device)
        layer_biases = by_layer[layer].reshape(kv_heads, -1).masked_fill(closed, float("-inf"))
        masked.append(layer_biases[None, :, None])
    return masked


# -- check ----------------------------------------------------------------------------------------


@torch.inference_mode()
def check_kv(lm: FrozenModel) -> Rotary:
    """Test on the model itself that it reads memories, rotated to other positions, as it reads the
    text; return its rotation.

    Two short forward passes.

    Raises:
        ModelUnsupported: It does not; the message has the measured difference.
    """
    rotary = Rotary(lm.model)
    probe = read_probe(lm)
    problem = "its answers depend on the position of a text"
    compare(lm, probe.states[1], probe.states[0], problem, "KV", REMEDY)
    moved = []
    for number, layer in enumerate(probe.cache.layers):
        layers = torch.full_like(probe.positions[0], number)
        keys = rotary.unrotate(layer.keys[:1], probe.positions[0], layers)
        keys = rotary.rotate(keys, probe.positions[1], layers).to(layer.keys.dtype)
        problem = f"the keys of layer {number} are not moved by its rotary positions"
        compare(lm, keys, layer.keys[1:], problem, "KV", REMEDY)
        moved.append(keys)
    check_cached_reading(lm, probe, moved, row=1)
    first = lm.model(input_ids=probe.ids[:1, :1], use_cache=False).logits[0]
    problem = "its output layer does more than multiply"
    compare(lm, lm.logits(probe.states[0, :1]), first, problem, "KV", REMEDY)
    return rotary
