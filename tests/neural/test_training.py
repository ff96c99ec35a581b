"""Training on a tiny model: losses fall, the base stays, and a run that is cut off goes on as if it
had not been.
"""

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.neural.embedding import Matcher
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.questions.dataset import Question, QuestionedPassage
from cmt_sdk.reading.limits import NON_BEST_BIAS
from cmt_sdk.testing.tiny import byte_tokenizer, save_tiny, tiny_frozen, tiny_llama
from cmt_sdk.training.adapters import reduce_rank, trainable
from cmt_sdk.training.answers import answer_loss, answer_states
from cmt_sdk.training.data import Mixture, is_validation
from cmt_sdk.training.kv_entries import encode, kv_cache
from cmt_sdk.training.loop import train
from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.matcher import MatchData, MatcherTask, Neighbours, first_head
from cmt_sdk.training.nf4_base import Bases, as_nf4
from cmt_sdk.training.packs import Item, Rows, build, draw
from cmt_sdk.training.reader import ReaderTask
from cmt_sdk.training.soft import SoftTask
from cmt_sdk.training.task import Plan
from cmt_sdk.weights.loading import load_base

PLACES = {"museum": "Lisbon", "harbour": "Genoa", "library": "Porto", "tower": "Pisa"}


def passages():
    """Four passages with two questions each."""
    made = []
    for number, (thing, town) in enumerate(PLACES.items()):
        asked = [(f"Where is the {thing}?", town), (f"Which town has a {thing}?", town)]
        questions = tuple(
            Question(text, (answer,), f"{number}-{n}") for n, (text, answer) in enumerate(asked)
        )
        made.append(QuestionedPassage(thing, f"The {thing} is in {town}.", questions))
    return made


def mixture(seed=0):
    """The passages as one file."""
    return Mixture({"towns": passages()}, {"towns": 1.0}, seed)


def reader_task(seed=0, rank=4):
    """A reader adapter on a fresh tiny model."""
    torch.manual_seed(seed)
    made = trainable(tiny_llama(), byte_tokenizer(), rank=rank)
    packs = [draw(made.lm, mixture(7))]
    learned = made.parameters["reader"]
    return ReaderTask(
        made.lm, Rotary(made.lm.model), mixture(), packs, learned, made.save, {0.5: 1.0}
    )


def compressor_task(seed=0):
    """Both adapters on a fresh tiny model."""
    torch.manual_seed(seed)
    made = trainable(
        tiny_llama(), byte_tokenizer(), rank=4, start={"reader": None, "encoder": None}
    )
    learned = [*made.parameters["reader"], *made.parameters["encoder"]]
    packs = [draw(made.lm, mixture(7))]
    return ReaderTask(
        made.lm,
        Rotary(made.lm.model),
        mixture(),
        packs,
        learned,
        made.save,
        {0.5: 1.0},
        encoder=True,
    )


def soft_task():
    """An encoder of soft tokens and their reader on a fresh tiny model, at a ratio of 4."""
    torch.manual_seed(0)
    made = trainable(
        tiny_llama(), byte_tokenizer(), rank=4, start={"reader": None, "encoder": None}
    )
    adapters = [p for parameters in made.parameters.values() for p in parameters]
    return SoftTask(
        made.lm, None, mixture(), [draw(made.lm, mixture(7))], adapters, made.save, Objectives(), 100,
        ablate=("ratios", "warm-start", "repetition"),
    )  # fmt: skip


def matcher_task():
    """A matching head on a fresh tiny model."""
    torch.manual_seed(0)
    lm = tiny_frozen()
    data = MatchData.of(lm, passages(), [0, 2])
    start = first_head(lm, data, [0, 2], 3)
    return MatcherTask(start, data, data, lambda tensors, file: None, random.Random(0), size=4)


