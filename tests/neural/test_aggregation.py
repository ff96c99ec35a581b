"""CMT as published: memories gathered into a few keys and values, trained and asked, on a tiny
model.
"""

from dataclasses import fields, replace

import pytest
import torch

import cmt_sdk
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.neural.methods.aggregation import AggregatedMethod, Aggregator
from cmt_sdk.neural.methods.soft import SoftMethod
from cmt_sdk.testing.tiny import byte_tokenizer, save_tiny, tiny_llama
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.cmt import CMTTask
from cmt_sdk.training.loop import train
from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.packs import Item, build, draw
from cmt_sdk.training.task import Plan
from tests.neural.test_training import losses, mixture, passages


@pytest.fixture
def aggregator():
    """Psi and pi for 3 layers of 2 heads of 32 values, with maps that are no identity."""
    torch.manual_seed(0)
    first = Aggregator.first(16, (3, 2, 32))
    return replace(
        first, query=torch.randn(16, 16), key=torch.randn(16, 16), value=torch.randn(16, 16)
    )


def paper_task(**changes):
    """Theta, psi and pi on a fresh tiny model."""
    torch.manual_seed(0)
    made = trainable(tiny_llama(), byte_tokenizer(), rank=4, start={"encoder": None})
    task = CMTTask(
        made.lm, mixture(), [draw(made.lm, mixture(7))], made.parameters["encoder"],
        Aggregator.first(128, made.lm.kv_shape), made.save, lambda tensors, file: None, Objectives(alpha=0.5), 4,
    )  # fmt: skip
    return replace(task, **changes)


def test_memories_are_gathered_by_attention(aggregator):
    """As a loop over questions' and memories' tokens computes it."""
    question, memories = torch.randn(3, 16), torch.randn(7, 16)
    gathered = aggregator.gather(question, memories)
    for row, asked in zip(gathered, question, strict=True):
        scores = torch.stack(
            [(aggregator.query @ asked) @ (aggregator.key @ m) / 4 for m in memories]
        )
        expected = sum(
            w * (aggregator.value @ m) for w, m in zip(scores.softmax(0), memories, strict=True)
        )
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)


def test_untrained_it_is_the_published_form(aggregator):
    """With the maps at the identity: softmax(Q K^T / sqrt(d)) V, K = V = the memories."""
    plain = Aggregator.first(16, (3, 2, 32))
    question, memories = torch.randn(2, 16), torch.randn(5, 16)
    torch.testing.assert_close(
        plain.gather(question, memories), (question @ memories.T / 4).softmax(-1) @ memories
    )


def test_the_order_of_memories_does_not_matter(aggregator):
    """A bank is a set."""
    question, memories = torch.randn(3, 16), torch.randn(7, 16)
    shuffled = memories[torch.randperm(7)]
    torch.testing.assert_close(
        aggregator.gather(question, memories), aggregator.gather(question, shuffled)
    )


def test_every_layer_gets_its_own_keys_and_values(aggregator):
    """[layers, kv_heads, last_hidden_states, head]; and the tensors survive a file."""
    keys, values = aggregator.spread(torch.randn(3, 16))
    assert keys.shape == values.shape == (3, 2, 3, 32)
    assert not torch.allclose(keys[0], keys[1])
    again = Aggregator.of(aggregator.tensors())
    assert all(
        torch.equal(getattr(again, f.name), getattr(aggregator, f.name)) for f in fields(Aggregator)
    )


def test_the_loss_falls(tmp_path):
    """Thirty steps on eight questions."""
    plan = Plan(steps=30, rate=5e-3, accumulate=1, warmup=3, save_every=10, validate_every=50)
    train(paper_task(), plan, tmp_path / "whole", lambda _: None)
    curve = losses(tmp_path / "whole")
    assert sum(curve[n] for n in range(26, 31)) < 0.9 * sum(curve[n] for n in range(1, 6))


