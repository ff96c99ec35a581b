"""The `kv` compressor: a passage becomes the KV-cache entries that matter, without positions, in
four bits.

Training-free for every model with rotary positions. What the arrays of such a memory mean stands in
docs/format.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmt_sdk.config import kept_share
from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.quantization import GROUP, KEY_GROUP, Codes, quantize
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.scores import REPEAT, RepeatScores, best
from cmt_sdk.types import PackedMemory

BATCH_TOKENS = 2048
LONGEST = 2**15  # tokens of a passage from elsewhere: beyond, its bits would expand
# lengths are padded to multiples: on a CPU every new shape costs kernel set-up
STEP, SHORT_STEP = 64, 16


@dataclass(frozen=True)
class KVCompressor:
    """Packs passages with the encoder adapter, where there is one; readers may change, memories
    stay readable.

    keep: the share of entries kept, over all layers and heads together. at_least: tokens of a
        passage whose entries are kept in any case, as a mean over layers and heads: a passage of up
        to `at_least` tokens is kept whole.
    """

    lm: FrozenModel
    rotary: Rotary
    keep: float
    at_least: int = 0

    def __post_init__(self) -> None:
        width = self.lm.kv_shape[2]
        if width % GROUP:
            raise ModelUnsupported(
                f"heads of {width} values: KV memories need a multiple of {GROUP}"
            )

    @torch.inference_mode()
    def pack(self, contents: Sequence[str]) -> list[PackedMemory]:
        """One memory a passage, in the order given."""
        ids = [self.lm.passage_ids(c) for c in contents]
        packed: dict[int, PackedMemory] = {}
        with self.lm.activate("encoder"):
            for batch in batches([len(i) for i in ids]):
                made = self._pack_batch([ids[i] for i in batch])
                packed.update(zip(batch, made, strict=True))
        return [packed[i] for i in range(len(ids))]

    def reads(self, memory: PackedMemory) -> bool:
        """Whether a memory is whole, and one of this model's: its arrays agree in number, type and
        width, and are finite.
        """
        layers, heads, width = self.lm.kv_shape
        kept, mean = memory.arrays.get("kept"), memory.arrays.get("key_mean")
        if memory.kind != "kv" or not 0 < memory.tokens <= LONGEST or kept is None or mean is None:
            return False
        bits, means = (layers * heads, -(-memory.tokens // 8)), (layers * heads, width)
        if (kept.dtype, kept.shape, mean.dtype, mean.shape) != (
            np.dtype(np.uint8),
            bits,
            np.dtype(np.float16),
            means,
        ):
            return False
        count = int(np.unpackbits(kept.view(np.uint8), axis=1, count=memory.tokens).sum())
        return bool(np.isfinite(mean).all()) and all(
            is_coded(memory, which, count, width) for which in ("key", "value")
        )

    def _pack_batch(self, ids: Sequence[list[int]]) -> list[PackedMemory]:
        keys, values, scores = self.forward(ids)
        lengths = torch.tensor([len(i) for i in ids], device=self.lm.device)
        memories = []
        for row, length in enumerate(lengths.tolist()):
            kept = (
                self._all(length)
                if scores is None
                else best(scores[row], length, self._share(length))
            )
            memories.append(_packed(keys[row, :, :, :length], values[row, :, :, :length], kept))
        return memories

    def _share(self, length: int) -> float:
        """The share of entries that a passage of `length` tokens keeps."""
        return kept_share(length, self.keep, self.at_least)

    def _all(self, length: int) -> Tensor:
        layers, heads, _ = self.lm.kv_shape
        return torch.ones(layers, heads, length, dtype=torch.bool, device=self.lm.device)

    def forward(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys (turned back) and values [batch, layers, kv_heads, longest, d], and the scores when
        they are needed.

        With the adapter that is on, and with gradients where they are on.
        """
        lengths = torch.tensor([len(i) for i in ids], device=self.lm.device)
        head, longest = len(self.lm.head_ids), int(lengths.max())
        cue = self.lm.ids(REPEAT)
        is_pruned = self._share(max(len(i) for i in ids)) < 1.0
        watch = RepeatScores(head, lengths, len(cue)) if is_pruned else None
        rows = [i + cue + i for i in ids] if watch else list(ids)
        tokens = padded(rows, self.lm.device, self.lm.end_id)
        cache = self.lm.head_cache(len(ids))
        positions = torch.arange(head, head + tokens.shape[1], device=self.lm.device)[None]
        self.lm.states(cache, input_ids=tokens, position_ids=positions, watch=watch)
        keys = torch.stack(
            [layer.keys[:, :, head : head + longest] for layer in cache.layers], dim=1
        )
        values = torch.stack(
            [layer.values[:, :, head : head + longest] for layer in cache.layers], dim=1
        )
        scores = watch.result() if watch else None
        layers = torch.arange(keys.shape[1], device=keys.device)[:, None, None]
        return self.rotary.turn_back(keys, positions[0, :longest], layers), values, scores