def losses(folder):
    """The logged losses, by step; the last line of a step counts."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize("make", [reader_task, compressor_task, matcher_task])
def test_the_loss_falls(make, tmp_path):
    """Thirty steps on eight questions are enough to learn something."""
    train(make(), Plan(steps=30, rate=5e-3, accumulate=1, warmup=3), tmp_path, lambda _: None)
    curve = losses(tmp_path)
    assert sum(curve[n] for n in range(26, 31)) < 0.8 * sum(curve[n] for n in range(1, 6))


@pytest.mark.parametrize("make", [reader_task, compressor_task, matcher_task])
def test_a_run_that_was_cut_off_goes_on_exactly(make, tmp_path):
    """Killed after a save, restarted from the state: the same curve to the last digit that
    matters.
    """
    plan = Plan(steps=8, accumulate=2, save_every=3)
    train(make(), plan, tmp_path / "whole", lambda _: None)

    class Killed(Exception):
        """Stands for a kill."""

    def kill_at_five(figures):
        if figures.get("step") == 5 and "loss" in figures:
            raise Killed

    with pytest.raises(Killed):
        train(make(), plan, tmp_path / "cut", kill_at_five)
    assert train(make(), plan, tmp_path / "cut", lambda _: None).step == 8
    whole, cut = losses(tmp_path / "whole"), losses(tmp_path / "cut")
    assert cut == pytest.approx(whole, rel=1e-4)


def test_a_kill_while_a_step_is_saved_a_second_time_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    """The last step is saved by its number, then at the end of the call: half a file of tensors
    under the name that the state gives would end the run for good.
    """
    plan = Plan(steps=4, accumulate=1, save_every=2)
    train(matcher_task(), plan, tmp_path, lambda _: None)
    before = (tmp_path / "state" / "step-4.safetensors").read_bytes()

    class Killed(Exception):
        """Stands for a kill."""

    def half(_tensors, file):
        Path(file).write_bytes(before[: len(before) // 2])
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("cmt_sdk.training.saved_state.save_file", half)
        with pytest.raises(Killed):
            train(matcher_task(), plan, tmp_path, lambda _: None)
    assert (tmp_path / "state" / "step-4.safetensors").read_bytes() == before
    assert train(matcher_task(), plan, tmp_path, lambda _: None).step == 4


def test_passages_of_a_title_are_drawn_together():
    """As a search finds them; every passage comes once before any comes again."""
    made = [QuestionedPassage(f"t{n % 3}" if n < 12 else "", f"text {n}", ()) for n in range(15)]
    stream = Mixture({"f": made}, {"f": 1.0}, 0)
    drawn = [stream.take("f") for _ in made]
    assert sorted(p.context for p in drawn) == sorted(p.context for p in made)
    assert sum(a.title == b.title != "" for a, b in pairwise(drawn)) == 9
    assert [p.context for p in drawn] != [p.context for p in made]


def test_a_mixture_goes_back_to_a_state_that_was_kept():
    """What is drawn later does not reach into it: a rehearsal leaves no trace."""
    stream = mixture()
    for _ in range(3):
        stream.take(stream.name())
    kept = stream.state()
    drawn = [stream.take(stream.name()).context for _ in range(5)]
    stream.restore(kept)
    assert [stream.take(stream.name()).context for _ in range(5)] == drawn


def test_training_ends_when_the_held_out_score_no_longer_falls(tmp_path):
    """After so many validations in a row without a better one; the weights kept are those of the
    best.
    """

    class Worse:
        """A task whose score falls to its third validation and rises from then on."""

        def __init__(self):
            self.weight, self.count, self.saved = torch.nn.Parameter(torch.ones(1)), 0, []

        def parameters(self):
            return [self.weight]

        def learn(self):
            (self.weight * 2).sum().backward()
            return 2.0, 1, 1

        def validate(self):
            self.count += 1
            return {"held_out": abs(self.count - 3)}

        def score(self, figures):
            return figures["held_out"]

        def save(self, folder):
            self.saved.append(self.count)

        def state(self):
            return None

        def restore(self, state):
            pass

    task = Worse()
    done = train(
        task, Plan(steps=50, accumulate=1, validate_every=2, patience=3), tmp_path, lambda _: None
    )
    assert (done.step, done.best, done.tokens) == (10, 0, 10)
    assert task.saved == [1, 2, 3]


def test_the_rate_falls_with_the_steps_or_with_the_time():
    """Whichever is further: a run that must end sooner than its steps do is at its lowest rate
    then, too.
    """
    plan = Plan(steps=100, rate=1.0, warmup=1, floor=0.1)
    assert [round(plan.rate_at(step), 2) for step in (0, 50, 100)] == [1.0, 0.55, 0.1]
    assert [round(plan.rate_at(10, done), 2) for done in (0.0, 0.5, 1.0)] == [0.98, 0.55, 0.1]
    assert plan.rate_at(50, 0.1) == plan.rate_at(50)


def test_a_run_goes_on_with_its_own_plan_only(tmp_path):
    """Another rate, or other examples, would make another curve: the values that the run has are
    told.
    """
    train(
        reader_task(),
        Plan(steps=2, accumulate=1),
        tmp_path,
        lambda _: None,
        choices={"batch": 1, "seed": 0},
    )
    with pytest.raises(
        InvalidSetting,
        match=r"holds a run with steps=2, rate=0.001, batch=1: resume with these settings",
    ):
        train(
            reader_task(),
            Plan(steps=4, rate=1e-4, accumulate=1),
            tmp_path,
            lambda _: None,
            choices={"batch": 2, "seed": 0},
        )


def test_training_never_changes_the_base(tmp_path):
    """Every parameter that is no adapter's is what it was."""
    task = reader_task()
    train(task, Plan(steps=3, accumulate=1), tmp_path, lambda _: None)
    trained = {
        n.replace(".base_layer", ""): p
        for n, p in task.lm.model.named_parameters()
        if "lora_" not in n
    }
    for name, parameter in tiny_llama().named_parameters():
        assert torch.equal(trained[name], parameter)


