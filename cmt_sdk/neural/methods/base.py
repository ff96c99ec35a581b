"""What a compression method is, and what methods share. Knows no particular method.

A method turns passages into memories (`compress`) and memories into entries that the model attends
to (`cache`). To add one, write a subclass of CompressionMethod in a file of its own and give it a
row in cmt_sdk/config/methods.py: other code asks that row for what differs between methods, never
for a name. Only the package `cpu` reads the passages of one method, kv, by code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmt_sdk.config.settings import Settings
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.quantization import GROUP, KEY_GROUP, QuantizedRows
from cmt_sdk.types import CompressedPassage

T = TypeVar("T")


class TrainedParts(Protocol):
    """Gives a method the tensors that were trained for it."""

    def __call__(self, name: str, build: Callable[[Mapping[str, Tensor]], T], /) -> T | None:
        """Build an object from a part of the adapter.

        Args:
            name: The part, such as "aggregate".
            build: Takes its tensors by name.

        Returns:
            What `build` returns; None where the adapter has no such part.
        """


class CompressionMethod(Protocol):
    """Makes memories of passages, and entries to attend to of memories.

    Attributes:
        lm: The frozen model.
        adapter: The adapter that is on while question and answer are read: "reader", or "bare" for
            none.
    """

    lm: FrozenModel
    adapter: ClassVar[str] = "reader"

    @classmethod
    def create(
        cls, lm: FrozenModel, settings: Settings, trained: TrainedParts
    ) -> CompressionMethod:
        """Make the method for a model with the settings of a memory.

        Args:
            lm: The model.
            settings: Those of the memory; a method reads the fields that it uses.
            trained: Gives the tensors that were trained for it.

        Raises:
            ModelUnsupported: The model cannot read such memories.
            InvalidSetting: The adapter lacks a part that the settings need.
        """

    def compress(self, passages: Sequence[str]) -> list[CompressedPassage]:
        """Make one memory per passage, in the order given.

        Raises:
            InvalidInput: The model cannot hold a passage.
        """

    def uncompressed(self, passages: Sequence[str]) -> list[CompressedPassage]:
        """Passages as `cache` takes them, for one question: with all that the model makes of them
        in one forward pass, where the method can lay that out among its memories.
        """
        return self.compress(passages)

    def is_valid(self, memory: CompressedPassage) -> bool:
        """Whether a memory from an archive or another database is complete, and one of this model
        and method: its checksum alone does not show that.
        """

    def cache(
        self,
        rows: Sequence[Sequence[CompressedPassage]],
        *,
        question: str = "",
        room: int = 0,
        bias: float = 0.0,
    ) -> MemoryCache:
        """Lay memories out behind the prompt's prefix.

        Args:
            rows: The memories of each prompt, in the order in which they are read.
            question: The question, for methods whose entries depend on it; "" to read memories
                without one, as scoring does.
            room: New tokens to leave space for; with more than 0 there is one row.
            bias: Added to the attention logits of all memories of a row but the last.

        Returns:
            A cache of one row per prompt, each with its new tokens starting behind its memories.
        """

    def positions(self, memories: Sequence[CompressedPassage]) -> int:
        """Positions that the memories of one prompt take up, as far as they are known before the
        question is: one per token of their passages.
        """
        return sum(memory.tokens for memory in memories)

    def fingerprint(self) -> Mapping[str, Any]:
        """The fields of types.Fingerprint that this method decides: at least `compressor` and
        `keep`. Memories with equal fingerprints can be read together.
        """


def has_valid_codes(memory: CompressedPassage, which: str, count: int, width: int) -> bool:
    """Whether a memory holds finite four-bit rows of a given number and width.

    Args:
        memory: The memory, from wherever it is.
        which: The name of the rows: "key", "value" or "soft".
        count: Their number.
        width: Values per row.
    """
    codes = memory.arrays.get(f"{which}_codes")
    scales = memory.arrays.get(f"{which}_scales")
    if codes is None or scales is None or codes.dtype != np.uint8 or scales.dtype != np.float16:
        return False
    # Either size of group is read: the shape of the scales tells which one was used.
    groups = [(count, width // group) for group in (GROUP, KEY_GROUP)]
    return (
        codes.shape == (count, width // 2)
        and scales.shape in groups
        and bool(np.isfinite(scales).all())
    )


def quantized_rows(memory: CompressedPassage, which: str) -> QuantizedRows:
    """The four-bit rows of a memory under the name "key", "value" or "soft", as tensors that share
    its bytes.
    """
    codes = as_tensor(memory.arrays[f"{which}_codes"])  # (n, width / 2)
    scales = as_tensor(memory.arrays[f"{which}_scales"])  # (n, groups)
    return QuantizedRows(codes, scales)


def as_tensor(array: NDArray[Any]) -> Tensor:
    """An array as a tensor that shares its bytes; torch has no read-only tensors, so a read-only
    array is copied.
    """
    return torch.from_numpy(array if array.flags.writeable else array.copy())
