"""The common families, each as a tiny random model: what works equals the model's own reading, the
rest is refused.
"""

import contextlib

import pytest
import torch
from transformers import DynamicCache

import cmt_sdk
from cmt_sdk.errors import InvalidInput, ModelUnsupported
from cmt_sdk.neural.attention import attend_rows
from cmt_sdk.neural.methods import kv
from cmt_sdk.neural.methods.kv import KVMethod, check_kv
from cmt_sdk.neural.methods.soft import SoftMethod, check_soft
from cmt_sdk.neural.quantization import QuantizedRows
from cmt_sdk.neural.reader import TorchReader
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.testing.families import FAMILIES, tiny_model
from cmt_sdk.testing.tiny import save_tiny, tiny_frozen
from cmt_sdk.types import Prompt

TEXT = "The museum moved to Lisbon in 2019."
OTHER = "The harbour is in Genoa, and it freezes in winter."
REFUSED = {
    "gpt2": (
        "gpt2: KV memories need rotary positions, which this architecture does not have; use"
        " compressor='soft'"
    ),
}
READ = sorted(set(FAMILIES) - set(REFUSED))


@pytest.fixture
def exact(monkeypatch):
    """Memories that hold their numbers as they are, so that nothing but the reading is compared."""
    monkeypatch.setattr(
        kv, "quantize", lambda rows, _group=0: QuantizedRows(rows.float(), rows[:, :1].half())
    )
    monkeypatch.setattr(kv, "dequantize", lambda codes: codes.codes)


@torch.inference_mode()
def from_text(lm, ids):
    """The model's own logits [n, vocabulary] of one whole prompt."""
    return lm.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@torch.inference_mode()
def from_memories(lm, rotary, memories, asked):
    """Logits [n, vocabulary] of a question after memories."""
    cache = KVMethod(lm, rotary).cache([memories], room=len(asked))
    out = lm.forward(cache, **cache.inputs(torch.tensor([asked])))
    return lm.logits(out[0])


def answer(reader, prompt, tokens=4):
    """The usage of an answer."""
    return list(reader.read(prompt, tokens))[-1].usage


