"""KV memories: scores, selection, packing, and reading them at any place."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.attention import attend
from cmt_sdk.neural.batching import batch_tokens, batches, padded
from cmt_sdk.neural.cache import causal_mask
from cmt_sdk.neural.methods.base import quantized_rows
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.methods.kvzip import RepeatScores, top_share
from cmt_sdk.neural.methods.soft import SoftMethod
from cmt_sdk.neural.quantization import dequantize, quantize
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.testing.tiny import tiny_frozen, tiny_llama
from cmt_sdk.text.prompt_messages import REPEAT
from cmt_sdk.types import CompressedPassage
from cmt_sdk.weights.sizes import Shape

TEXTS = [
    "The museum moved to Lisbon.",
    "It opens at nine, and closes at five on most days of the year.",
]


@pytest.fixture(scope="module")
def lm():
    return tiny_frozen()


@pytest.fixture(scope="module")
def rotary(lm):
    return Rotary(lm.model)


def keys_at(lm, ids, start):
    """The model's own keys of a text that begins at position `start`, without anything before
    it.
    """
    positions = torch.arange(start, start + len(ids))[None]
    with torch.inference_mode():
        cache = DynamicCache()
        lm.forward(cache, input_ids=torch.tensor([ids]), position_ids=positions)
    return torch.stack([layer.keys[0] for layer in cache.layers])


def test_keys_turned_back_have_no_position(lm, rotary):
    """The same text at two places gives the same keys once they are turned back, and turning moves
    one to the other.
    """
    ids = lm.ids("moved to Lisbon")
    here, there = keys_at(lm, ids, 0), keys_at(lm, ids, 57)
    steps = torch.arange(len(ids))
    torch.testing.assert_close(
        rotary.unrotate(there, steps + 57), rotary.unrotate(here, steps), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        rotary.rotate(rotary.unrotate(here, steps), steps + 57), there, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("compression", [1, 2, 4])
def test_a_memory_takes_the_bytes_that_the_catalogue_foretells(lm, rotary, compression):
    """From a model's shape alone, within the rounding of the number of entries."""
    layers, kv_heads, width = lm.kv_shape
    shape = Shape(0, 0, layers, kv_heads, width)
    (memory,) = KVMethod(lm, rotary, 1 / compression, at_least=8).compress(TEXTS[1:])
    foretold = shape.passage(compression, at_least=8, tokens=memory.tokens)
    assert memory.nbytes == pytest.approx(foretold, abs=width * 2 + layers * kv_heads)


