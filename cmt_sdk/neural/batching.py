"""Batches of token rows: similar lengths together, padded to the longest one. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

BATCH_TOKENS = 2048
# On a CPU more tokens are no faster together, and in a small batch less is padding: 4 % of 100
# passages in place of 8 % with 2,048.
CPU_BATCH_TOKENS = 768
# Rows are padded to multiples of this, which vectorised kernels like. Multiples of 64 make 25 % of
# the tokens of short passages padding; a new shape costs nothing that can be measured.
PAD_MULTIPLE = 8


def batch_tokens(device: torch.device) -> int:
    """Padded tokens per batch that suit a device."""
    return CPU_BATCH_TOKENS if device.type == "cpu" else BATCH_TOKENS


def batches(lengths: Sequence[int], most: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Yield indices in batches of similar length, shortest first.

    Args:
        lengths: Tokens of each row.
        most: Padded tokens per batch; a longer row is a batch of its own.

    Yields:
        The indices of one batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batch: list[int] = []
    for i in order:
        # Row i is the longest one so far: all rows of the batch would be padded to its length.
        if batch and (len(batch) + 1) * lengths[i] > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def in_batches(
    rows: Sequence[list[int]],
    compute: Callable[[list[list[int]]], Sequence[T]],
    most: int = BATCH_TOKENS,
) -> list[T]:
    """Run `compute` on batches of similar length; return one result per row, in the order given.

    Args:
        rows: Token ids of each row.
        compute: Takes some rows, returns one result per row.
        most: Padded tokens per batch.

    Returns:
        The results, in the order of `rows`.
    """
    found: dict[int, T] = {}  # by index of the row
    for batch in batches([len(row) for row in rows], most):
        found.update(zip(batch, compute([rows[i] for i in batch]), strict=True))
    return [found[i] for i in range(len(rows))]


def padded(rows: Sequence[list[int]], device: torch.device, filler: int) -> Tensor:
    """Stack rows of ids as one tensor, with `filler` behind the shorter ones.

    The filler needs no mask where attention is causal: no token of a row sees what is behind it.

    Args:
        rows: Token ids of each row, at least one row.
        device: Where the tensor is made.
        filler: The id of padding.

    Returns:
        int64 [rows, length]; the length is rounded up to a multiple.
    """
    longest = max(len(row) for row in rows)
    length = longest + -longest % PAD_MULTIPLE
    return torch.tensor([row + [filler] * (length - len(row)) for row in rows], device=device)


def padded_with_mask(
    rows: Sequence[list[int]], device: torch.device, filler: int
) -> tuple[Tensor, Tensor]:
    """`padded`, and a bool mask [rows, length] that is True for the rows' own tokens."""
    tokens = padded(rows, device, filler)  # (rows, length)
    lengths = torch.tensor([len(row) for row in rows], device=device)  # (rows,)
    steps = torch.arange(tokens.shape[1], device=device)  # (length,)
    return tokens, steps[None] < lengths[:, None]
