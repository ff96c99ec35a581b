"""Soft tokens: pooling by windows, the superposition they start from, and their memories."""

import pytest
import torch

from cmt_sdk.neural.soft import SoftCompressor, pooled, soft_tokens
from cmt_sdk.testing.tiny import tiny_frozen


@pytest.fixture(scope="module")
def lm():
    return tiny_frozen()


def test_windows_are_summed_and_counted():
    """A last window that is not full counts its own tokens only; padding counts for nothing."""
    states = torch.arange(1.0, 8.0).reshape(1, 7, 1)
    inside = torch.tensor([[True] * 6 + [False]])
    sums, counts = pooled(states, inside, 4)
    assert sums.flatten().tolist() == [10.0, 11.0]
    assert counts.flatten().tolist() == [4.0, 2.0]


def test_untrained_soft_tokens_are_superpositions(lm):
    """Without a map, a soft token is the sum of its window's embeddings over the root of the window's length."""
    ids = lm.ids("abcdef")
    soft, counts = SoftCompressor(lm, None, 4).forward([ids])
    table = lm.model.get_input_embeddings().weight
    torch.testing.assert_close(soft[0, 0], table[ids[:4]].sum(0) / 2)
    torch.testing.assert_close(soft[0, 1], table[ids[4:]].sum(0) / 2**0.5)
    assert counts.tolist() == [2]


def test_a_zero_map_starts_as_the_superposition(lm):
    """Training starts from where the untrained compressor stands."""
    ids = lm.ids("The museum moved.")
    bare, _ = SoftCompressor(lm, None, 4).forward([ids])
    started, _ = SoftCompressor(lm, torch.zeros(128, 128), 4).forward([ids])
    assert torch.equal(bare, started)


@pytest.mark.parametrize(("ratio", "expected"), [(4, 5), (8, 3), (16, 2)])
def test_a_memory_has_one_row_a_window(lm, ratio, expected):
    """ceil(tokens / ratio) soft tokens, a quarter byte-pair a value."""
    (memory,) = SoftCompressor(lm, torch.eye(128) * 0.1, ratio).pack(["abcdefghij klmno"])
    assert memory.tokens == 18
    assert memory.arrays["soft_codes"].shape == (expected, 64)
    assert soft_tokens([memory, memory], lm).shape == (1, 2 * expected, 128)


def test_soft_tokens_do_not_depend_on_the_batch(lm):
    """Padding is not seen, in either direction of attention."""
    compressor = SoftCompressor(lm, torch.eye(128), 4)
    short, long = lm.ids("short"), lm.ids("a much longer passage about the museum")
    alone, _ = compressor.forward([short])
    together, _ = compressor.forward([short, long])
    torch.testing.assert_close(together[0, :2], alone[0, :2], atol=1e-4, rtol=1e-4)
