"""Decodes the four-bit rows of a memory: NF4 levels, one scale a group, a Hadamard transform.
docs/format.md defines them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.types import CompressedPassage

Floats = NDArray[np.float32]
MAX_BLOCK = 128  # of the Hadamard transform
# The levels of NF4 (Dettmers et al. 2023, arXiv 2305.14314, appendix E).
LEVELS = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)


def decoded(memory: CompressedPassage, which: str) -> Floats:
    """The four-bit rows of a memory under the name "key" or "value", [n, head_dim]."""
    codes = memory.arrays[f"{which}_codes"].view(np.uint8)
    scales = memory.arrays[f"{which}_scales"].astype(np.float32)
    groups = scales.shape[1]
    width = 2 * codes.shape[1]
    values = _pairs().take(codes).view(np.float32).reshape(len(codes), groups, -1)
    values *= scales[:, :, None]
    block = min(width & -width, MAX_BLOCK)
    rows: Floats = (values.reshape(-1, block) @ hadamard(block)).reshape(len(codes), width)
    return rows


@lru_cache(maxsize=1)
def _pairs() -> NDArray[np.complex64]:
    """The two values of every byte as one number of eight bytes, which is the fastest to look up,
    [256].
    """
    byte = np.arange(256)
    return np.stack([LEVELS[byte & 15], LEVELS[byte >> 4]], axis=1).view(np.complex64)[:, 0]


@lru_cache(maxsize=4)
def hadamard(size: int) -> Floats:
    """Sylvester's matrix [size, size] over the root of its size: symmetric, its own inverse.

    Args:
        size: A power of 2.
    """
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.float32(size**0.5)