def _packed(keys: Tensor, values: Tensor, kept: Tensor) -> PackedMemory:
    """Quantise the kept entries of one passage: keys and values [layers, heads, n, d], kept
    [layers, heads, n].

    What a head's keys have in common is stored once (`key_mean`), so that the codes only spend bits
    on differences.
    """
    layers, heads, length, width = keys.shape
    mean = keys.float().mean(2).half()
    centred = keys.float() - mean.float()[:, :, None]
    key_codes, value_codes = quantize(centred[kept], KEY_GROUP), quantize(values[kept])
    arrays = {
        "kept": np.packbits(kept.reshape(layers * heads, length).cpu().numpy(), axis=1),
        "key_mean": mean.reshape(layers * heads, width).cpu().numpy(),
        "key_codes": key_codes.codes.cpu().numpy(),
        "key_scales": key_codes.scales.cpu().numpy(),
        "value_codes": value_codes.codes.cpu().numpy(),
        "value_scales": value_codes.scales.cpu().numpy(),
    }
    return PackedMemory("kv", length, arrays)


def is_coded(memory: PackedMemory, which: str, count: int, width: int) -> bool:
    """Whether a memory holds `count` four-bit rows of this width under the name "key", "value" or
    "soft".
    """
    codes, scales = memory.arrays.get(f"{which}_codes"), memory.arrays.get(f"{which}_scales")
    if codes is None or scales is None or codes.dtype != np.uint8 or scales.dtype != np.float16:
        return False
    groups = [(count, width // group) for group in (GROUP, KEY_GROUP)]
    return (
        codes.shape == (count, width // 2)
        and scales.shape in groups
        and bool(np.isfinite(scales).all())
    )


def codes_of(memory: PackedMemory, which: str) -> Codes:
    """The codes of a memory's rows under the name "key", "value" or "soft" as tensors that share
    its bytes.
    """
    return Codes(
        tensor_of(memory.arrays[f"{which}_codes"]), tensor_of(memory.arrays[f"{which}_scales"])
    )


def tensor_of(array: NDArray[Any]) -> Tensor:
    """An array as a tensor that shares its bytes; a read-only one is copied, because torch cannot
    keep it read-only.
    """
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def batches(lengths: Sequence[int], most: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices in batches of similar length, shortest first, at most `most` padded tokens each."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[i] > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(rows: Sequence[list[int]], device: torch.device, filler: int) -> Tensor:
    """Rows of ids as one tensor [rows, length], padded at the end to a multiple of `STEP`, short
    ones of `SHORT_STEP`.
    """
    longest = max(len(r) for r in rows)
    longest += -longest % (STEP if longest > STEP else SHORT_STEP)
    return torch.tensor([r + [filler] * (longest - len(r)) for r in rows], device=device)
