"""The method `kv`: a passage becomes the KV-cache entries that matter, without positions, in the
codes of the model's codec, or of four bits.

To compress a passage:

1. The frozen model reads it behind the prompt's prefix, then a cue, then the passage again. What
   attention pays to an entry while the model repeats the passage is the entry's score (`kvzip.py`).
   With gates fitted for the model it reads the passage once: they predict the scores (`gates.py`).
   A passage that is kept completely is read once too.
2. Keys are rotated back to position 0 (`rope.py`), so that a memory fits anywhere in a prompt.
3. The entries with the best scores are kept, over all layers and heads together: each head of each
   layer keeps a number of its own.
4. With a codec fitted for the model they are encoded by it (`reading/codec.py`). Without, the mean
   of their head is taken off the keys, and both are rounded to four bits (`quantization.py`).

To read memories, `KVMethod.cache` lays their entries out one memory after another; no token of a
passage is processed. Passages do not see each other, as in block attention (Ma et al. 2024, arXiv
2409.15355) and TurboRAG (Lu et al. 2024, arXiv 2410.07590), and each is read as if it stood first.

Training-free for every model with rotary positions. docs/format.md defines the arrays of such a
memory. In comments: B passages of a batch, L layers, KV key-value heads, d values per head, rows =
L * KV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmt_sdk.config.methods import kept_share, kv_fingerprint
from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.batching import batch_tokens, in_batches, padded
from cmt_sdk.neural.cache import MemoryCache, stacked
from cmt_sdk.neural.compatibility import check_cached_reading, compare, read_probe
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import (
    CompressionMethod,
    TrainedParts,
    as_tensor,
    has_valid_codes,
    quantized_rows,
)
from cmt_sdk.neural.methods.gates import Gates
from cmt_sdk.neural.methods.kv_layout import biases_by_layer, blocks_by_layer
from cmt_sdk.neural.methods.kvzip import RepeatScores, top_share
from cmt_sdk.neural.partial_forward import run_entries
from cmt_sdk.neural.quantization import GROUP, KEY_GROUP, dequantize, quantize
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.reading.codec import KIND as CODED
from cmt_sdk.reading.codec import Codec, Entries
from cmt_sdk.reading.limits import MAX_PASSAGE_TOKENS
from cmt_sdk.reading.places import kept_bits, places_of
from cmt_sdk.reading.uncompressed import KIND as UNCOMPRESSED
from cmt_sdk.reading.uncompressed import biases_of, entries_of, uncompressed
from cmt_sdk.text.prompt_messages import REPEAT
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
        gates: Predict the scores; None where a second reading gives them.
        codec: Decodes memories that it made; None where none was fitted for the model.
        encodes: Whether memories are made by the codec, if there is one.
    """

    lm: FrozenModel
    rotary: Rotary
    keep: float = 1.0
    at_least: int = 0
    gates: Gates | None = None
    codec: Codec | None = None
    encodes: bool = True

    def __post_init__(self) -> None:
        width = self.lm.kv_shape[2]
        if width % GROUP:
            raise ModelUnsupported(
                f"heads of {width} values: KV memories need a multiple of {GROUP}"
            )

    @classmethod
    def create(cls, lm: FrozenModel, settings: Settings, trained: TrainedParts) -> KVMethod:
        """See CompressionMethod.create."""
        is_auto = settings.scores == "auto"
        gates = trained("gates", partial(Gates.of, lm)) if is_auto else None
        layers, heads, width = lm.kv_shape
        codec = trained("codec", lambda found: Codec.of(_arrays(found), layers * heads, width))
        kept = settings.keep, settings.keep_at_least
        return cls(lm, check_kv(lm), *kept, gates, codec, settings.codec == "auto")

    def fingerprint(self) -> Mapping[str, Any]:
        """See CompressionMethod.fingerprint."""
        return kv_fingerprint(self.keep, self.at_least)

    # -- compress ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def compress(self, passages: Sequence[str]) -> list[CompressedPassage]:
        """See CompressionMethod.compress."""
        ids = [self.lm.passage_ids(passage) for passage in passages]
        with self.lm.activate("encoder"):
            return in_batches(ids, self._compress_batch, batch_tokens(self.lm.device))

    def _compress_batch(self, ids: Sequence[list[int]]) -> list[CompressedPassage]:
        """The memory of each row of token ids, by the adapter that is on."""
        keys, values, scores = self.encode(ids)
        memories = []
        for row, length in enumerate(map(len, ids)):
            kept = self.chosen(None if scores is None else scores[row], length)
            own_keys = keys[row, :, :, :length]  # (L, KV, length, d), without padding
            own_values = values[row, :, :, :length]
            if self.codec is not None and self.encodes:
                memories.append(_encoded(self.codec, own_keys, own_values, kept))
            else:
                memories.append(_packed(own_keys, own_values, kept))
        return memories

    @torch.inference_mode()
    def uncompressed(self, passages: Sequence[str]) -> list[CompressedPassage]:
        """See CompressionMethod.uncompressed: every entry, as the model computes it."""
        ids = [self.lm.passage_ids(passage) for passage in passages]
        complete = replace(self, keep=1.0, gates=None)  # scores no entry
        with self.lm.activate("encoder"):
            return in_batches(ids, complete._uncompressed_batch, batch_tokens(self.lm.device))

    def _uncompressed_batch(self, ids: Sequence[list[int]]) -> list[CompressedPassage]:
        keys, values, _ = self.encode(ids)
        rows = keys.shape[1] * keys.shape[2]
        return [
            uncompressed(
                *(
                    part[row, :, :, :length].reshape(rows, length, -1).float().cpu().numpy()
                    for part in (keys, values)
                )
            )
            for row, length in enumerate(map(len, ids))
        ]

    def chosen(self, scores: Tensor | None, length: int) -> Tensor:
        """The entries of a passage that are kept, bool [layers, kv_heads, length].

        Args:
            scores: Those of its entries [layers, kv_heads, >= length], as `encode` returns them.
            length: Its tokens.
        """
        if scores is None:
            layers, heads, _ = self.lm.kv_shape
            return torch.ones(layers, heads, length, dtype=torch.bool, device=self.lm.device)
        return top_share(scores, length, self._kept_share(length))

    def _kept_share(self, length: int) -> float:
        """The share of entries that a passage of `length` tokens keeps."""
        return kept_share(length, self.keep, self.at_least)

    def encode(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Run passages behind the prompt's prefix, by the adapter that is on, and with gradients
        where they are on.

        Args:
            ids: Token ids of each passage, at least one passage.

        Returns:
            Keys at position 0 and values [batch, layers, kv_heads, longest, d], and the scores
            [batch, layers, kv_heads, longest] of `kvzip` or `gates`, None where every entry is
            kept. What is behind the end of a shorter passage is of other tokens.
        """
        lengths = torch.tensor([len(i) for i in ids], device=self.lm.device)  # (B,)
        longest = int(lengths.max())
        start = len(self.lm.prefix_ids)
        cue = self.lm.ids(REPEAT)
        # If the longest passage keeps everything, all do: shorter ones keep a larger share.
        is_pruned = self._kept_share(longest) < 1.0
        watch = RepeatScores(start, lengths, len(cue)) if is_pruned and not self.gates else None
        rows = [i + cue + i for i in ids] if watch else list(ids)
        tokens = padded(rows, self.lm.device, self.lm.end_id)  # (B, m)
        positions = torch.arange(start, start + tokens.shape[1], device=self.lm.device)[None]
        cache = self.lm.prefix_cache(len(ids))
        inputs = {"input_ids": tokens, "position_ids": positions}
        scores: Tensor | None = None
        if is_pruned and self.gates:
            states = run_entries(self.lm, cache, **inputs)
            scores = self.gates.scores([s[:, :longest] for s in states], lengths)
        else:
            self.lm.forward(cache, **inputs, watch=watch)
            scores = watch.result() if watch else None
        # Attention is causal: the entries of the passage do not know of its repetition.
        passage = slice(start, start + longest)
        own = positions[0, :longest]
        keys = [  # layer by layer: what is computed in between stays in the CPU's caches
            self.rotary.unrotate(layer.keys[:, :, passage], own, torch.full_like(own, number))
            for number, layer in enumerate(cache.layers)
        ]
        values = torch.stack([layer.values[:, :, passage] for layer in cache.layers], dim=1)
        return torch.stack(keys, dim=1), values, scores  # (B, L, KV, longest, d)

    def is_valid(self, memory: CompressedPassage) -> bool:
        """See CompressionMethod.is_valid: the arrays agree in number, type and width, and are
        finite.
        """
        if memory.kind == CODED:
            return self.codec is not None and self.codec.is_valid(memory)
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
        count = int(kept_bits(memory).sum())
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

        1. Decode all entries, and find each one's row (layer * kv_heads + head), position and slot
           in its row.
        2. Pad every row to the longest one of its layer, add the room, and put all rows one behind
           the other in one flat buffer; an entry's target is its row's start plus its slot.
        3. Rotate the keys to their positions, and copy keys and values to their targets.
        4. Write the biases: `bias` for the entries of all memories but the last, -inf for padding.
        5. Cut the buffer into layers, without a copy, and copy the prefix's entries to the first
           slots of every row.
        """
        layers, kv_heads, width = self.lm.kv_shape
        prefix_length = len(self.lm.prefix_ids)
        device = self.lm.device

        decoded = [self._decoded(memory) for memory in memories]
        places = places_of([e.kept for e in decoded], prefix_length, layers * kv_heads)

        entries = places.per_row.reshape(layers, kv_heads).max(1)  # (L,) the layers' longest rows
        lengths = np.repeat(entries + room, kv_heads)  # (rows,)
        starts = np.cumsum(lengths) - lengths  # (rows,)
        targets = as_tensor(starts[places.row] + places.slot).to(device)  # (n,)

        flat = torch.zeros(2, int(lengths.sum()), width, dtype=self.lm.dtype, device=device)
        if memories:
            keys = torch.from_numpy(np.concatenate([e.keys for e in decoded])).to(device)  # (n, d)
            found = torch.from_numpy(np.concatenate([e.values for e in decoded]))  # (n, d)
            layer_of = as_tensor(places.row // kv_heads).to(device)  # (n,)
            keys = self.rotary.rotate(keys, as_tensor(places.position).to(device), layer_of)
            flat[0].index_copy_(0, targets, keys.to(self.lm.dtype))
            flat[1].index_copy_(0, targets, found.to(device, self.lm.dtype))

        each = as_tensor(biases_of(memories, bias)[places.memory])  # (n,)
        biases = torch.zeros(flat.shape[1], dtype=self.lm.dtype, device=device)
        biases[targets] = each.to(device, self.lm.dtype)
        layer_biases = biases_by_layer(biases, places.per_row, lengths, entries, kv_heads)

        blocks = blocks_by_layer(flat, lengths, kv_heads)  # by layer: (2, KV, padded + room, d)
        keys_by_layer = [block[0][None] for block in blocks]  # (1, KV, padded + room, d) each
        values_by_layer = [block[1][None] for block in blocks]
        for layer, prefix in enumerate(self.lm.prefix_cache(1).layers):
            keys_by_layer[layer][:, :, :prefix_length] = prefix.keys
            values_by_layer[layer][:, :, :prefix_length] = prefix.values
        return MemoryCache(keys_by_layer, values_by_layer, layer_biases, [places.end], room)

    def _decoded(self, memory: CompressedPassage) -> Entries:
        """The entries of a memory: in the codes of a codec or of four bits, or not compressed.

        Raises:
            StorageDamaged: It is not one of this model.
        """
        if memory.kind == UNCOMPRESSED:
            return entries_of(memory)
        if self.codec is not None and memory.kind == CODED:
            return self.codec.decode(memory)
        kept = kept_bits(memory)  # (rows, tokens)
        means = memory.arrays["key_mean"].astype(np.float32)  # (rows, d)
        keys = dequantize(quantized_rows(memory, "key")).numpy()  # (n, d)
        values = dequantize(quantized_rows(memory, "value")).numpy()
        return Entries(kept, keys + means.repeat(kept.sum(1, dtype=np.int64), axis=0), values)


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.float().cpu().numpy() for name, tensor in tensors.items()}


def _encoded(codec: Codec, keys: Tensor, values: Tensor, kept: Tensor) -> CompressedPassage:
    """The memory of one passage by a codec; arguments as in `_packed`."""
    rows = kept.shape[0] * kept.shape[1]
    bits = kept.reshape(rows, -1).cpu().numpy()
    found = keys[kept].float().cpu().numpy(), values[kept].float().cpu().numpy()
    return codec.encode(*found, bits)


def _packed(keys: Tensor, values: Tensor, kept: Tensor) -> CompressedPassage:
    """Quantise the kept entries of one passage.

    The mean of a head's keys is stored once (`key_mean`), so that the codes spend their bits on
    differences only.

    Args:
        keys: At position 0, [layers, kv_heads, n, d].
        values: [layers, kv_heads, n, d].
        kept: bool [layers, kv_heads, n].
    """
    layers, heads, length, width = keys.shape
    mean = keys.float().mean(2).half()  # (L, KV, d), of all tokens, kept or not
    # The mean as it is stored is taken off, so that its rounding costs nothing.
    centred = keys.float() - mean.float()[:, :, None]  # (L, KV, n, d)
    key_rows = quantize(centred[kept], KEY_GROUP)  # kept entries, row by row, then by token
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
    # The same text at another position has the same states, as positions are relative.
    problem = "its answers depend on the position of a text"
    compare(lm, probe.states[1], probe.states[0], problem, "KV", REMEDY)
    # Its keys there are the keys here, rotated.
    moved = []
    for number, layer in enumerate(probe.cache.layers):
        layers = torch.full_like(probe.positions[0], number)  # (n,)
        unrotated = rotary.unrotate(layer.keys[:1], probe.positions[0], layers)  # (1, KV, n, d)
        keys = rotary.rotate(unrotated, probe.positions[1], layers).to(layer.keys.dtype)
        problem = f"the keys of layer {number} are not moved by its rotary positions"
        compare(lm, keys, layer.keys[1:], problem, "KV", REMEDY)
        moved.append(keys)
    # Behind these keys the model goes on as behind the text.
    check_cached_reading(lm, probe, moved, row=1)
    # FrozenModel.logits computes what the complete model does.
    first = lm.model(input_ids=probe.ids[:1, :1], use_cache=False).logits[0]  # (1, vocabulary)
    problem = "its output layer does more than multiply"
    compare(lm, lm.logits(probe.states[0, :1]), first, problem, "KV", REMEDY)
    return rotary
