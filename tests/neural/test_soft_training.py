"""Training soft memories on a tiny model: what is trained on is what is served, and every piece
reaches what it should.
"""

from dataclasses import replace

import pytest
import torch

from cmt_sdk.neural.methods.soft import SoftMethod
from cmt_sdk.neural.methods.soft_tokens import SoftTokens
from cmt_sdk.neural.reader import TorchReader
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.testing.tiny import byte_tokenizer, tiny_llama
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.answers import answer_states
from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.packs import Item, Rows, build, draw, repetition
from cmt_sdk.training.soft import SoftTask, reading_cache
from cmt_sdk.types import Prompt
from tests.neural.test_training import mixture, passages


@pytest.fixture
def task(tmp_path):
    """Both adapters on a fresh tiny model, with a teacher that reads the text bare."""
    torch.manual_seed(0)
    trainable(tiny_llama(), byte_tokenizer(), rank=4).save(tmp_path)
    start = {"reader": None, "encoder": None}
    made = trainable(
        tiny_llama(),
        byte_tokenizer(),
        rank=4,
        start=start,
        frozen={"teacher_reader": tmp_path / "reader"},
    )
    adapters = [p for parameters in made.parameters.values() for p in parameters]
    return SoftTask(
        made.lm, Rotary(made.lm.model), mixture(), [draw(made.lm, mixture(7))], adapters,
        made.save, Objectives(answer=1.0, teacher=1.0, alpha=0.5), 100, ("teacher_encoder", "teacher_reader"),
    )  # fmt: skip


def test_the_first_word_is_that_of_serving(task):
    """Greedy reading of stored soft tokens begins with the most probable token of training's
    logits.
    """
    lm, contents = task.lm, [p.context for p in passages()[:2]]
    stored = SoftMethod(lm, 4).compress(contents)
    question = "Where is the museum?"
    pack = build(lm, contents, [Item(question, "x")])
    with torch.no_grad():
        soft = task._soft(contents, 4)
        cache = reading_cache(lm, [[soft[c] for c in contents]])
        logits = lm.logits(answer_states(lm, cache, Rows.of([pack], lm.device)))[0]
    (usage,) = [
        p.usage
        for p in TorchReader(lm, SoftMethod(lm, 4)).read(Prompt(question, memories=stored), 1)
        if p.usage
    ]
    assert usage.answer_tokens == 1
    told = [
        p.text
        for p in TorchReader(lm, SoftMethod(lm, 4)).read(Prompt(question, memories=stored), 1)
        if p.text
    ]
    assert lm.tokenizer.decode([int(logits.argmax())]).startswith("".join(told)[:1])


def test_every_piece_gives_the_adapters_a_gradient(task):
    """The teacher alone, its states, the answers alone: encoder and reader learn, in the first
    layers and in those that read on. Of the last layer the encoder makes keys and values only: what
    makes states there (q, o, gate, up, down) learns nothing.
    """
    for parameter in task.adapters:
        torch.nn.init.normal_(parameter, std=0.02)
    taught = Objectives(answer=0.0, teacher=1e-6, states=3.0)
    for objectives in (
        Objectives(answer=1.0),
        Objectives(answer=0.0, teacher=1.0),
        taught,
        Objectives(alpha=0.5),
    ):
        replace(task, objectives=objectives).learn()
        reached = [p for p in task.parameters() if p.grad is not None]
        assert len(task.parameters()) - len(reached) == 5 * 2
        for parameter in reached:
            assert float(parameter.grad.abs().sum()) > 0
            parameter.grad = None


def test_the_ratio_rises_and_is_then_drawn(task):
    """A tenth of the run squeezes out half, and the rest draws from 4, 8 and 16, mostly 4."""
    ratios = []
    for task.seen in range(100):
        ratios.append(task._draw_ratio())
    assert ratios[:10] == [2] * 10
    assert set(ratios[10:]) == {4, 8, 16}
    assert ratios.count(4) > max(ratios.count(8), ratios.count(16))
    task.seen, task.ablate = 0, ("warm-start", "ratios")
    assert [task._draw_ratio() for _ in range(5)] == [4] * 5


