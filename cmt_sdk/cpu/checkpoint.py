"""Tensors of safetensors files as numpy arrays, bf16 included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - gives numpy the type bfloat16
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cmt_sdk.errors import ModelError

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint(Mapping[str, NDArray[Any]]):
    """The tensors of a model's folder by name, each read from the disk when it is asked for.

    Attributes:
        folder: Holds model.safetensors, or several files and their index.
    """

    folder: Path

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The file of each tensor."""
        index = self.folder / INDEX
        if index.exists():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {name: self.folder / file for name, file in names.items()}
        file = self.folder / "model.safetensors"
        return dict.fromkeys(names_in(file), file)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return read_tensor(self._files[name], name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def names_in(file: Path) -> list[str]:
    """The names of a file's tensors. Raises ModelError for a damaged file."""
    try:
        with safe_open(file, "np") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is not a safetensors file: {error}") from error


def read_tensor(file: Path, name: str) -> NDArray[Any]:
    """A tensor of a file, in the type that it is stored in. Raises ModelError for a damaged
    file.
    """
    try:
        with safe_open(file, "np") as opened:
            tensor: NDArray[Any] = opened.get_tensor(name)
            return tensor
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is not a safetensors file: {error}") from error


def read_tensors(file: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors of a file, in float32. Raises ModelError for a damaged file."""
    try:
        with safe_open(file, "np") as opened:
            return {n: opened.get_tensor(n).astype(np.float32) for n in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is not a safetensors file: {error}") from error
