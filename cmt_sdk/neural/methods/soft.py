"""The method `soft`: windows of a passage's states become soft tokens (CMT, arXiv 2412.07393),
merged where little is lost.

1. A passage runs through the first layers of the frozen model, with the encoder adapter.
2. Neighbouring states that differ least are merged (`ward.py`) until one in `ratio` is left.
3. A soft token is the sum of its window's states over the root of the window's length, in four
   bits.
4. To be read, soft tokens run through the later layers (`soft_tokens.py`).
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
from torch.nn.functional import rms_norm

from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import InvalidInput, ModelUnsupported
from cmt_sdk.neural.batching import batch_tokens, in_batches, padded
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.compatibility import NO_REMEDY, check_cached_reading, compare, read_probe
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import (
    CompressionMethod,
    TrainedParts,
    has_valid_codes,
    quantized_rows,
)
from cmt_sdk.neural.methods.soft_tokens import SoftTokens, merge_layer, soft_cache, window_sizes
from cmt_sdk.neural.methods.ward import merge_windows
from cmt_sdk.neural.partial_forward import run_until
from cmt_sdk.neural.quantization import GROUP, dequantize, quantize
from cmt_sdk.reading.limits import MAX_PASSAGE_TOKENS
from cmt_sdk.types import CompressedPassage

KIND = "soft"


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
        """See CompressionMethod.compress."""
        ids = [self.lm.passage_ids(passage) for passage in passages]
        with self.lm.activate("encoder"):
            made = in_batches(ids, self.encode, batch_tokens(self.lm.device))
        return [_packed(soft) for soft in made]

    def encode(self, ids: Sequence[list[int]]) -> list[SoftTokens]:
        """The soft tokens of passages, by the adapter that is on, and with gradients where they are
        on.

        Which states are merged has no gradient; their sums do.

        Args:
            ids: Token ids of each passage.

        Returns:
            In the order given, `ceil(tokens / ratio)` soft tokens each.

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
        # Normed, as every layer norms what it reads: the size of a state says little.
        normed = rms_norm(states.detach(), states.shape[-1:])  # (B, n, d)
        windows = merge_windows(normed, lengths, counts)
        made = []
        for row, ends, length in zip(states, windows, lengths, strict=True):
            sizes = window_sizes(ends).to(row.device)  # (m,)
            owner = torch.repeat_interleave(sizes, output_size=length)  # (length,) its window
            zeros = row.new_zeros(len(ends), row.shape[1])  # (m, d)
            sums = zeros.index_add(0, owner, row[:length])
            # Over the root: the sum of k independent states is root k times as long as one of them.
            made.append(SoftTokens(sums / sizes.sqrt()[:, None], ends))
        return made

    def is_valid(self, memory: CompressedPassage) -> bool:
        """See CompressionMethod.is_valid: the arrays agree in number, type and width, and are those
        of this ratio.
        """
        width = self.lm.model.get_input_embeddings().weight.shape[1]
        ends = memory.arrays.get("soft_ends")
        if memory.kind != KIND or not 0 < memory.tokens <= MAX_PASSAGE_TOKENS or ends is None:
            return False
        count = -(-memory.tokens // self.ratio)
        if (ends.dtype, ends.shape) != (np.dtype(np.uint8), (count, 2)):
            return False
        rising = np.diff(_ends(memory), prepend=-1) > 0  # no window is empty
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
    """Quantise a passage's soft tokens."""
    quantized = quantize(soft.rows)
    arrays = {
        "soft_codes": quantized.codes.cpu().numpy(),
        "soft_scales": quantized.scales.cpu().numpy(),
        # two bytes per end, as the format has no 16-bit integers
        "soft_ends": soft.ends.numpy().astype("<u2")[:, None].view(np.uint8),
    }
    return CompressedPassage(KIND, soft.tokens, arrays)


def _ends(memory: CompressedPassage) -> NDArray[np.int64]:
    """The last token of each window, [m], from pairs of bytes [m, 2]."""
    return memory.arrays["soft_ends"].view("<u2")[:, 0].astype(np.int64)


def unpacked(memories: Sequence[CompressedPassage], lm: FrozenModel) -> list[SoftTokens]:
    """The memories' soft tokens, as they are after four bits, on the model's device."""
    made = []
    for memory in memories:
        rows = dequantize(quantized_rows(memory, "soft")).to(lm.device)
        made.append(SoftTokens(rows, torch.from_numpy(_ends(memory))))
    return made


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
    own = [layer.keys[:1] for layer in probe.cache.layers]  # (1, KV, n, d) each
    check_cached_reading(lm, probe, own, row=0)
    # Windows of one token each are the tokens themselves: their entries must be those of the text.
    (soft,) = SoftMethod(lm, 1).encode([probe.ids[0].tolist()])
    made = soft_cache(lm, [[soft]])
    start = len(lm.prefix_ids)
    cache = lm.prefix_cache(1)
    lm.forward(cache, input_ids=probe.ids[:1], position_ids=probe.positions[:1] + start)
    first = merge_layer(lm)
    for number in range(first, len(cache.layers)):
        keys = cache.layers[number].keys[:, :, start:]  # (1, KV, n, d)
        problem = f"layer {number} does not go on from states of layer {first}"
        compare(lm, made.keys[number][:, :, start:], keys, problem, "soft", NO_REMEDY)