def test_a_share_of_the_examples_is_read_by_the_base_in_nf4(tmp_path):
    """What bitsandbytes makes of each weight, and the weights themselves again afterwards;
    validation tells of both.
    """
    task = reader_task()
    task = replace(task, bases=Bases(task.lm.model), nf4=0.5)
    before = {n: p.clone() for n, p in task.lm.model.named_parameters() if "lora_" not in n}
    told = []
    train(task, Plan(steps=4, accumulate=1, validate_every=2), tmp_path, told.append)
    assert sum({"held_out@0.25", "held_out@0.25 nf4"} <= set(line) for line in told) == 3
    task.bases.use(nf4=True)
    now = {n: p for n, p in task.lm.model.named_parameters() if "lora_" not in n}
    changed = {n for n, p in now.items() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if "_proj" in n}
    assert all((now[n] - before[n]).norm() < 0.15 * before[n].norm() for n in changed)
    task.bases.use(nf4=False)
    assert all(torch.equal(p, before[n]) for n, p in now.items())


def test_a_base_in_four_bits_alone_teaches_what_its_imitation_teaches(tmp_path):
    """QLoRA on a CPU: the same loss and gradients as with weights after a round trip through NF4."""
    pytest.importorskip("bitsandbytes")
    folder = save_tiny(tmp_path / "tiny")
    found = []
    for precision in ("full", "nf4"):
        torch.manual_seed(0)
        model = load_base(str(folder), precision=precision, device="cpu", gradients=True).model
        made = trainable(model, byte_tokenizer(), rank=4)
        learned = made.parameters["reader"]
        for parameter in learned:
            parameter.data = (
                torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
                )
                / 8
            )
        task = ReaderTask(made.lm, Rotary(model), mixture(), [], learned, made.save, {0.5: 1.0})
        if precision == "full":
            Bases(model).use(nf4=True)
        found.append((task.learn()[0], [p.grad for p in learned]))
    (loss, gradients), (same_loss, same_gradients) = found
    assert same_loss == pytest.approx(loss, rel=2e-2)
    pairs = list(zip(gradients, same_gradients, strict=True))
    assert all(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99 for a, b in pairs)


