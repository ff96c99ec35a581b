"""Four-bit codes for vectors: turned by a Hadamard matrix, then one half-precision scale a group.
Pure tensor code.

The turn spreads outlying channels evenly (as in QuaRot, arXiv 2404.00456): on held-out questions, a
quarter of the entries kept, it took the loss of four bits against sixteen from 0.025 to 0.003 nats
an answer token. A group of neighbouring turned values x is stored as its scale s (fp16) and one
code a value: the index of the level nearest to x / s among the 16 levels of NF4 (Dettmers et al.
2023, arXiv 2305.14314, appendix E). Two codes a byte, the first in the low half. The scale begins
at max|x| or a little below it, where fewer values are far from a level, and then is the one that
fits the codes best: a seventh less squared error than max|x| alone.

Keys have smaller groups: an error in a key changes what is attended to. On held-out questions, a
quarter of the entries kept, the rounded keys alone cost five times the divergence of the rounded
values alone, and both measures halve what they cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

GROUP = 32
KEY_GROUP = 16
FULL = (1.0, 0.9)  # shares of a group's largest value that its scale is tried at
WIDEST_TURN = 128
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
class Codes:
    """Quantised rows: `codes` uint8 [n, width / 2], `scales` float16 [n, width / group]."""

    codes: Tensor
    scales: Tensor


def quantize(rows: Tensor, group: int = GROUP) -> Codes:
    """Four-bit codes of rows [n, width], with one scale for `group` values; width must be a
    multiple of it.
    """
    count, width = rows.shape
    grouped = turn(rows.float()).reshape(count, width // group, group)
    peaks = grouped.abs().amax(-1, keepdim=True)
    tried = [_coded(grouped, share * peaks) for share in FULL]
    first = tried[0][2] <= tried[1][2]
    codes, scales = (
        torch.where(first, a, b) for a, b in zip(tried[0][:2], tried[1][:2], strict=True)
    )
    codes = codes.reshape(count, width)
    return Codes(codes[:, 0::2] | (codes[:, 1::2] << 4), scales.squeeze(-1))


def _coded(grouped: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [.., group] at these scales [.., 1], the scales that fit them best, and the squared
    error left [.., 1].
    """
    levels = torch.tensor(LEVELS, device=grouped.device)
    codes = torch.bucketize(grouped / scales.clamp(min=1e-7), (levels[1:] + levels[:-1]) / 2)
    values = levels[codes]
    fitted = (grouped * values).sum(-1, keepdim=True) / (values * values).sum(
        -1, keepdim=True
    ).clamp(min=1e-7)
    kept = fitted.clamp(min=1e-7, max=65504.0).half()
    return codes.to(torch.uint8), kept, (values * kept - grouped).square().sum(-1, keepdim=True)


def dequantize(packed: Codes) -> Tensor:
    """The rows [n, width] that the codes stand for, fp32."""
    count, half = packed.codes.shape
    groups = packed.scales.shape[1]
    values = _pairs(packed.codes.device)[packed.codes.int()].reshape(
        count, groups, 2 * half // groups
    )
    return turn((values * packed.scales.float().unsqueeze(-1)).reshape(count, 2 * half))


def through(rows: Tensor, group: int = GROUP) -> Tensor:
    """Rows [..., width] as they come back from their codes; gradients pass as if nothing had
    happened.
    """
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):  # as serving computes
        back = dequantize(quantize(rows.reshape(-1, rows.shape[-1]), group)).reshape(rows.shape)
    return rows + (back.to(rows.dtype) - rows).detach()


def turn(rows: Tensor) -> Tensor:
    """Multiply blocks of rows [n, width] by the normalised Hadamard matrix; doing it twice changes
    nothing.

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
