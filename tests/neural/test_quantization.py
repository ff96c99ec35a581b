"""Four-bit codes: what they lose is bounded, and numpy alone can read them."""

import numpy as np
import pytest
import torch

from cmt_sdk.neural.quantization import KEY_GROUP, LEVELS, dequantize, hadamard, quantize


def test_the_turn_is_its_own_inverse_and_keeps_lengths():
    """Widths with and without large powers of two; the first row of a turned unit vector is
    flat.
    """
    for width in (32, 64, 96, 576):
        rows = torch.randn(7, width)
        torch.testing.assert_close(hadamard(hadamard(rows)), rows, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            hadamard(rows).norm(dim=1), rows.norm(dim=1), atol=1e-4, rtol=1e-5
        )
    assert hadamard(torch.eye(64))[0].tolist() == [0.125] * 64


def test_levels_come_back():
    """Turned rows that are levels times a scale that fp16 holds are restored, but for the turn's
    own rounding.
    """
    rows = hadamard(torch.tensor(LEVELS).repeat(3, 4) * torch.tensor([[0.5], [1.0], [8.0]]))
    torch.testing.assert_close(dequantize(quantize(rows)), rows, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("group", [16, 32])
def test_error_is_less_than_at_the_largest_value_for_scale(group):
    """Each group loses no more, squared, than the level nearest to x / max|x| loses; all of them an
    eighth less or better.
    """
    torch.manual_seed(0)
    rows = torch.randn(500, 96)
    error = hadamard(dequantize(quantize(rows, group)) - rows).reshape(-1, group).square().sum(1)
    turned = hadamard(rows).reshape(-1, group)
    largest = turned.abs().amax(1, keepdim=True)
    distances = (turned[..., None] / largest[..., None] - torch.tensor(LEVELS)).abs().amin(-1)
    plain = (distances * largest).square().sum(1)
    assert bool((error <= plain * 1.01).all())
    assert float(error.sum() / plain.sum()) < 7 / 8


@pytest.mark.parametrize("group", [16, 32])
def test_numpy_reads_the_codes(group):
    """The documented layout: low half first, level times the group's scale, turned back by
    Sylvester's matrix.
    """
    torch.manual_seed(1)
    codes = quantize(torch.randn(5, 64), group)
    packed, scales = codes.codes.numpy(), codes.scales.numpy().astype(np.float32)
    numbers = np.stack([packed & 15, packed >> 4], axis=-1).reshape(5, 64)
    turned = np.array(LEVELS, np.float32)[numbers] * np.repeat(
        scales, 64 // scales.shape[1], axis=1
    )
    signs = np.array([[(-1) ** bin(i & j).count("1") for j in range(64)] for i in range(64)])
    np.testing.assert_allclose(turned @ signs / 8, dequantize(codes).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "rows", [torch.zeros(2, 32), torch.full((2, 32), 1e5), torch.full((1, 32), -1e-9)]
)
def test_extremes_stay_finite(rows):
    """Zeros, values beyond fp16 and values below it give finite rows."""
    assert bool(torch.isfinite(dequantize(quantize(rows))).all())


def test_no_rows():
    """Nothing to quantise is an empty array of the right width."""
    codes = quantize(torch.zeros(0, 64), KEY_GROUP)
    assert codes.codes.shape == (0, 32)
    assert codes.scales.shape == (0, 4)
    assert dequantize(codes).shape == (0, 64)