def test_a_model_without_rotary_positions_is_refused():
    """A clear error, not a wrong answer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=258, n_embd=64, n_layer=1, n_head=2))
    with pytest.raises(ModelUnsupported, match="gpt2: KV memories need rotary positions"):
        Rotary(model)


def test_scores_equal_a_naive_reading_of_the_attention(lm):
    """KVzip's score by the definition: the largest attention of the repeating queries, from
    transformers' own weights.
    """
    ids = [lm.passage_ids(t) for t in TEXTS]
    cue, head = lm.ids(REPEAT), len(lm.prefix_ids)
    lengths = torch.tensor([len(i) for i in ids])
    watch = RepeatScores(head, lengths, len(cue))
    rows = [i + cue + i for i in ids]
    longest = max(map(len, rows))
    tokens = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
    positions = torch.arange(head, head + longest)[None]
    with torch.inference_mode():
        lm.forward(lm.prefix_cache(2), input_ids=tokens, position_ids=positions, watch=watch)
    scores = watch.result()
    eager = tiny_llama()
    eager.set_attn_implementation("eager")
    for row, passage in enumerate(ids):
        whole = torch.tensor([lm.prefix_ids + passage + cue + passage])
        with torch.inference_mode():
            weights = eager(input_ids=whole, output_attentions=True).attentions
        start, again = head, head + len(passage) + len(cue)
        for layer, attention in enumerate(weights):
            asked = attention[0, :, again:, start : start + len(passage)]
            expected = asked.reshape(2, 2, *asked.shape[1:]).amax((1, 2))
            got = scores[row, layer, :, : len(passage)]
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
    assert bool((scores[0, :, :, len(ids[0]) :] == -1).all())


def test_one_budget_over_all_layers_and_heads():
    """The best entries overall are kept, wherever they are; a head may keep none."""
    scores = torch.tensor([[[0.9, 0.8, 0.7, 0.6]], [[0.1, 0.2, 0.65, 0.3]]])
    kept = top_share(scores, 4, 0.5)
    assert kept.int().tolist() == [[[1, 1, 1, 0]], [[0, 0, 1, 0]]]
    assert int(top_share(scores, 4, 1.0).sum()) == 8
    assert int(top_share(scores, 4, 0.01).sum()) == 1


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.25])
def test_memory_holds_the_share_that_was_asked_for(lm, rotary, keep):
    """Kept bits, codes and scales agree in number, and passages come back in the order given."""
    memories = KVMethod(lm, rotary, keep).compress(TEXTS)
    assert [m.tokens for m in memories] == [len(lm.passage_ids(t)) for t in TEXTS]
    for memory in memories:
        entries = int(np.unpackbits(memory.arrays["kept"], axis=1, count=memory.tokens).sum())
        assert entries == round(keep * 3 * 2 * memory.tokens)
        assert memory.arrays["key_codes"].shape == (entries, 16)
        assert memory.arrays["value_scales"].shape == (entries, 1)


def test_a_passage_packs_the_same_alone_and_in_a_batch(lm, rotary):
    """Padding and neighbours leave no trace in a memory."""
    compressor = KVMethod(lm, rotary, 0.5)
    together, alone = compressor.compress(TEXTS)[0], compressor.compress(TEXTS[:1])[0]
    np.testing.assert_array_equal(together.arrays["kept"], alone.arrays["kept"])
    same = (together.arrays["key_codes"] == alone.arrays["key_codes"]).mean()
    assert same > 0.99  # a sum in another order may tip a value over a border


@torch.inference_mode()
def test_reading_attends_to_exactly_the_kept_entries(lm, rotary):
    """The padded, masked prefix equals a loop over layers and heads that joins each head's own
    entries.

    All memories but the last, which is the one that the search found best, are attended to with a
    prior.
    """
    torch.manual_seed(3)
    method = KVMethod(lm, rotary, 0.3)
    memories = method.compress(TEXTS)
    cache = method.cache([memories], room=4, bias=-1.0)
    layers, kv_heads, width = lm.kv_shape
    head = lm.prefix_cache(1)
    for layer in range(layers):
        query, key, value = (
            torch.randn(1, 4, 3, width),
            torch.randn(1, 2, 3, width),
            torch.randn(1, 2, 3, width),
        )
        all_keys, all_values = cache.update(key, value, layer)
        mask = causal_mask(3, query)
        got = attend(query, all_keys, all_values, cache.bias[layer], mask, 0.2)
        for h in range(4):
            kv = h // 2
            keys, values = [head.layers[layer].keys[0, kv]], [head.layers[layer].values[0, kv]]
            start = len(lm.prefix_ids)
            priors = [torch.zeros(start)]
            for memory in memories:
                row = layer * kv_heads + kv
                kept = np.unpackbits(memory.arrays["kept"], axis=1, count=memory.tokens)
                before, count = int(kept[:row].sum()), int(kept[row].sum())
                decoded = dequantize(quantized_rows(memory, "key"))[before : before + count]
                decoded = decoded + torch.from_numpy(
                    memory.arrays["key_mean"][row].astype(np.float32)
                )
                keys.append(
                    rotary.rotate(decoded, torch.from_numpy(np.flatnonzero(kept[row])) + start)
                )
                values.append(dequantize(quantized_rows(memory, "value"))[before : before + count])
                priors.append(torch.full((count,), -1.0 if memory is not memories[-1] else 0.0))
                start += memory.tokens
            for step in range(3):
                k = torch.cat([*keys, key[0, kv, : step + 1]])
                v = torch.cat([*values, value[0, kv, : step + 1]])
                prior = torch.cat([*priors, torch.zeros(step + 1)])
                expected = (0.2 * query[0, h, step] @ k.T + prior).softmax(-1) @ v
                torch.testing.assert_close(got[0, step, h], expected, atol=1e-4, rtol=1e-3)


def test_batches_hold_every_index_once_within_the_bound():
    """Similar lengths share a batch; no batch is over the padded bound unless one passage alone
    is.
    """
    lengths = [10, 900, 30, 2500, 800, 20, 850]
    made = list(batches(lengths))
    assert sorted(i for b in made for i in b) == list(range(7))
    assert made[-1] == [3]
    assert all(max(lengths[i] for i in b) * len(b) <= 2048 for b in made[:-1])


def test_little_of_a_batch_is_padding():
    """Rows are padded to the next multiple of eight; on a CPU a batch has at most 768 tokens."""
    device = torch.device("cpu")
    made = padded([[1] * 97, [2] * 5], device, 0)
    assert made.shape == (2, 104)
    assert made[1].tolist() == [2] * 5 + [0] * 99
    assert batch_tokens(device) == 768
    assert batch_tokens(torch.device("cuda")) == 2048


def test_only_a_whole_memory_is_taken_from_elsewhere(lm, rotary):
    """Rows that do not agree in number, other types and widths, and numbers that are none: under
    whatever checksum.
    """
    compressor = KVMethod(lm, rotary, 0.25)
    (memory,) = compressor.compress(["The museum moved to Lisbon in 2019."])
    assert compressor.is_valid(memory)
    forged = {
        "key_codes": [lambda a: a[1:], lambda a: a[:, 1:], lambda a: a.astype(np.int8)],
        "key_scales": [
            lambda a: a[1:],
            lambda a: a[:, :0],
            lambda a: a * np.float16("nan"),
            lambda a: a.astype(np.float32),
        ],
        "value_codes": [lambda a: np.concatenate([a, a])],
        "kept": [
            lambda a: a[1:],
            lambda a: a ^ np.uint8(255),
            lambda a: np.zeros((len(a), 0), np.uint8),
        ],
        "key_mean": [lambda a: a[:, :1], lambda a: a + np.float16("inf")],
    }
    for name, ways in forged.items():
        for way in ways:
            other = CompressedPassage(
                "kv", memory.tokens, {**memory.arrays, name: way(memory.arrays[name])}
            )
            assert not compressor.is_valid(other), name
    assert not compressor.is_valid(CompressedPassage("kv", memory.tokens + 8, memory.arrays))
    assert not compressor.is_valid(CompressedPassage("kv", memory.tokens, {}))
    assert not SoftMethod(lm, 4).is_valid(memory)


def test_keys_of_an_earlier_release_are_read(lm, rotary):
    """They had groups of 32: the shape of the scales tells."""
    compressor = KVMethod(lm, rotary, 1.0)
    (memory,) = compressor.compress(["The museum moved to Lisbon in 2019."])
    codes = quantize(dequantize(quantized_rows(memory, "key")))
    older = {**memory.arrays, "key_codes": codes.codes.numpy(), "key_scales": codes.scales.numpy()}
    assert compressor.is_valid(CompressedPassage("kv", memory.tokens, older))
    assert dequantize(
        quantized_rows(CompressedPassage("kv", memory.tokens, older), "key")
    ).shape == (
        len(codes.codes),
        lm.kv_shape[2],
    )