# -- the bare model ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bare_model_says_what_it_always_said(family):
    """With our attention function a model gives the logits of transformers' own plain
    implementation.
    """
    lm, own = tiny_frozen(tiny_model(family)), tiny_model(family)
    own.set_attn_implementation("eager")
    ids = lm.ids(TEXT)
    with torch.inference_mode():
        expected = own(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(from_text(lm, ids), expected, atol=1e-3, rtol=1e-3)


SHORT = {"sliding_window": 48}
WINDOWED = [(family, SHORT) for family in FAMILIES if "sliding_window" in FAMILIES[family].settings]


@pytest.mark.parametrize(("family", "changes"), [*((family, {}) for family in FAMILIES), *WINDOWED])
def test_text_read_in_parts_equals_one_prompt(family, changes):
    """Head, passage and question, one after the other, give the next-token odds of the whole: also
    beyond a window.
    """
    lm = tiny_frozen(tiny_model(family, **changes))
    whole = lm.prefix_ids + lm.passage_ids(TEXT) + lm.question_ids("Where?")
    expected = from_text(lm, whole)[-1].softmax(-1)
    known = 1 - expected[lm.ids("I don't know.")[0]]
    usage = answer(TorchReader(lm, SoftMethod(lm, 4)), Prompt("Where?", texts=[TEXT]), 1)
    assert usage.confidence == pytest.approx(float(known * expected.max()), abs=1e-4)


# -- kv ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", READ)
def test_a_memory_of_all_entries_is_read_as_its_text(family, exact):
    """Every logit of the question, after the memory, is the one after the text at the same
    place.
    """
    lm = tiny_frozen(tiny_model(family))
    rotary, asked = check_kv(lm), lm.question_ids("Where is it now?")
    memories = KVMethod(lm, rotary, 1.0).compress([TEXT])
    expected = from_text(lm, lm.prefix_ids + lm.passage_ids(TEXT) + asked)[-len(asked) :]
    torch.testing.assert_close(
        from_memories(lm, rotary, memories, asked), expected, atol=2e-3, rtol=2e-3
    )


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gpt2"}))
def test_every_layers_keys_are_moved_by_a_turn(family):
    """A text's keys at one place, turned, are its keys at another place, whatever the layer's own
    rotation is.
    """
    lm = tiny_frozen(tiny_model(family))
    rotary, ids = Rotary(lm.model), torch.tensor([lm.ids(TEXT)])
    found = []
    for start in (0, 301):
        cache = DynamicCache()
        with torch.inference_mode():
            positions = torch.arange(start, start + ids.shape[1])[None]
            lm.forward(cache, input_ids=ids, position_ids=positions)
        found.append(torch.stack([layer.keys[0] for layer in cache.layers]))
    steps, layers = torch.arange(ids.shape[1]), torch.arange(3)[:, None, None]
    back = rotary.unrotate(found[0], steps, layers)
    torch.testing.assert_close(
        rotary.rotate(back, steps + 301, layers), found[1], atol=2e-3, rtol=2e-3
    )
    torch.testing.assert_close(
        rotary.unrotate(found[1], steps + 301, layers), back, atol=2e-3, rtol=2e-3
    )


@pytest.mark.parametrize("family", READ)
def test_a_second_memory_stands_where_its_text_would(family, exact):
    """The first layer's keys, which know nothing of other tokens, are those of the whole text in
    one prompt.
    """
    lm = tiny_frozen(tiny_model(family))
    method = KVMethod(lm, check_kv(lm))
    placed = method.cache([method.compress([TEXT, OTHER])])
    whole, cache = lm.prefix_ids + lm.passage_ids(TEXT) + lm.passage_ids(OTHER), DynamicCache()
    with torch.inference_mode():
        lm.forward(cache, input_ids=torch.tensor([whole]))
    assert placed.starts == [len(whole)]
    torch.testing.assert_close(placed.keys[0], cache.layers[0].keys, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("family", READ)
def test_pruned_memories_are_read(family):
    """A quarter of the entries, in four bits: odds that are numbers, and not those of the whole
    memory.
    """
    lm = tiny_frozen(tiny_model(family))
    rotary, asked = check_kv(lm), lm.question_ids("Where is it now?")
    whole, pruned = (
        from_memories(lm, rotary, KVMethod(lm, rotary, keep).compress([TEXT, OTHER]), asked)
        for keep in (1.0, 0.25)
    )
    assert bool(pruned.isfinite().all())
    assert not torch.allclose(pruned, whole, atol=1e-2)
    assert (
        answer(
            TorchReader(lm, KVMethod(lm, rotary)),
            Prompt("Where?", memories=KVMethod(lm, rotary, 0.25).compress([TEXT])),
        ).answer_tokens
        >= 0
    )


@pytest.mark.parametrize("family", REFUSED)
def test_what_a_family_cannot_do_is_refused(family):
    """The error names the architecture, the reason and the remedy, before there is a memory or an
    answer.
    """
    lm = tiny_frozen(tiny_model(family))
    with pytest.raises(ModelUnsupported) as told:
        KVMethod(lm, check_kv(lm), 1.0).compress([TEXT])
    assert str(told.value) == REFUSED[family]


@pytest.mark.parametrize("family", ["mistral", "phi3"])
def test_notes_beyond_a_window_are_refused(family):
    """Within it the layers see everything; beyond it they would not."""
    lm = tiny_frozen(tiny_model(family, sliding_window=256))
    compressor = KVMethod(lm, check_kv(lm), 0.25)
    reader = TorchReader(lm, compressor)
    assert lm.window == 256
    answer(reader, Prompt("Where?", memories=compressor.compress([TEXT])))
    with pytest.raises(
        InvalidInput, match=r"need \d+ tokens, the model's window holds 256; ask with a smaller k"
    ):
        answer(reader, Prompt("Where?", memories=compressor.compress([TEXT, 2 * OTHER])))


@pytest.mark.parametrize("family", ["mistral", "phi3"])
def test_spans_after_a_text_beyond_a_window_are_refused_as_too_long(family):
    """A text longer than the window is read; its spans, which see all of it, are no reason to
    fail: their caller goes on without them where a prompt is too long.
    """
    lm = tiny_frozen(tiny_model(family, sliding_window=256))
    reader = TorchReader(lm, KVMethod(lm, check_kv(lm), 0.25))
    prompt = Prompt("Where?", texts=[TEXT, 2 * OTHER])
    answer(reader, prompt)
    with pytest.raises(InvalidInput, match=r"need \d+ tokens, the model's window holds 256"):
        reader.answer_spans(prompt, TEXT, [(0, 3)])
    assert reader.answer_spans(Prompt("Where?", texts=["A boat."]), "A boat.", [(2, 6)])


def test_the_window_is_the_smallest_of_the_layers():
    """None where every layer sees all; a family's configuration may name one that is not in use."""
    windows = {family: tiny_frozen(tiny_model(family)).window for family in FAMILIES}
    assert {f for f, window in windows.items() if window == 512} == {
        "mistral",
        "gemma2",
        "gemma3",
        "phi3",
    }
    assert {windows[f] for f in set(FAMILIES) - {"mistral", "gemma2", "gemma3", "phi3"}} == {None}
    assert tiny_frozen(tiny_model("qwen2", sliding_window=64)).window is None
    in_use = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    assert tiny_frozen(tiny_model("qwen2", **in_use)).window == 64


class Wrong(Rotary):
    """A rotation that takes every layer for the first."""

    def rotate(self, keys, positions, layers=None):
        """As the first."""
        return super().rotate(keys, positions, None if layers is None else 0 * layers)

    def unrotate(self, keys, positions, layers=None):
        """As the first."""
        return super().unrotate(keys, positions, None if layers is None else 0 * layers)


@pytest.mark.parametrize(("family", "layer"), [("gemma3", 1), ("smollm3", 2)])
def test_a_rotation_that_is_not_the_models_own_does_not_pass(family, layer, monkeypatch):
    """The proof measures: a layer that turns otherwise than it was taken to is named, with the
    difference.
    """
    monkeypatch.setattr("cmt_sdk.neural.methods.kv.Rotary", Wrong)
    with pytest.raises(
        ModelUnsupported,
        match=rf"keys of layer {layer} are not moved .* \(relative difference [01]\.?\d*, at most",
    ):
        check_kv(tiny_frozen(tiny_model(family)))


def test_an_attention_that_looks_at_what_is_masked_does_not_pass(monkeypatch):
    """As some kernels do on some GPUs: memories with ragged heads would be read with what fills
    them up.
    """

    def unmasked(rows, key, value, mask, scaling, cap):
        return attend_rows(rows, key, value, mask.clamp(min=0.0), scaling, cap)

    check_kv(tiny_frozen(tiny_model("llama")))
    monkeypatch.setattr("cmt_sdk.neural.attention.attend_rows", unmasked)
    with pytest.raises(
        ModelUnsupported, match="its attention does not read notes as it reads text"
    ):
        check_kv(tiny_frozen(tiny_model("llama")))
    with pytest.raises(
        ModelUnsupported,
        match=r"llama: KV and soft memories .* notes as it reads text .*; use another",
    ):
        check_soft(tiny_frozen(tiny_model("llama")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "gpt2"])
def test_layers_that_do_not_go_on_from_given_states_do_not_pass(family, dtype, monkeypatch):
    """Where a family hands states on by a way that is not seen, soft tokens would be read as the
    words before them.
    """
    monkeypatch.setattr(
        "cmt_sdk.neural.methods.soft_tokens.run_from", lambda *_: contextlib.nullcontext()
    )
    with pytest.raises(
        ModelUnsupported,
        match=r"soft memories cannot .* layer \d does not go on from states of layer 1",
    ):
        check_soft(tiny_frozen(tiny_model(family).to(dtype)))


def test_an_attention_with_sinks_does_not_pass():
    """What our reading would leave out is refused for families that nobody thought of, too."""
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 258,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "sliding_window": 512,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "pad_token_id": 0}
    config = GptOssConfig(num_local_experts=2, num_experts_per_tok=1, **sizes, **heads)
    for proof in (check_kv, check_soft):
        with pytest.raises(ModelUnsupported, match="gpt_oss: "):
            proof(tiny_frozen(GptOssForCausalLM(config).eval()))


def test_long_rope_ends_where_its_frequencies_change():
    """Keys turned by the short factors are not compared with keys turned by the long ones."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.1] * 16,
        "long_factor": [4.0] * 16,
    }
    changes = {
        "original_max_position_embeddings": 1024,
        "rope_parameters": rope | {"original_max_position_embeddings": 1024},
    }
    lm = tiny_frozen(tiny_model("phi3", **changes))
    check_kv(lm)
    assert lm.context == 1024
    assert tiny_frozen(tiny_model("gpt2")).context == 1024
    assert tiny_frozen(tiny_model("llama")).context == 4096


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_is_refused_gives_no_answer(family, tmp_path):
    """Neither at the first passage nor at a question: the error comes instead."""
    model = save_tiny(tmp_path / "model", tiny_model(family))
    with cmt_sdk.open(
        tmp_path / "memory", model=str(model), device="cpu", precision="fp32"
    ) as memory:
        with pytest.raises(ModelUnsupported):
            memory.add(TEXT)
        with pytest.raises(ModelUnsupported):
            memory.model.ask("Where is the museum?")


# -- soft ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_soft_memories_are_made_and_read(family):
    """One soft token for each four."""
    lm = tiny_frozen(tiny_model(family))
    check_soft(lm)
    memories = SoftMethod(lm, 4).compress([TEXT, OTHER])
    counts = [-(-len(lm.passage_ids(text)) // 4) for text in (TEXT, OTHER)]
    assert [len(m.arrays["soft_codes"]) for m in memories] == counts
    usage = answer(TorchReader(lm, SoftMethod(lm, 4)), Prompt("Where?", memories=memories))
    assert usage.prompt_tokens == sum(counts) + len(lm.question_ids("Where?"))
    assert 0 < usage.confidence < 1
