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

from cmt_sdk.reading.codes import LEVELS, MAX_BLOCK

GROUP = 32
KEY_GROUP = 16
SCALE_SHARES = (1.0, 0.9)  # of a group's largest value: the scales that are tried


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """n quantised rows.

    Attributes:
        codes: uint8 [n, width / 2], two values per byte, the first one in the low half.
        scales: float16 [n, width / group], one per group.
    """

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
    first, second = (_encode_at(grouped, share * peaks) for share in SCALE_SHARES)
    is_first = first.error <= second.error  # (n, groups, 1)
    codes = torch.where(is_first, first.codes, second.codes)  # (n, groups, group)
    scales = torch.where(is_first, first.scales, second.scales).squeeze(-1)  # (n, groups)
    by_value = codes.reshape(count, width)
    low = by_value[:, 0::2]  # (n, width / 2)
    high = by_value[:, 1::2] << 4
    return QuantizedRows(low | high, scales)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Grouped values as codes at one try of the scales.

    Attributes:
        codes: uint8 [n, groups, group], one code per value.
        scales: float16 [n, groups, 1], refitted.
        error: Squared error of each group, fp32 [n, groups, 1].
    """

    codes: Tensor
    scales: Tensor
    error: Tensor


def _encode_at(grouped: Tensor, scales: Tensor) -> _Encoded:
    """Encode grouped values [n, groups, group] at scales [n, groups, 1], then refit the scales."""
    levels = torch.from_numpy(LEVELS).to(device=grouped.device)  # (16,)
    # A value between two borders is nearest to the level between them.
    borders = (levels[1:] + levels[:-1]) / 2  # (15,)
    # A group of zeros has scale 0; the bounds below keep its quotients finite.
    codes = torch.bucketize(grouped / scales.clamp(min=1e-7), borders)  # (n, groups, group)
    values = levels[codes]  # (n, groups, group)
    # The scale s that minimises |s values - grouped|^2 is <grouped, values> / <values, values>.
    power = (values * values).sum(-1, keepdim=True).clamp(min=1e-7)  # (n, groups, 1)
    fitted = (grouped * values).sum(-1, keepdim=True) / power
    stored = fitted.clamp(min=1e-7, max=65504.0).half()  # the range of fp16
    error = (values * stored - grouped).square().sum(-1, keepdim=True)  # (n, groups, 1)
    return _Encoded(codes.to(torch.uint8), stored, error)


def dequantize(packed: QuantizedRows) -> Tensor:
    """The rows that the codes stand for.

    Args:
        packed: n quantised rows, with groups of any size.

    Returns:
        fp32 [n, width].
    """
    count, half = packed.codes.shape
    groups = packed.scales.shape[1]
    pairs = _pair_table(packed.codes.device)[packed.codes.int()]  # (n, width / 2, 2)
    values = pairs.reshape(count, groups, 2 * half // groups)  # (n, groups, group)
    scaled = values * packed.scales.float().unsqueeze(-1)
    return hadamard(scaled.reshape(count, 2 * half))  # (n, width)


def fake_quantize(rows: Tensor, group: int = GROUP) -> Tensor:
    """Rows after a round trip through their codes, with the gradient of the identity (a
    straight-through estimator: Bengio et al. 2013, arXiv 1308.3432).

    Args:
        rows: [..., width].
        group: Values that share one scale.

    Returns:
        The shape and the type of `rows`.
    """
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):  # as serving computes
        flat = rows.reshape(-1, rows.shape[-1])  # (n, width)
        back = dequantize(quantize(flat, group)).reshape(rows.shape)
    return rows + (back.to(rows.dtype) - rows).detach()


def hadamard(rows: Tensor) -> Tensor:
    """Multiply blocks of rows [n, width] by the normalised Hadamard matrix, its own inverse.

    A block is the largest power of two that divides the width, at most `MAX_BLOCK`.
    """
    block = min(rows.shape[1] & -rows.shape[1], MAX_BLOCK)  # x & -x: the lowest bit of x
    blocks = rows.reshape(-1, block)  # (n * width / block, block)
    transformed: Tensor = blocks @ _hadamard_matrix(block).to(rows.device)
    return transformed.reshape(rows.shape)


@lru_cache
def _hadamard_matrix(size: int) -> Tensor:
    """Sylvester's matrix [size, size] over the root of its size: symmetric, its own inverse."""
    # An ordinary tensor, not one of inference mode: it is cached and later used with gradients.
    with torch.inference_mode(False):
        matrix = torch.ones(1, 1)
        while len(matrix) < size:  # H(2k) = [[H(k), H(k)], [H(k), -H(k)]]
            upper = torch.cat([matrix, matrix], 1)  # (k, 2k)
            lower = torch.cat([matrix, -matrix], 1)
            matrix = torch.cat([upper, lower])  # (2k, 2k)
        matrix /= size**0.5
        return matrix


@lru_cache
def _pair_table(device: torch.device) -> Tensor:
    """The two values of every byte, [256, 2], so that one look-up decodes two values."""
    with torch.inference_mode(False):
        byte = torch.arange(256, device=device)  # (256,)
        levels = torch.from_numpy(LEVELS).to(device=device)  # (16,)
        return torch.stack([levels[byte & 15], levels[byte >> 4]], dim=1)
