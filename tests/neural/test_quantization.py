"""Four-bit codes: what they lose is bounded, and numpy alone can read them."""

import numpy as np
import pytest
import torch

from cmt_sdk.neural.quantization import GROUP, LEVELS, Codes, dequantize, quantize


def test_levels_come_back_exactly():
    """Values that are levels times a scale that fp16 holds are restored without any loss."""
    rows = torch.tensor(LEVELS).repeat(3, 4) * torch.tensor([[0.5], [1.0], [8.0]])
    assert torch.equal(dequantize(quantize(rows), torch.float32), rows)


def test_error_is_at_most_half_a_step():
    """No value is further from its own than half the widest gap between levels, times its group's largest value."""
    torch.manual_seed(0)
    rows = torch.randn(50, 96)
    error = (dequantize(quantize(rows), torch.float32) - rows).abs().reshape(50, -1, GROUP)
    largest = rows.abs().reshape(50, -1, GROUP).amax(-1, keepdim=True)
    widest = max(b - a for a, b in zip(LEVELS, LEVELS[1:], strict=False))
    assert bool((error <= largest * (widest / 2 + 1e-3)).all())


def test_numpy_reads_the_codes():
    """The documented layout: low half first, level times the group's scale."""
    torch.manual_seed(1)
    codes = quantize(torch.randn(5, 64))
    packed, scales = codes.codes.numpy(), codes.scales.numpy().astype(np.float32)
    numbers = np.stack([packed & 15, packed >> 4], axis=-1).reshape(5, 64)
    read = np.array(LEVELS, np.float32)[numbers] * np.repeat(scales, GROUP, axis=1)
    np.testing.assert_array_equal(read, dequantize(codes, torch.float32).numpy())


@pytest.mark.parametrize("rows", [torch.zeros(2, 32), torch.full((2, 32), 1e6), torch.full((1, 32), -1e-9)])
def test_extremes_stay_finite(rows):
    """Zeros, values beyond fp16 and values below it give finite rows of the same sign."""
    back = dequantize(quantize(rows), torch.float32)
    assert bool(torch.isfinite(back).all())
    assert bool((back * rows >= 0).all())


def test_no_rows():
    """Nothing to quantise is an empty array of the right width."""
    codes = quantize(torch.zeros(0, 64))
    assert codes == Codes(codes.codes, codes.scales)
    assert codes.codes.shape == (0, 32)
    assert codes.scales.shape == (0, 2)
    assert dequantize(codes, torch.float32).shape == (0, 64)
