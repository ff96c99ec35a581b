"""The bytes that a model takes: weights in memory, and its compressed passages on the disk.

Computed from a few numbers of its configuration, before anything is fetched or loaded. Knows no
torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmt_sdk.config.methods import kept_share

FOUR_BITS = 0.5 + 4 / 64  # bytes a value in NF4: half a byte, and an fp32 scale for 64 values
WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4}
# Bytes of a compressed key and value together, per value of one: two codes of four bits, an fp16
# scale for 16 values of the key and for 32 of the value (docs/format.md).
ENTRY = 0.5 + 2 / 16 + 0.5 + 2 / 32
PASSAGE_TOKENS = 150  # of the passage that sizes are given for: a paragraph of some hundred words


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a model's configuration that its sizes follow from.

    Attributes:
        parameters: All of them.
        embedding: Those of the input embeddings, and of an output layer of its own, which NF4 does
            not quantise.
        layers: Layers with a KV cache.
        kv_heads: Key-value heads of a layer.
        head_size: Values of a head.
    """

    parameters: int
    embedding: int
    layers: int
    kv_heads: int
    head_size: int

    def weights(self, precision: str, computed: str = "bf16") -> int:
        """Bytes of the weights in memory.

        Args:
            precision: "nf4", "bf16", "fp16" or "fp32".
            computed: The precision that NF4 weights compute in, "bf16" or "fp32"; their embeddings
                have it too.
        """
        if precision == "nf4":
            quantised = FOUR_BITS * (self.parameters - self.embedding)
            return round(quantised + WIDTHS[computed] * self.embedding)
        return WIDTHS[precision] * self.parameters

    def passage(self, compression: float, at_least: int, tokens: int = PASSAGE_TOKENS) -> int:
        """Bytes of a passage that the method `kv` compresses.

        Args:
            compression: As in the settings.
            at_least: The setting `keep_at_least`.
            tokens: Tokens of the passage.
        """
        heads = self.layers * self.kv_heads
        kept = tokens * kept_share(tokens, 1 / compression, at_least)
        means = 2 * self.head_size  # of the keys, in fp16
        return round(heads * (kept * self.head_size * ENTRY + tokens / 8 + means))
