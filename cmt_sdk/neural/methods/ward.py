"""Ward merging: which neighbouring states become one soft token (Ward 1963, Hierarchical grouping
to optimize an objective function). Pure array code.

A passage's n states are n windows at first; neighbouring windows are merged, one pair at a time,
until the wanted number is left. Each time the pair is merged whose merging adds the least squared
error, the error being the squared distance of all states to the mean of their window. Only
neighbours are merged, so a window is a stretch of the text, and its order stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

Array: TypeAlias = NDArray[Any]


def merge_windows(states: Tensor, lengths: Sequence[int], counts: Sequence[int]) -> list[Tensor]:
    """Merge neighbouring windows of states until a given number is left.

    1. Compute the inner products of all states of a row, and their two-dimensional prefix sums: the
       sum over any block of products is then four look-ups, and so is the cost of a merge.
    2. Start with one window per state. `ends[start]` is where the window that begins at `start`
       ends, `before[start]` where the window before it begins.
    3. Merge the window that is cheapest to merge with its successor: the one that adds the least
       squared error.
    4. Recompute the costs of the merged window and of the one before it; all others stay.
    5. Repeat 3 and 4 until the row has its number of windows. All rows advance together, one merge
       per step; a row that is done merges at an index behind its states.

    numpy on the CPU: there is one step per merge, and a step is a look over n costs.

    Args:
        states: [b, n, d], n at least the longest row's length; states behind a row's end are
            ignored.
        lengths: Number of states of each row.
        counts: Number of windows of each row, at most its length.

    Returns:
        By row, the last index of each window, int64 [count], on the CPU.
    """
    rows = np.arange(len(states))[:, None]  # (b, 1)
    longest = states.shape[1]
    length = np.array(lengths)[:, None]  # (b, 1)
    surplus = np.subtract(lengths, counts)[:, None]  # (b, 1) merges to do
    # Step 1.
    sums = _prefix_sums(states)  # (b, n + 1, n + 1)
    # Step 2. Index n is behind all states: a window there takes the merges of rows that are done.
    starts = np.arange(longest + 1)[None].repeat(len(states), axis=0)  # (b, n + 1)
    ends = np.minimum(starts + 1, longest)  # (b, n + 1)
    before = np.roll(starts, 1, axis=1)  # (b, n + 1)
    begins = starts < length  # (b, n + 1) whether a window begins here
    costs = _merge_costs(sums, ends, starts, length)  # (b, n + 1)
    for done in range(surplus.max(initial=0)):
        # Step 3.
        start = np.where(done < surplus, costs.argmin(1)[:, None], longest)  # (b, 1)
        gone = ends[rows, start]  # (b, 1) the successor, which the window at `start` takes in
        after = ends[rows, gone]  # (b, 1)
        ends[rows, start] = after
        before[rows, after] = start
        begins[rows, gone] = False
        costs[rows, gone] = np.inf
        # Step 4.
        changed = np.concatenate([start, before[rows, start]], axis=1)  # (b, 2)
        costs[rows, changed] = _merge_costs(sums, ends, changed, length)
    return [torch.from_numpy(row[kept] - 1) for row, kept in zip(ends, begins, strict=True)]


def _prefix_sums(states: Tensor) -> Array:
    """float64 [b, n + 1, n + 1]: at [i, j] the sum of the products of all states before i with all
    states before j.
    """
    # MPS has no float64.
    device = "cpu" if states.device.type == "mps" else states.device
    with torch.autocast(states.device.type, enabled=False):
        products = states @ states.mT  # (b, n, n)
        # Costs are small differences of large sums: fp32 would lose their digits.
        products = products.to(device, torch.float64)
    sums = products.cumsum(1).cumsum(2)  # (b, n, n)
    return pad(sums, (1, 0, 1, 0)).cpu().numpy()


def _merge_costs(sums: Array, ends: Array, starts: Array, length: Array) -> Array:
    """The squared error that merging windows with their successors adds; inf for a last window.

    Ward's criterion: for windows of l and r states it is l r / (l + r) times the squared distance
    between their means.

    Args:
        sums: [b, n + 1, n + 1], as in `_prefix_sums`.
        ends: [b, n + 1], where the window that begins at an index ends.
        starts: [b, k], where the windows begin.
        length: [b, 1], states of each row.

    Returns:
        [b, k].
    """
    rows = np.arange(len(sums))[:, None]
    middles = ends[rows, starts]  # (b, k) where the successors begin
    stops = ends[rows, middles]  # (b, k) where the successors end
    # At least 1: the window behind all states is empty, and its cost is replaced below.
    left = np.maximum(middles - starts, 1)  # (b, k) states of the windows
    right = np.maximum(stops - middles, 1)  # (b, k) states of their successors
    start_start = sums[rows, starts, starts]
    start_middle = sums[rows, starts, middles]
    start_stop = sums[rows, starts, stops]
    middle_middle = sums[rows, middles, middles]
    middle_stop = sums[rows, middles, stops]
    stop_stop = sums[rows, stops, stops]
    # The sum over a block of products, from its four corners. The products of a window with itself
    # add up to the squared norm of the sum of its states.
    first = middle_middle - 2 * start_middle + start_start
    second = stop_stop - 2 * middle_stop + middle_middle
    both = middle_stop - start_stop - middle_middle + start_middle
    # |a / l - b / r|^2 for the sums a and b.
    distance = first / left**2 + second / right**2 - 2 * both / (left * right)
    return np.where(middles < length, left * right / (left + right) * distance, np.inf)
