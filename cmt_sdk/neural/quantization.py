"""Four-bit codes for vectors: a Hadamard transform, then one half-precision scale per group.

The transform spreads outlying channels evenly (as in QuaRot, arXiv 2404.00456): on held-out
questions, with a quarter of the entries kept, it reduced the loss of four bits against sixteen from
0.025 to 0.003 nats per answer token. A group of neighbouring transformed values x is stored as its
scale s (fp16) and one code per value: the index of the level nearest to x / s among the 16 levels
of NF4 (Dettmers et al. 2023, arXiv 2305.14314, appendix E). Two codes share a byte, the first one
in the low half. The scale starts at max|x| or a little below it, where fewer values are far from a
level, and is then refitted to the codes: a seventh less squared error than max|x| alone.

Keys have smaller groups: an error in a key changes what is attended to. On held-out questions, with
a quarter of the entries kept, rounding the keys alone costs five times the divergence of rounding
the values alone, and both measures halve their cost. Pure tensor code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

GROUP = 32
KEY_GROUP = 16
SCALE_SHARES = (1.0, 0.9)  # of a group's largest value: the scales that are tried
MAX_BLOCK = 128  # of the Hadamard transform
LEVELS = (
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
)


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Quantised rows: `codes` uint8 [n, width / 2], `scales` float16 [n, width / group]."""

    codes: Tensor
    scales: Tensor


def quantize(rows: Tensor, group: int = GROUP) -> QuantizedRows:
    """Quantise rows [n, width] to four bits a value.

    1. Transform the rows by a Hadamard matrix, which spreads outlying channels.
    2. Divide each group of `group` neighbouring values by a scale: each share in SCALE_SHARES of
       the group's largest absolute value is tried.
    3. Round each quotient to the nearest level; its index is the code.
    4. Refit the scale to the codes by least squares, and keep the try with the smaller error.
    5. Put two codes into one byte.

    Args:
        rows: [n, width]; the width is a multiple of `group`.
        group: Values that share one scale.
    """
    count, width = rows.shape
    grouped = hadamard(rows.float()).reshape(count, width // group, group)  # (n, groups, group)
    peaks = grouped.abs().amax(-1, keepdim=True)  # (n, groups, 1)
    first, second = (_encoded(grouped, share * peaks) for share in SCALE_SHARES)
    is_first = first.error <= second.error  # (n, groups, 1)
    codes = torch.where(is_first, first.codes, second.codes).reshape(count, width)
    scales = torch.where(is_first, first.scales, second.scales).squeeze(-1)  # (n, groups)
    return QuantizedRows(codes[:, 0::2] | (codes[:, 1::2] << 4), scales)  # (n, width / 2)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """QuantizedRows [n, groups, group], their scales and the squared error, both [n, groups, 1]."""

    codes: Tensor
    scales: Tensor
    error: Tensor


def _encoded(grouped: Tensor, scales: Tensor) -> _Encoded:
    """QuantizedRows of grouped values [n, groups, group] at scales [n, groups, 1], and the refitted
    scales.
    """
    levels = torch.tensor(LEVELS, device=grouped.device)
    borders = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(grouped / scales.clamp(min=1e-7), borders)
    values = levels[codes]  # (n, groups, group)
    power = (values * values).sum(-1, keepdim=True).clamp(min=1e-7)
    fitted = (grouped * values).sum(-1, keepdim=True) / power  # least squares
    stored = fitted.clamp(min=1e-7, max=65504.0).half()  # the range of fp16
    error = (values * stored - grouped).square().sum(-1, keepdim=True)
    return _Encoded(codes.to(torch.uint8), stored, error)


def dequantize(packed: QuantizedRows) -> Tensor:
    """The rows [n, width] that the codes stand for, fp32."""
    count, half = packed.codes.shape
    groups = packed.scales.shape[1]
    pairs = _pairs(packed.codes.device)[packed.codes.int()]  # (n, width / 2, 2)
    values = pairs.reshape(count, groups, 2 * half // groups)
    scaled = values * packed.scales.float().unsqueeze(-1)
    return hadamard(scaled.reshape(count, 2 * half))


def fake_quantize(rows: Tensor, group: int = GROUP) -> Tensor:
    """Rows [..., width] after a round trip through their codes, with a straight-through gradient:
    that of the identity.
    """
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):  # as serving computes
        back = dequantize(quantize(rows.reshape(-1, rows.shape[-1]), group)).reshape(rows.shape)
    return rows + (back.to(rows.dtype) - rows).detach()


def hadamard(rows: Tensor) -> Tensor:
    """Multiply blocks of rows [n, width] by the normalised Hadamard matrix, its own inverse.

    A block is the largest power of two that divides the width, at most `MAX_BLOCK`.
    """
    block = min(rows.shape[1] & -rows.shape[1], MAX_BLOCK)
    transformed: Tensor = rows.reshape(-1, block) @ _hadamard_matrix(block).to(rows.device)
    return transformed.reshape(rows.shape)


@lru_cache
def _hadamard_matrix(size: int) -> Tensor:
    """Sylvester's matrix [size, size] over the root of its size: symmetric, its own inverse."""
    # An ordinary tensor, not one of inference mode: it is cached and later used with gradients.
    with torch.inference_mode(False):
        matrix = torch.ones(1, 1)
        while len(matrix) < size:
            upper = torch.cat([matrix, matrix], 1)
            lower = torch.cat([matrix, -matrix], 1)
            matrix = torch.cat([upper, lower])
        matrix /= size**0.5
        return matrix


@lru_cache
def _pairs(device: torch.device) -> Tensor:
    """The two values of every byte, [256, 2], so that one look-up decodes two values."""
    with torch.inference_mode(False):
        byte = torch.arange(256, device=device)
        levels = torch.tensor(LEVELS, device=device)
        return torch.stack([levels[byte & 15], levels[byte >> 4]], dim=1)
