"""Tensors of safetensors files as numpy arrays, bf16 included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from cmt_sdk.errors import ModelError

INDEX = "model.safetensors.index.json"
TYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype(np.float64),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
}


@dataclass(frozen=True)
class Checkpoint(Mapping[str, NDArray[Any]]):
    """The tensors of a model's folder by name, read from the disk as they are used.

    Attributes:
        folder: Holds model.safetensors, or several files and their index.
    """

    folder: Path

    @cached_property
    def _tensors(self) -> dict[str, NDArray[Any]]:
        index = self.folder / INDEX
        if not index.exists():
            return mapped(self.folder / "model.safetensors")
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {file: mapped(self.folder / file) for file in set(names.values())}
        return {name: files[file][name] for name, file in names.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def mapped(file: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file by name, in the types that they are stored in.

    They are read from the disk as they are used: who keeps one copies it, unless the file never
    changes. A file is: the header's length in 8 bytes, little-endian; the header as JSON, with each
    tensor's type, shape, first byte and the one after its last; the bytes.

    Raises:
        ModelError: The file is damaged.
    """
    try:
        data = np.memmap(file, np.uint8, "r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        return {
            name: np.ndarray(
                tensor["shape"], TYPES[tensor["dtype"]], data, start + tensor["data_offsets"][0]
            )
            for name, tensor in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"{file} is not a safetensors file: {error!r:.100}") from error


def read_tensors(file: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors of a file, in float32. Raises ModelError for a damaged file."""
    return {name: tensor.astype(np.float32) for name, tensor in mapped(file).items()}