def asked(lm, *items):
    """One row of questions."""
    return Rows.of([build(lm, ["x"], items)], lm.device)


def test_a_question_sees_all_soft_tokens_and_no_other_question(task):
    """Changing one question's words leaves the other's logits as they were."""
    lm = task.lm
    soft = [SoftTokens(torch.randn(5, 128), torch.tensor([0, 4, 5, 9, 10]))]

    def logits(memories, *items):
        states = answer_states(lm, reading_cache(lm, [memories]), asked(lm, *items))
        return lm.logits(states)

    with torch.no_grad():
        first = logits(soft, Item("Where?", "Rome"), Item("When?", "May"))
        other = logits(soft, Item("Where?", "Rome"), Item("Who is it?", "May"))
        without = logits([], Item("Where?", "Rome"))
    torch.testing.assert_close(first[:5], other[:5])
    assert not torch.allclose(first[:5], without, atol=1e-3)


def test_a_passage_is_repeated_from_its_soft_tokens(task):
    """Every one of its tokens is an answer, alone with its passage; it counts as no question, and
    can be left out.
    """
    content = passages()[0].context
    pack = repetition(task.lm, content)
    told = [int(i) for i in pack.labels if i >= 0]
    assert (told, pack.contents, pack.questions) == (task.lm.passage_ids(content), [content], 0)
    drawn = [task._drawn() for _ in range(20)]
    assert 5 < sum(any(not p.questions for p in packs) for packs in drawn) < 20
    task.seen = task.examples
    assert all(p.questions for _ in range(20) for p in task._drawn())
    task.seen, without = 0, replace(task, ablate=("repetition",))
    assert all(p.questions for _ in range(20) for p in without._drawn())
    assert task.learn()[2] > 0


def test_packs_read_abreast_teach_the_same(task):
    """However many are in one pass: the loss and the gradients."""
    for parameter in task.adapters:
        torch.nn.init.normal_(parameter, std=0.02)
    packs = [pack for _ in range(2) for pack in draw(task.lm, mixture(3))]
    packs.insert(1, repetition(task.lm, packs[0].contents[0]))
    assert len(packs) > 3
    found = []
    for at_once in (1, 2, len(packs)):
        loss, _ = replace(task, at_once=at_once)._read(packs, 4, task.objectives)
        found.append(
            (loss, torch.cat([p.grad.flatten() for p in task.adapters if p.grad is not None]))
        )
        for parameter in task.adapters:
            parameter.grad = None
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-4)
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-3, atol=1e-4)


def test_the_more_is_squeezed_out_the_further_is_a_reader_from_its_teacher(task):
    """Where passages have nothing to be squeezed out and both read bare, their states differ by
    what the first layers miss.
    """
    packs = [p for p in draw(task.lm, mixture(3)) if p.questions]
    plain, far = (
        Objectives(answer=1.0, teacher=1.0),
        Objectives(answer=1.0, teacher=1.0, states=3.0),
    )
    with torch.no_grad():
        apart = [
            task._read(packs, ratio, far)[0] - task._read(packs, ratio, plain)[0]
            for ratio in (1, 16)
        ]
    assert 0 < apart[0] < apart[1]
    untaught = replace(task, teachers=None)
    with torch.no_grad():
        assert untaught._read(packs, 4, far)[0] == untaught._read(packs, 4, plain)[0]


def test_the_prompt_s_head_is_made_by_the_bare_model(task):
    """Whichever adapter is on when it is first needed, and that one is on again afterwards: serving
    reads the same head.
    """
    for parameter in task.adapters:
        torch.nn.init.normal_(parameter, std=0.2)
    bare, ids = replace(task.lm).prefix_cache(1), torch.tensor([[3, 4, 5]])
    with torch.no_grad(), task.lm.activate("encoder"):
        other = replace(task.lm)
        torch.testing.assert_close(other.prefix_cache(1).layers[-1].keys, bare.layers[-1].keys)
        encoded = task.lm.model(input_ids=ids).logits
    assert not torch.allclose(encoded, task.lm.model(input_ids=ids).logits, atol=1e-2)
