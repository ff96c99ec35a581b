"""What a run takes is foretold from a model's configuration, and a measured step stays below it."""

import random
import tomllib
from pathlib import Path

import pytest
import torch

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.neural import batching
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.questions.dataset import Question, QuestionedPassage
from cmt_sdk.testing.tiny import byte_tokenizer, save_tiny, tiny_frozen, tiny_llama
from cmt_sdk.training import resources, sizes
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.packs import draw
from cmt_sdk.training.reader import ReaderTask
from cmt_sdk.training.recipe import Recipe
from cmt_sdk.training.run import prepare
from cmt_sdk.training.sizes import ModelSizes, estimate
from cmt_sdk.training.soft import SoftTask
from cmt_sdk.weights.loading import load_base, outline
from tests.neural.live_bytes import LiveBytes

PUBLISHED = tomllib.loads(
    (Path(__file__).parents[2] / "docs" / "models.toml").read_text(encoding="utf-8")
)
LENGTH = 150  # of a passage, in tokens: the tokenizer has one for each byte
GIB = 2**30


def passages():
    """Ten passages of that length, each with more questions than a pack holds."""
    rng = random.Random(1)
    texts = ["".join(rng.choice("abcdefgh ") for _ in range(LENGTH)) for _ in range(10)]
    return [
        QuestionedPassage(
            f"part {n // 5}",
            text,
            tuple(Question(f"Where {i}?", (text[i : i + 9],), f"{n}-{i}") for i in range(8)),
        )
        for n, text in enumerate(texts)
    ]


def task_of(recipe, model):
    """The task of a recipe on a bare model."""
    names = ("reader",) if recipe.part == "reader" else ("reader", "encoder")
    made = trainable(
        model,
        byte_tokenizer(),
        rank=recipe.rank,
        start=dict.fromkeys(names),
        checkpointing=recipe.checkpointing,
    )
    learned = [p for name in names for p in made.parameters[name]]
    stream = Mixture({"a": passages()}, {"a": 1.0}, 0)
    held = [draw(made.lm, stream)]
    if recipe.part == "soft":
        return SoftTask(
            made.lm, None, stream, held, learned, made.save, Objectives(), 10, batch=recipe.batch
        )
    return ReaderTask(
        made.lm, Rotary(model), stream, held, learned, made.save, {0.25: 1.0},
        encoder=recipe.part == "compressor", objectives=Objectives(teacher=1.0),
        batch=recipe.batch,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("part", "checkpointing"), [("reader", False), ("compressor", True), ("soft", True)]
)
def test_a_measured_step_takes_what_was_foretold(part, checkpointing, monkeypatch):
    """Tensors that live at once: not more than the estimate, and not so few that it would refuse a
    run which fits.
    """
    monkeypatch.setattr(sizes, "PREFIX_TOKENS", 330)  # a token for each byte of the prompt
    recipe = Recipe(part, Path("x"), [Path("q")], rank=8, nf4=0.0, checkpointing=checkpointing)
    model = tiny_llama(num_hidden_layers=4)
    needs = estimate(recipe, ModelSizes.of(model), LENGTH, 4, is_gpu=False)
    task = task_of(recipe, model)
    learned = sum(p.numel() for p in task.parameters())
    assert needs.parameters == learned
    base = sum(4 * p.numel() for n, p in model.named_parameters() if "lora_" not in n)
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        task.learn()
    foretold = needs.memory - sizes.PROCESS_BYTES - base - 16 * learned
    assert 0.5 * foretold < live.most < foretold


