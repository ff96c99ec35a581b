"""A compression method is one class in one file: a third one works wherever the shipped ones do."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cmt_sdk
from cmt_sdk.config import methods
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.neural.attention import attend
from cmt_sdk.neural.cache import MemoryCache, causal_mask, stacked
from cmt_sdk.testing.tiny import save_tiny
from tests.neural import toy_method

TEXT = "The museum moved to Lisbon in 2019."


@pytest.fixture
def toy():
    """The toy method, registered for one test."""
    methods.register("toy", toy_method.INFO)
    yield
    methods.unregister("toy")


def test_a_third_method_adds_stores_finds_reads_exports_and_imports(toy, tmp_path):
    """With one file of at most 60 lines, and no change anywhere else."""
    assert len(Path(toy_method.__file__).read_text().splitlines()) <= 60
    model = str(save_tiny(tmp_path / "tiny"))
    settings = {"model": model, "device": "cpu", "precision": "fp32", "adapter": "none"}
    archive = tmp_path / "notes.cmt"
    with cmt_sdk.open(tmp_path / "first", compressor="toy", **settings) as memory:
        document = memory.add(TEXT)
        memory.add("A harbour lies in Genoa.")
        assert memory.settings.compressor == "toy"
        assert memory.stats().pending == 0
        assert memory.search("museum Lisbon")[0].passage.document_id == document.id
        answer = memory.model.ask("Where is the museum?", max_tokens=4)
        memory.export(archive)
    with cmt_sdk.open(tmp_path / "second", compressor="toy", **settings) as memory:
        memory.import_archive(archive)
        assert memory.stats().pending == 0
        again = memory.model.ask("Where is the museum?", max_tokens=4)
    assert (again.text, again.confidence) == (answer.text, answer.confidence)


def test_a_name_stands_for_one_method(toy):
    """A second registration and an unknown name are refused, the latter with the right names."""
    with pytest.raises(InvalidSetting, match="method 'toy': there is one of this name"):
        methods.register("toy", toy_method.INFO)
    with pytest.raises(InvalidSetting, match="compressor='zip': choose one of kv, soft, toy"):
        cmt_sdk.Settings(compressor="zip")


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("room", [0, 5])
def test_attend_equals_a_naive_loop(room, cap):
    """Two rows with different numbers of entries, ragged heads, biases, in one or in two passes."""
    draw = torch.Generator().manual_seed(0)
    width, kv_heads, heads = 8, 2, 4

    def some(*shape):
        return torch.randn(*shape, generator=draw)

    counts = [4, 7] if not room else [6]
    caches = [
        MemoryCache(
            [some(1, kv_heads, n, width)],
            [some(1, kv_heads, n, width)],
            [some(1, kv_heads, 1, n)],
            [n],
        )
        for n in counts
    ]
    caches[0].bias[0][0, 1, 0, 2] = float("-inf")
    entries = [(c.keys[0][0], c.values[0][0], c.bias[0][0, :, 0]) for c in caches]
    cache = stacked(caches)
    assert cache.starts == counts
    cache = cache.with_room(room) if room else cache
    news: list[tuple[torch.Tensor, torch.Tensor]] = []
    for m in (3, 1, 1) if room else (3,):
        query = some(len(counts), heads, m, width)
        key, value = some(len(counts), kv_heads, m, width), some(len(counts), kv_heads, m, width)
        before = sum(k.shape[2] for k, _ in news)
        keys, values = cache.update(key, value, 0)
        got = attend(query, keys, values, cache.bias[0], causal_mask(m, query), 0.3, cap)
        news.append((key, value))
        for row, (own_keys, own_values, bias) in enumerate(entries):
            for head in range(heads):
                kv = head // (heads // kv_heads)
                k = torch.cat([own_keys[kv], *(k[row, kv] for k, _ in news)])
                v = torch.cat([own_values[kv], *(v[row, kv] for _, v in news)])
                for step in range(m):
                    seen = len(own_keys[kv]) + before + step + 1
                    logits = 0.3 * k[:seen] @ query[row, head, step]
                    logits = logits if cap is None else cap * torch.tanh(logits / cap)
                    logits[: len(bias[kv])] += bias[kv]
                    expected = logits.softmax(0) @ v[:seen]
                    torch.testing.assert_close(got[row, step, head], expected, atol=1e-5, rtol=1e-4)
    assert cache.get_seq_length() == max(counts) + (5 if room else 0)
    assert np.all(np.array(cache.starts) == counts)
