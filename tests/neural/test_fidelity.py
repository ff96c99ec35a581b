"""Fidelity: near 1 with every entry kept, lower with fewer; measured without a change to the
memory.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import cmt_sdk
from cmt_sdk.neural.cache import MemoryCache, causal_mask
from cmt_sdk.neural.compressor import PassageCompressor
from cmt_sdk.neural.embedding import Matcher, MatchHead
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.neural.scoring import FidelityMeter
from cmt_sdk.storage.blob import pack
from cmt_sdk.testing.fakes import FINGERPRINT
from cmt_sdk.testing.tiny import save_tiny, tiny_frozen, tiny_llama
from cmt_sdk.text.prompt_messages import REPEAT

TEXT = "The museum moved to Lisbon in 2019, the harbour stayed."
TEXTS = [
    TEXT,
    "It opens at nine.",
    "Ann likes green tea. She drinks it cold, on most days of the year.",
]


def copying_llama(distance, sharpness=100.0):
    """A model of one layer that says again what it read `distance` tokens ago.

    Every key is the same, and every query is turned so that it meets the key of that distance: only
    the position of an entry decides who attends to it. The two key-value heads each carry a half of
    what is said again.
    """
    model = tiny_llama(num_hidden_layers=1, attention_bias=True, vocab_size=258)
    attention, width = model.model.layers[0].self_attn, 32
    angles = model.model.rotary_emb.inv_freq.double() * distance
    query = sharpness * torch.cat([angles.cos(), -angles.sin()])
    key = torch.cat([torch.ones(width // 2), torch.zeros(width // 2)])
    basis = torch.linalg.qr(torch.randn(128, 64, generator=torch.Generator().manual_seed(0)))[0].T
    for part in (
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.o_proj,
        model.model.layers[0].mlp.down_proj,
    ):
        part.weight.zero_()
    for part, bias in ((attention.q_proj, query.repeat(4)), (attention.k_proj, key.repeat(2))):
        part.bias.copy_(bias)
    attention.v_proj.weight.copy_(basis)
    attention.o_proj.weight[:, :width] = 20 * basis[:width].T
    attention.o_proj.weight[:, 2 * width : 3 * width] = 20 * basis[width:].T
    model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    return model


@pytest.fixture(scope="module")
def lm():
    return tiny_frozen()


@pytest.fixture(scope="module")
def copying():
    """A model that can repeat TEXT, whatever it reads."""
    lm = tiny_frozen()
    return tiny_frozen(copying_llama(len(lm.passage_ids(TEXT)) + len(lm.ids(REPEAT)) - 1))


def measured(lm, texts, keep):
    """The fidelities of texts whose memories keep so many entries."""
    method = KVMethod(lm, Rotary(lm.model), keep)
    return FidelityMeter(method).measure(texts, method.compress(texts))


def test_fidelity_falls_with_the_entries_that_are_kept(copying):
    """A model that repeats what it reads finds all of it in a whole memory, and less in one that
    was cut.
    """
    whole, half, quarter, tenth = (
        measured(copying, [TEXT], keep)[0] for keep in (1.0, 0.5, 0.25, 0.1)
    )
    assert 0.99 < whole <= 1.0
    assert 0.9 > half > 2 * quarter > 4 * tenth > 0.0


def naive(lm, ids, start, cache):
    """The mean log probability of a passage's ids after a cache of `start` positions and the cue,
    one passage alone.
    """
    cue = lm.ids(REPEAT)
    tokens = torch.tensor([cue + ids])
    positions = torch.arange(start, start + tokens.shape[1])[None]
    inputs = {"input_ids": tokens, "position_ids": positions}
    if isinstance(cache, MemoryCache):
        inputs |= {"attention_mask": causal_mask(tokens.shape[1], cache.bias[0])}
        inputs |= {"memory_cache": cache}
    with torch.inference_mode():
        states = lm.forward(cache, **inputs)[0]
        logits = lm.logits(states)[len(cue) - 1 : -1]
    return -float(cross_entropy(logits, torch.tensor(ids)))


@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_it_is_the_ratio_of_two_readings(lm, keep):
    """A batch of passages of three lengths measures what one reads from its memory, and from
    transformers' own cache.
    """
    method, head = KVMethod(lm, Rotary(lm.model), keep), len(lm.prefix_ids)
    memories = method.compress(TEXTS)
    expected = []
    for text, memory in zip(TEXTS, memories, strict=True):
        ids = lm.passage_ids(text)
        room = len(lm.ids(REPEAT)) + len(ids)
        placed = method.cache([[memory]], room=room)
        stored = naive(lm, ids, placed.starts[0], placed)
        cache = lm.prefix_cache(1)
        with torch.inference_mode():
            positions = torch.arange(head, head + len(ids))[None]
            lm.forward(cache, input_ids=torch.tensor([ids]), position_ids=positions)
        expected.append(math.exp(min(0.0, stored - naive(lm, ids, head + len(ids), cache))))
    assert FidelityMeter(method).measure(TEXTS, memories) == pytest.approx(expected, rel=1e-3)
    assert any(e < 1.0 for e in expected)


def test_measuring_changes_no_memory(lm):
    """With a meter a compressor makes the same bytes and the same keys; without one nothing is
    measured.
    """
    method = KVMethod(lm, Rotary(lm.model), 0.5)
    plain = PassageCompressor(method, Matcher(lm, MatchHead.plain(lm)), FINGERPRINT)
    metered = replace(plain, meter=FidelityMeter(method))
    for before, after in zip(plain.compress(TEXTS), metered.compress(TEXTS), strict=True):
        assert pack(before.compressed) == pack(after.compressed)
        assert before.embedding.tobytes() == after.embedding.tobytes()
        assert before.fidelity is None
        assert 0.0 < after.fidelity <= 1.0


def test_what_reaches_over_the_window_is_not_measured():
    """Where layers see the last tokens only, a passage that cannot be repeated within them has no
    fidelity; others have.
    """
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    sizes = tiny_llama().config.to_dict()
    kept = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    )
    windowed = MistralForCausalLM(
        MistralConfig(**{k: sizes[k] for k in kept}, sliding_window=256, eos_token_id=0)
    ).eval()
    lm = tiny_frozen(windowed.requires_grad_(False))
    short, long = measured(lm, ["Short.", TEXT * 3], 0.5)
    assert short is not None
    assert long is None


def test_the_setting_asks_for_it(tmp_path):
    """Passages that are added while it is on have a fidelity, those from before have none."""
    settings = {
        "model": str(save_tiny(tmp_path / "tiny")),
        "adapter": "none",
        "precision": "fp32",
        "device": "cpu",
    }
    with cmt_sdk.open(tmp_path / "notes", **settings) as memory:
        before = memory.add(TEXT).id
        memory.configure(fidelity=True)
    with cmt_sdk.open(tmp_path / "notes") as memory:
        after = memory.add(TEXTS[1]).id
        assert memory.passages(before)[0].fidelity is None
        assert 0.0 < memory.passages(after)[0].fidelity <= 1.0