def test_weights_in_four_bits_take_the_bytes_that_are_counted(tmp_path):
    """All of them, after loading: codes and scales of the linear layers, bf16 or fp32 of the rest."""
    folder = save_tiny(tmp_path / "tiny")
    counted = ModelSizes.of(outline(str(folder)))
    model = load_base(str(folder), precision="nf4", device="cpu", gradients=True).model
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    held += sum(
        m.weight.quant_state.absmax.numel() * 4
        for m in model.modules()
        if hasattr(getattr(m, "weight", None), "quant_state")
    )
    recipe = Recipe("reader", tmp_path / "x", [tmp_path / "q"], nf4=1.0)
    assert sizes._base(recipe, counted, model.dtype.itemsize) == held


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_of_published_models_have_the_parameters_that_are_stated(name):
    """Within 1.5 %: some state two digits."""
    numbers = sizes_of(name)
    stated = PUBLISHED[name]["billions"]
    counted = (numbers.quantised + numbers.others) / 1e9
    assert counted == pytest.approx(stated, rel=0.015)


@pytest.mark.parametrize(
    ("name", "most"), [("Qwen/Qwen3-8B", 22), ("Qwen/Qwen3-4B", 11), ("Qwen/Qwen3-1.7B", 7)]
)
@pytest.mark.parametrize("part", ["reader", "compressor", "soft"])
def test_each_part_trains_on_the_card_that_is_promised(part, name, most):
    """QLoRA with checkpointing, passages of 256 tokens, in bf16."""
    recipe = Recipe(part, Path("x"), [Path("q")], nf4=1.0, checkpointing=True)
    needs = estimate(recipe, sizes_of(name), 256, 2, is_gpu=True)
    assert needs.memory < most * GIB


def test_a_run_that_does_not_fit_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    """The message has both numbers and the first option of `cmt train` with which it fits, else
    what needs the least.
    """
    folder = save_tiny(tmp_path / "tiny")
    questions = tmp_path / "towns.jsonl"
    row = '{"context": "Tower %d is in Rome.", "question": "Where?", "answers": ["Rome"]}\n'
    questions.write_text("".join(row % n for n in range(2)), encoding="utf-8")
    monkeypatch.setattr("cmt_sdk.training.run.load_base", None)
    recipe = Recipe(
        "reader", tmp_path / "made", [questions], model=str(folder), device="cpu", batch=8
    )
    counted = ModelSizes.of(outline(str(folder)))
    with_batch_1 = resources.needs(
        Recipe("reader", tmp_path, [questions], model=str(folder)), counted, 5, torch.device("cpu")
    )
    monkeypatch.setattr(resources, "_free_memory", lambda _: with_batch_1.memory)
    with pytest.raises(
        InvalidSetting,
        match=r"needs about [\d.]+ MiB of memory on cpu, [\d.]+ MiB are free: end other programs,"
        r" or choose --batch 1 \([\d.]+ MiB\)",
    ):
        prepare(recipe)
    monkeypatch.setattr(resources, "_free_memory", lambda _: 10 * 2**20)
    with pytest.raises(
        InvalidSetting,
        match=r"or --batch 1 --checkpointing --nf4 1 needs the least, [\d.]+ MiB: choose a smaller"
        r" --model, or another --device",
    ):
        prepare(recipe)
    assert not (tmp_path / "made").exists()


def sizes_of(name):
    """The sizes of a published model."""
    return sizes.published({n: v for n, v in PUBLISHED[name].items() if n != "billions"})


def test_compressing_a_batch_takes_what_serving_is_counted_with(monkeypatch):
    """Next to the weights: tensors that live at once while a GPU compresses eight passages."""
    monkeypatch.setattr(batching, "CPU_BATCH_TOKENS", batching.BATCH_TOKENS)
    monkeypatch.setattr(sizes, "PREFIX_TOKENS", 330)
    model = tiny_llama(num_hidden_layers=6)
    counted = ModelSizes.of(model)
    lm = tiny_frozen(model)
    lm.prefix_cache(1)
    with torch.inference_mode(), LiveBytes() as live:
        KVMethod(lm, Rotary(model), 0.25).compress([p.context + "." * 98 for p in passages()[:8]])
    weights = sizes.FOUR_BITS * counted.quantised + 4 * counted.others
    foretold = sizes.serving_memory(counted, LENGTH + 98, 4) - sizes.PROCESS_BYTES - weights
    assert 0.5 * foretold < live.most < foretold