def test_moments_in_eight_bits_resume_where_they_were(tmp_path):
    """Cut off after two of four steps, the run ends as the whole one, and its state is smaller."""
    pytest.importorskip("bitsandbytes", "0.50")
    plan = Plan(steps=4, rate=5e-3, accumulate=1, warmup=1, save_every=2, validate_every=10)
    train(reader_task(rank=32), plan, tmp_path / "whole", lambda _: None, eight_bit=True)

    class Killed(Exception):
        """The process is gone."""

    def kill(line):
        if line["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(reader_task(rank=32), plan, tmp_path / "cut", kill, eight_bit=True)
    with pytest.raises(InvalidSetting, match="holds a run with eight_bit=True"):
        train(reader_task(rank=32), plan, tmp_path / "cut", lambda _: None)
    train(reader_task(rank=32), plan, tmp_path / "cut", lambda _: None, eight_bit=True)
    train(reader_task(rank=32), plan, tmp_path / "full", lambda _: None)
    states = {}
    for name in ("whole", "cut", "full"):
        (file,) = (tmp_path / name / "state").glob("step-4.safetensors")
        states[name] = load_file(file)
    assert states["cut"].keys() == states["whole"].keys()
    for name, tensor in states["whole"].items():
        torch.testing.assert_close(states["cut"][name], tensor)
    large = max(states["whole"].items(), key=lambda pair: pair[1].numel())[0].rpartition(".")[2]
    assert states["whole"][f"state1.{large}"].dtype == torch.uint8
    assert states["full"][f"exp_avg.{large}"].dtype == torch.float32


# peft 0.21's old word
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_saved_adapter_is_peft_s_own_format(tmp_path):
    """bf16 weights, plain configuration, no path of the machine that trained it."""
    train(reader_task(), Plan(steps=6, rate=5e-3, accumulate=1, warmup=2), tmp_path, lambda _: None)
    config = json.loads((tmp_path / "adapter" / "reader" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == (
        "LORA",
        4,
        None,
    )
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path / "adapter" / "reader")
    assert any(p.abs().sum() > 0 for n, p in loaded.named_parameters() if "lora_B" in n)


def test_an_adapter_cut_to_a_rank_that_suffices_is_the_same(tmp_path):
    """Of rank 2 stored as rank 4, it computes the same when it is cut back to 2."""
    made = trainable(tiny_llama(), byte_tokenizer(), rank=4)
    for parameter in made.parameters["reader"]:
        torch.nn.init.normal_(parameter, std=0.2)
        parameter.data[
            (slice(2, None),) if parameter.shape[0] == 4 else (slice(None), slice(2, None))
        ] = 0.0
    made.save(tmp_path / "whole")
    reduce_rank(tiny_llama(), tmp_path / "whole" / "reader", 2, tmp_path / "cut" / "reader")
    found = []
    for name in ("whole", "cut"):
        lm = trainable(
            tiny_llama(), byte_tokenizer(), start={"reader": tmp_path / name / "reader"}
        ).lm
        with torch.inference_mode(), lm.activate("reader"):
            found.append(lm.model(torch.tensor([[5, 6, 7, 8]])).logits)
    assert json.loads((tmp_path / "cut" / "reader" / "adapter_config.json").read_text())["r"] == 2
    torch.testing.assert_close(found[0], found[1], atol=6e-2, rtol=2e-2)
    assert not torch.allclose(found[0], lm.model(torch.tensor([[5, 6, 7, 8]])).logits, atol=0.3)


@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_what_is_trained_on_is_what_is_served(keep):
    """The same answer loss through memories with gradients as through stored ones, decoded and
    placed.
    """
    task = compressor_task()
    lm, contents = task.lm, [p.context for p in passages()[:3]]
    for parameter in task.learned:
        torch.nn.init.normal_(parameter, std=0.15)
    pack = build(lm, contents, [Item("Where is the library?", "Porto")])
    with torch.no_grad(), lm.activate("encoder"):
        trained = kv_cache(lm, task.rotary, [encode(lm, task.rotary, contents, [keep] * 3)])
    method = KVMethod(lm, task.rotary, keep)
    served = method.cache([method.compress(contents)], bias=NON_BEST_BIAS)
    with torch.no_grad(), lm.activate("reader"):
        losses = [pack_loss(lm, notes, pack) for notes in (trained, served)]
        bare = kv_cache(lm, task.rotary, [encode(lm, task.rotary, contents, [keep] * 3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    with torch.no_grad(), lm.activate("reader"):
        assert pack_loss(lm, bare, pack) != pytest.approx(losses[1], rel=1e-2)


def pack_loss(lm, notes, pack):
    """Summed cross-entropy of a pack's answers."""
    rows = Rows.of([pack], lm.device)
    return float(
        answer_loss(lm, Objectives(), answer_states(lm, notes, rows), rows.labels[rows.labels >= 0])
    )


@pytest.mark.parametrize("part", ["kv", "soft"])
def test_examples_computed_together_teach_what_they_teach_apart(part):
    """Packs of several lengths side by side, after several numbers of memories: the same losses and
    gradients.
    """
    found = []
    for size in (1, 4):
        task = replace(compressor_task() if part == "kv" else soft_task(), batch=size)
        for parameter in task.parameters():
            torch.nn.init.normal_(
                parameter, std=0.05, generator=torch.Generator().manual_seed(parameter.numel())
            )
        told = [task.learn() for _ in range(4 // size)]
        gradients = [float(p.grad.norm()) for p in task.parameters() if p.grad is not None]
        found.append([sum(x) for x in zip(*told, strict=True)] + gradients)
    stream = mixture()
    assert len({len(p.contents) for _ in range(4) for p in draw(task.lm, stream)}) > 1
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_entries_left_out_are_learned_from_all_of_them():
    """Where a quarter is kept, the teacher's reading of all entries adds to the loss; where all
    are, as they are of short passages, it adds nothing.
    """
    answers, both = Objectives(), Objectives(answer=1.0, teacher=1.0)
    for share, at_least, differs in ((0.25, 0, True), (1.0, 0, False), (0.25, 99, False)):
        found = []
        for objectives in (answers, both):
            task = replace(
                compressor_task(), shares={share: 1.0}, at_least=at_least, objectives=objectives
            )
            for parameter in task.learned:
                torch.nn.init.normal_(
                    parameter, std=0.05, generator=torch.Generator().manual_seed(parameter.numel())
                )
            found.append(task.learn()[0])
        assert (found[1] > found[0] + 1e-3) is differs


def test_the_imitated_nf4_is_what_bitsandbytes_makes():
    """To the last bit, also of a size that fills no whole block."""
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert torch.equal(as_nf4(weight), dequantize_4bit(*quantize_4bit(weight, quant_type="nf4")))


def test_gradients_reach_the_encoder_through_four_bits():
    """The round trip through the codes lets them pass; where only the reader learns, the encoder
    gets none.
    """
    task = compressor_task()
    encoder = task.learned[len(task.learned) // 2 :]
    task.learn()
    assert sum(float(p.grad.abs().sum()) for p in encoder if p.grad is not None) > 0
    only_reader = replace(compressor_task(), encoder=False)
    only_reader.learn()
    assert all(p.grad is None for p in only_reader.learned[len(encoder) :])


def test_a_passage_is_read_among_its_neighbours():
    """All of them, and no other; it asks about nothing that is not there. Mostly it is the last."""
    made = [replace(p, neighbours=(f"No {p.title}.", "It rains.")) for p in passages()]
    stream = Mixture({"towns": made}, {"towns": 1.0}, 0)
    packs = [pack for _ in range(10) for pack in draw(tiny_frozen(), stream)]
    for pack in packs:
        own = next(p for p in made if p.context in pack.contents)
        assert sorted(pack.contents) == sorted([own.context, *own.neighbours])
        assert {pack.contents[n] for n in pack.about} == {own.context}
        assert set(pack.asked) == {q.text for q in own.questions}
    last = sum(pack.about[0] == 2 for pack in packs)
    assert 0.6 * len(packs) < last < len(packs)


def test_a_passage_that_has_a_place_is_read_in_it():
    """So a reader can learn that what was stated later holds."""
    made = [replace(p, neighbours=("It was cold.", "It rains."), place=1) for p in passages()]
    for pack in draw(tiny_frozen(), Mixture({"towns": made}, {"towns": 1.0}, 0)):
        own = next(p for p in made if p.context in pack.contents)
        assert list(pack.contents) == ["It was cold.", own.context, "It rains."]
        assert set(pack.about) == {1}


def test_a_pack_keeps_questions_apart():
    """Each question sees itself and what came before in it, no other question; labels are the
    answers' tokens.
    """
    lm = reader_task().lm
    pack = build(lm, ["The museum is in Lisbon."], [Item("Where?", "Lisbon"), Item("When?", "May")])
    assert pack.questions == 2
    first = len(lm.question_ids("Where?")) + len("Lisbon") + 1
    seen = pack.mask[0, 0] == 0
    assert not seen[first:, :first].any()
    assert bool(seen[first - 1, :first].all())
    told = [int(label) for label in pack.labels if label >= 0]
    assert lm.tokenizer.decode(told) == "Lisbon<end>May<end>"
    assert pack.offsets[0, first] == 0


def test_an_answer_that_is_too_long_is_left_out():
    """A pack holds what fits; nothing fits, no pack."""
    assert build(reader_task().lm, ["x"], [Item("Where?", "a" * 60)]) is None


def test_neighbours_share_words_with_the_question():
    """Hard negatives are what full-text search would mistake for the passage."""
    contexts = [p.context for p in passages()]
    assert Neighbours(contexts).of("Where is the harbour, is it in Genoa?", 2)[0] == 1
    assert Neighbours(contexts).of("?!", 3) == []


def test_matching_data_knows_whose_questions_it_holds():
    """Owners point at the passages; a question is never its own hard negative."""
    data = MatchData.of(tiny_frozen(), passages(), [0, 2])
    assert data.owner == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(own not in near for own, near in zip(data.owner, data.near, strict=True))
    assert data.passages.states.shape[1:] == (2, 128)


def test_kept_states_give_the_vectors_of_serving():
    """What is trained on is what is served."""
    lm = tiny_frozen()
    data = MatchData.of(lm, passages(), [0, 2])
    head = first_head(lm, data, [0, 2], 3)
    served = Matcher(lm, head).vectors([p.context for p in passages()])
    torch.testing.assert_close(
        data.passages.vectors(head, range(4)), torch.from_numpy(served), atol=2e-2, rtol=2e-2
    )


def test_validation_titles_are_a_small_fixed_share():
    """Chosen by hash, the same on every machine; untitled passages are trained on."""
    held = [is_validation(f"title {n}") for n in range(3000)]
    assert 50 < sum(held) < 130
    assert not is_validation("")


@pytest.mark.parametrize("part", ["compressor", "soft"])
def test_layers_that_compute_again_give_the_same_gradients(part):
    """Checkpointing changes what is held, not what is learned: every layer runs twice where
    gradients are on.
    """
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        made = trainable(
            tiny_llama(),
            byte_tokenizer(),
            rank=4,
            start={"reader": None, "encoder": None},
            checkpointing=checkpointing,
        )
        learned = [*made.parameters["reader"], *made.parameters["encoder"]]
        for parameter in learned:
            parameter.data = torch.randn_like(parameter) / 8
        task = gradient_task(part, made, learned)
        calls = []
        made.lm.blocks[-1].self_attn.register_forward_hook(
            lambda *_: calls.append(torch.is_grad_enabled())  # noqa: B023
        )
        loss, _, _ = task.learn()
        found.append((loss, [p.grad for p in learned], sum(calls)))
    (loss, gradients, once), (same_loss, same_gradients, twice) = found
    assert same_loss == pytest.approx(loss, rel=1e-6)
    assert twice == 2 * once
    for one, other in zip(gradients, same_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def gradient_task(part, made, learned):
    """A task over both adapters of a tiny model."""
    packs = [draw(made.lm, mixture(7))]
    if part == "compressor":
        return ReaderTask(
            made.lm,
            Rotary(made.lm.model),
            mixture(),
            packs,
            learned,
            made.save,
            {0.5: 1.0},
            encoder=True,
        )
    return SoftTask(
        made.lm, None, mixture(), packs, learned, made.save, Objectives(answer=1.0), examples=10
    )
