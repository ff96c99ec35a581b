"""Four-bit codes for vectors: rows in groups, one half-precision scale a group. Pure tensor code, no model, no file.

A group of `GROUP` neighbouring values x is stored as its scale s = max|x| (fp16) and one code a value: the index of
the level nearest to x / s among the 16 levels of NF4 (Dettmers et al. 2023, arXiv 2305.14314, appendix E).
Two codes a byte, the first in the low half.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 32
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Codes:
    """Quantised rows: `codes` uint8 [n, width / 2], `scales` float16 [n, width / GROUP]."""

    codes: Tensor
    scales: Tensor


def quantize(rows: Tensor) -> Codes:
    """Four-bit codes of rows [n, width]; width must be a multiple of `GROUP`."""
    count, width = rows.shape
    grouped = rows.float().reshape(count, width // GROUP, GROUP)
    scales = grouped.abs().amax(-1).clamp(min=1e-7, max=65504.0).half()
    levels = torch.tensor(LEVELS, device=rows.device)
    borders = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(grouped / scales.float().unsqueeze(-1), borders).to(torch.uint8).reshape(count, width)
    return Codes(codes[:, 0::2] | (codes[:, 1::2] << 4), scales)


def dequantize(packed: Codes, dtype: torch.dtype) -> Tensor:
    """The rows [n, width] that the codes stand for, in `dtype`."""
    count, half = packed.codes.shape
    pairs = _pairs(dtype, packed.codes.device)
    values = pairs[packed.codes.int()].reshape(count, 2 * half // GROUP, GROUP)
    return (values * packed.scales.to(dtype).unsqueeze(-1)).reshape(count, 2 * half)


_tables: dict[tuple[torch.dtype, torch.device], Tensor] = {}


def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Both values of every byte, [256, 2]: one look-up then decodes two values."""
    if (dtype, device) not in _tables:
        byte = torch.arange(256, device=device)
        levels = torch.tensor(LEVELS, device=device)
        _tables[dtype, device] = torch.stack([levels[byte & 15], levels[byte >> 4]], dim=1).to(dtype)
    return _tables[dtype, device]
