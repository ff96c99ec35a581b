"""Adapters on the common families: they go where they belong, learn, leave the base alone, and are
switched exactly.
"""

import hashlib

import pytest
import torch
from torch.nn.functional import cross_entropy

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.kv import check_kv
from cmt_sdk.questions.dataset import Question, QuestionedPassage
from cmt_sdk.testing.families import FAMILIES, tiny_model
from cmt_sdk.testing.tiny import byte_tokenizer
from cmt_sdk.training.adapters import reduce_rank, trainable
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.packs import draw
from cmt_sdk.training.reader import ReaderTask
from cmt_sdk.weights.adapters import active, attach_adapters
from cmt_sdk.weights.loading import LoadedModel

TEXT = "The museum moved to Lisbon in 2019."
WITHOUT_KV = ("gpt2",)  # no memories to train a reader on
LINEAR = {
    "gpt2": "c_attn c_fc c_proj",
    "phi": "dense fc1 fc2 k_proj q_proj v_proj",
    "phi3": "down_proj gate_up_proj o_proj qkv_proj",
}
LLAMAS_LINEAR = "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj"


def weights(model):
    """A hash over the bytes of every parameter that is no adapter's."""
    named = {
        n.replace(".base_layer", ""): p for n, p in model.named_parameters() if "lora_" not in n
    }
    digest = hashlib.sha256()
    for _, parameter in sorted(named.items()):
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def from_text(lm, text):
    """The model's own logits [n, vocabulary] of a text."""
    return lm.model(input_ids=torch.tensor([lm.ids(text)]), use_cache=False).logits[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_go_on_every_linear_layer(family, tmp_path):
    """Under the family's own names, and not on the output layer."""
    made = trainable(tiny_model(family), byte_tokenizer(), rank=4)
    adapted = {
        n.split(".lora_")[0].rpartition(".")[2]
        for n, _ in made.lm.model.named_parameters()
        if "lora_" in n
    }
    assert " ".join(sorted(adapted)) == LINEAR.get(family, LLAMAS_LINEAR)


def mixture():
    """Five passages with a question each."""
    towns = {
        "museum": "Lisbon",
        "harbour": "Genoa",
        "library": "Porto",
        "tower": "Pisa",
        "market": "Bern",
    }
    made = [
        QuestionedPassage(t, f"The {t} is in {p}.", (Question(f"Where is the {t}?", (p,), t),))
        for t, p in towns.items()
    ]
    return Mixture({"towns": made}, {"towns": 1.0}, 0)


def step(optimizer, loss):
    """One step down."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(WITHOUT_KV)))
def test_a_reader_learns_and_the_base_stays(family):
    """A few steps lower the loss on what they were taken on; whatever is no adapter's keeps its
    bytes.
    """
    torch.manual_seed(0)
    made = trainable(tiny_model(family), byte_tokenizer(), rank=4)
    tensors = learned(made.lm.model)
    task = ReaderTask(
        made.lm,
        check_kv(made.lm),
        mixture(),
        [draw(made.lm, mixture())],
        tensors,
        made.save,
        {1.0: 1.0},
    )
    optimizer, before = torch.optim.AdamW(tensors, lr=3e-3), task.validate()["held_out@1.0"]
    for _ in range(4):
        task.learn()
        for tensor in tensors:
            if tensor.grad is not None:
                tensor.grad /= 30
        optimizer.step()
        optimizer.zero_grad()
    assert task.validate()["held_out@1.0"] < before - 0.05
    assert weights(made.lm.model) == weights(tiny_model(family))


@pytest.mark.parametrize("family", WITHOUT_KV)
def test_an_adapter_learns_without_memories_too(family):
    """Where memories are refused, text still trains: gradients reach the adapter, and nothing
    else.
    """
    torch.manual_seed(0)
    made = trainable(tiny_model(family), byte_tokenizer(), rank=4)
    tensors, ids = learned(made.lm.model), torch.tensor([made.lm.ids(TEXT)])
    optimizer, losses = torch.optim.AdamW(tensors, lr=3e-3), []
    for _ in range(4):
        with made.lm.activate("reader"):
            hidden = made.lm.model.base_model(input_ids=ids).last_hidden_state[0, :-1]
        losses.append(cross_entropy(made.lm.logits(hidden), ids[0, 1:]))
        step(optimizer, losses[-1])
    assert losses[-1] < losses[0] - 0.05
    assert weights(made.lm.model) == weights(tiny_model(family))


def learned(model):
    """The tensors of the adapters on a model."""
    return [p for n, p in model.named_parameters() if "lora_" in n]


def random_adapter(family, folder, rank=4):
    """A random adapter saved in peft's format, and the logits that peft computes with it."""
    torch.manual_seed(1)
    made = trainable(tiny_model(family), byte_tokenizer(), rank=rank)
    for parameter in learned(made.lm.model):
        parameter.data = (0.1 * torch.randn(parameter.shape)).to(torch.bfloat16).float()
    made.save(folder)
    with made.lm.activate("reader"):
        return from_text(made.lm, TEXT)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_is_switched_on_and_off(family, merged, tmp_path, monkeypatch):
    """Merged into the weights or computed beside them, it gives peft's own logits; off, the base's
    to the last bit.
    """
    if not merged:
        monkeypatch.setattr("cmt_sdk.weights.adapters.MERGED_LIMIT", 0)
    expected = random_adapter(family, tmp_path)
    loaded = LoadedModel(tiny_model(family), byte_tokenizer(), family, "b" * 16, "t" * 16, "fp32")
    lm = FrozenModel(loaded.model, loaded.tokenizer, lambda name: active(loaded, name))
    bare = from_text(lm, TEXT)
    attach_adapters(loaded, {"reader": tmp_path / "reader"})
    assert set(loaded.adapters.merged) == ({"reader"} if merged else set())
    with lm.activate("reader"):
        torch.testing.assert_close(from_text(lm, TEXT), expected, atol=2e-3, rtol=2e-3)
    assert torch.equal(from_text(lm, TEXT), bare)
    assert not torch.allclose(bare, expected, atol=0.1)


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_an_adapter_is_cut_under_the_familys_own_names(family, tmp_path):
    """Cut to its own rank, it computes what it did."""
    expected = random_adapter(family, tmp_path)
    reduce_rank(tiny_model(family), tmp_path / "reader", 4, tmp_path / "cut")
    loaded = LoadedModel(tiny_model(family), byte_tokenizer(), family, "b" * 16, "t" * 16, "fp32")
    lm = FrozenModel(loaded.model, loaded.tokenizer, lambda name: active(loaded, name))
    attach_adapters(loaded, {"reader": tmp_path / "cut"})
    with lm.activate("reader"):
        assert (
            torch.cosine_similarity(from_text(lm, TEXT).flatten(), expected.flatten(), dim=0) > 0.99
        )