@pytest.mark.parametrize(
    ("steps", "save", "end"), [(6, 2, 3), pytest.param(30, 10, 15, marks=pytest.mark.slow)]
)
def test_a_run_that_was_cut_off_goes_on_exactly(tmp_path, steps, save, end):
    """After a kill the same curve."""
    plan = Plan(steps=steps, rate=5e-3, accumulate=1, warmup=3, save_every=save, validate_every=50)
    train(paper_task(), plan, tmp_path / "whole", lambda _: None)
    curve = losses(tmp_path / "whole")

    class Killed(Exception):
        """The process is gone."""

    def kill(line):
        if line["step"] == end:
            raise Killed

    with pytest.raises(Killed):
        train(paper_task(), plan, tmp_path / "cut", kill)
    train(paper_task(), plan, tmp_path / "cut", lambda _: None)
    assert losses(tmp_path / "cut") == pytest.approx(curve, rel=1e-3)


def test_every_part_learns_and_the_base_does_not():
    """Gradients reach Theta, psi and pi."""
    task = paper_task()
    for parameter in task.encoder:
        torch.nn.init.normal_(parameter, std=0.02)
    task.learn()
    assert all(float(p.grad.abs().sum()) > 0 for p in task.parameters())
    assert all(p.grad is None for n, p in task.lm.model.named_parameters() if "lora_" not in n)


def test_self_matching_can_be_switched_off():
    """Then the loss is that of the answers alone."""
    task = paper_task()
    with torch.no_grad():
        state = task.state()
        with_matching, tokens, _ = task.learn()
        task.restore(state)
        packs = draw(task.lm, task.mixture)
        answers, matched, _ = task._losses(packs, task.objectives)
        task.restore(state)
        alone, _, _ = replace(task, aggregator=task.aggregator, ablate=("matching",)).learn()
    assert alone == pytest.approx(float(answers), rel=1e-4)
    assert with_matching == pytest.approx(float(answers) + 0.1 * tokens * float(matched), rel=1e-4)


def test_what_is_trained_on_is_what_is_served():
    """The first word of an answer is the most probable one by training's logits."""
    task = paper_task()
    lm, contents = task.lm, [p.context for p in passages()[:3]]
    task.aggregator = Aggregator(**{
        f.name: getattr(task.aggregator, f.name) * (20 if f.name == "wide" else 1) for f in fields(Aggregator)
    })  # fmt: skip
    compressor = SoftMethod(lm, 4)
    question = "Where is the library?"
    pack = build(lm, contents, [Item(question, "x")])
    with torch.no_grad():
        memories = torch.cat(task._soft([lm.passage_ids(c) for c in contents]))
        (asked,) = task._soft([lm.ids(question)])
        read = task._read(pack, [task.aggregator.gather(asked, memories)])
        expected, bare = lm.logits(torch.stack([read[0], task._bare(pack)[0]]))
    method = AggregatedMethod(lm, compressor, task.aggregator)
    asked = torch.tensor([lm.question_ids(question)])
    cache = method.cache([method.compress(contents)], question=question, room=asked.shape[1])
    with torch.inference_mode():
        states = lm.forward(cache, **cache.inputs(asked))
        served = lm.logits(states[0, -1:])[0]
    assert cache.keys[0].shape == cache.values[0].shape
    torch.testing.assert_close(served, expected, rtol=1e-2, atol=1e-2)
    assert not torch.allclose(served, bare, atol=1e-1)


def test_asking_without_the_part_tells_how_to_make_it(tmp_path):
    """The shipped adapters gather nothing; the other compressor has nothing to gather."""
    model = save_tiny(tmp_path / "tiny")
    with pytest.raises(
        InvalidSetting, match="aggregation='cmt': it gathers the passages of compressor='soft'"
    ):
        cmt_sdk.open(tmp_path / "a", model=str(model), aggregation="cmt")
    with cmt_sdk.open(
        tmp_path / "b", model=str(model), compressor="soft", aggregation="cmt", device="cpu"
    ) as memory:
        memory.add("The museum is in Lisbon.")
        with pytest.raises(InvalidSetting, match="make one with `cmt train --part cmt`"):
            memory.model.ask("Where is the museum?")
