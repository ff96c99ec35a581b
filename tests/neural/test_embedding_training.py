"""Training what makes embeddings: an adapter of the lower layers and the head learn together, and
serve as they were trained.
"""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from itertools import count

import pytest
import torch
from safetensors.torch import load_file

from cmt_sdk.errors import ModelMismatch
from cmt_sdk.neural.embedding import Matcher, MatchHead
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.questions.dataset import Question, QuestionedPassage
from cmt_sdk.testing.tiny import byte_tokenizer, save_tiny, tiny_llama
from cmt_sdk.training import Plan, Recipe, prepare, run, tasks
from cmt_sdk.training.adapters import trainable
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.embedding import EmbeddingTask, Negatives, draw
from cmt_sdk.training.loop import train
from cmt_sdk.training.losses import self_matching
from cmt_sdk.training.matcher import Neighbours
from cmt_sdk.weights import bundle
from cmt_sdk.weights.adapters import active, attach_adapters
from cmt_sdk.weights.bundle import Bundle, find_bundle, read_bundle
from cmt_sdk.weights.loading import load_base, load_tensors

THINGS = ("museum", "harbour", "library", "tower", "market", "bridge", "castle", "station")
TOWNS = ("Lisbon", "Genoa", "Porto", "Pisa", "Ghent", "Bath", "Trier", "York")
LAYERS = (0, 1, 2)


def passages(name="towns"):
    """Eight passages under two titles, three questions each."""
    made = []
    for number, (thing, town) in enumerate(zip(THINGS, TOWNS, strict=True)):
        asked = (f"Where is the {thing}?", f"Which town has a {thing}?", f"What stands in {town}?")
        questions = tuple(Question(text, (town,)) for text in asked)
        made.append(
            QuestionedPassage(
                f"{name} {number % 2}",
                f"The {thing} of {town} is old, and it stands alone.",
                questions,
            )
        )
    return made


def head():
    """A head over three places of the tiny model."""
    torch.manual_seed(1)
    width = 128 * len(LAYERS)
    return MatchHead(
        torch.tensor(LAYERS),
        torch.zeros(258),
        torch.zeros(128),
        torch.randn(8, width) / 8,
        torch.zeros(8),
    )


def keys_task(*, moved=False, size=5, tokens=256, **options):
    """A task on a fresh tiny model; `moved`: the adapter already computes something."""
    torch.manual_seed(0)
    made = trainable(
        tiny_llama(), byte_tokenizer(), rank=4, start={"matcher": None}, depth=max(LAYERS)
    )
    if moved:
        for parameter in made.parameters["matcher"]:
            parameter.data = torch.randn_like(parameter) / 8
    files = {"towns": passages()}
    return EmbeddingTask(
        made.lm, head(), made.parameters["matcher"], Mixture(files, {"towns": 1.0}, 0), files, passages(), made.save,
        tasks._write_tensors, size, tokens, **options,
    )  # fmt: skip


def curve(folder):
    """The logged losses, by step."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_gradients_in_chunks_are_those_of_the_whole_batch():
    """Gradient caching is exact: many small chunks, and all texts in one pass with one backward."""
    task = keys_task(moved=True, tokens=100)
    batch = draw(task.mixture, task.size, task._negatives)
    task.restore(keys_task().state())
    assert len(task.chunks(batch.passages, batch.questions)) > 5
    loss, divisor, asked = task.learn()
    cached = [p.grad.clone() for p in task.parameters()]
    whole = replace(keys_task(moved=True), tokens=10**6)
    (chunk,) = whole.chunks(batch.passages, batch.questions)
    made = whole.vectors(chunk)[torch.tensor(chunk.numbers).argsort()]
    first = len(batch.passages)
    expected = self_matching(made[first:], made[:first], torch.tensor(batch.own), 0.03)
    expected.backward()
    assert divisor == asked == len(batch.own)
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    for one, parameter in zip(cached, whole.parameters(), strict=True):
        assert float(one.abs().sum()) > 0
        assert (one - parameter.grad).norm() < 1e-4 * parameter.grad.norm()


def test_only_the_layers_below_the_last_state_are_adapted(tmp_path):
    """Two of the tiny model's three; every tensor of theirs learns, and the head's."""
    task = keys_task(moved=True)
    task.save(tmp_path)
    tensors = load_file(tmp_path / "matcher" / "adapter_model.safetensors")
    assert {name.split(".layers.")[1][0] for name in tensors} == {"0", "1"}
    assert json.loads((tmp_path / "matcher" / "adapter_config.json").read_text())[
        "layers_to_transform"
    ] == [0, 1]
    assert len(task.parameters()) == len(tensors) + 4


def test_a_batch_holds_each_passage_once_with_its_own_questions():
    """Two questions of each that was drawn, and for some what their words also fit, of the same
    file and never their own.
    """
    files = {"towns": passages(), "copies": [replace(p, title="") for p in passages()]}
    batch = draw(Mixture(files, {"towns": 1.0, "copies": 1.0}, 3), 20, Negatives(files))
    assert len(set(batch.passages)) == len(batch.passages)
    by_text = {p.context: {q.text for q in p.questions} for p in passages()}
    assert all(
        question in by_text[batch.passages[own]]
        for question, own in zip(batch.questions, batch.own, strict=True)
    )
    assert all(batch.own.count(own) == 2 for own in batch.own)
    small = {"towns": passages()}
    without = draw(Mixture(small, {"towns": 1.0}, 0), 5, None)
    assert (len(without.passages), len(without.questions)) == (5, 10)
    assert (
        len(
            {
                len(draw(Mixture(small, {"towns": 1.0}, seed), 5, Negatives(small)).passages)
                for seed in range(5)
            }
            - {5}
        )
        > 0
    )


def test_a_question_is_told_from_what_its_words_also_fit():
    """The nearest of the file, without the question's own passage."""
    found = Negatives({"towns": passages()})
    rng = Mixture({"towns": passages()}, {"towns": 1.0}, 0).random
    own = passages()[0].context
    near = [
        text
        for _ in range(10)
        for text in found.near("towns", "Where is the old museum?", own, rng)
    ]
    assert len(near) == 10
    assert own not in near
    assert found.near("towns", "?!", own, rng) == []


def test_words_of_very_many_passages_are_left_out_of_a_search():
    """They tell little; a question of nothing else is searched for with all of its words."""
    searched = Neighbours([f"The tower of town{n}." for n in range(200)])
    assert searched.of("Where is the tower of town7?", 5) == [7]
    assert len(searched.of("The tower?", 5)) == 5


def test_the_loss_falls_and_the_passages_are_found(tmp_path):
    """Thirty steps on eight passages; the figures are those of all held-out questions."""
    task = keys_task()
    before = task.validate()
    train(task, Plan(steps=30, rate=5e-3, accumulate=1, warmup=3), tmp_path, lambda _: None)
    losses, after = curve(tmp_path), task.validate()
    assert sum(losses[n] for n in range(26, 31)) < 0.5 * sum(losses[n] for n in range(1, 6))
    assert set(after) == {"recall@1", "recall@5", "recall@10"}
    assert after["recall@1"] > max(0.8, before["recall@1"])
    assert task.score(after) < task.score(before)


def test_a_run_that_was_cut_off_goes_on_exactly(tmp_path):
    """Killed after a save, restarted from the state: the same curve."""
    plan = Plan(steps=8, accumulate=2, save_every=3)
    train(keys_task(), plan, tmp_path / "whole", lambda _: None)

    class Killed(Exception):
        """Stands for a kill."""

    def kill_at_five(figures):
        if figures.get("step") == 5 and "loss" in figures:
            raise Killed

    with pytest.raises(Killed):
        train(keys_task(), plan, tmp_path / "cut", kill_at_five)
    train(keys_task(), plan, tmp_path / "cut", lambda _: None)
    assert curve(tmp_path / "cut") == pytest.approx(curve(tmp_path / "whole"), rel=1e-4)


@pytest.fixture
def later_is_better(monkeypatch):
    """The last weights are kept, whatever they find."""
    order = count()
    monkeypatch.setattr(EmbeddingTask, "score", lambda *_: -next(order))


def questions_file(folder):
    """The passages of two files' worth of titles, some of them held out by hash."""
    file = folder / "towns.jsonl"
    rows = [
        {
            "title": p.title,
            "context": f"In {n}: {p.context}",
            "question": q.text,
            "answers": list(q.answers),
        }
        for n in range(4)
        for p in passages(f"part {n}")
        for q in p.questions
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def recipe(part, model, questions, out, **options):
    """A run of six steps."""
    plan = Plan(6, 2e-2, accumulate=1, warmup=1, validate_every=3, save_every=3)
    return Recipe(
        part,
        out,
        [questions],
        model=str(model),
        device="cpu",
        rank=4,
        nf4=0.0,
        held_out=1,
        plan=plan,
        **options,
    )


@pytest.mark.parametrize("limit", [2**30, 0], ids=["merged", "peft"])
@pytest.mark.usefixtures("later_is_better")
def test_what_was_trained_is_what_is_served(limit, tmp_path, monkeypatch):
    """The bundle's vectors are those of the task, and not those of the bare model; the reader has
    no say in them.
    """
    monkeypatch.setattr("cmt_sdk.weights.adapters.MERGED_LIMIT", limit)
    model, questions = save_tiny(tmp_path / "tiny"), questions_file(tmp_path)
    prepared = prepare(recipe("embedding", model, questions, tmp_path / "made", candidates=10))
    prepared.run()
    task, texts = prepared.task, [p.context for p in passages()]
    (chunk,) = replace(task, tokens=10**6).chunks(texts, [])
    with torch.no_grad():
        trained = task.vectors(chunk)[torch.tensor(chunk.numbers).argsort()]
    made = read_bundle(tmp_path / "made")
    assert set(made.adapters) == {"matcher"}
    reader = trainable(tiny_llama(), byte_tokenizer(), rank=4)
    for parameter in reader.parameters["reader"]:
        torch.nn.init.normal_(parameter, std=0.2)
    reader.save(tmp_path / "other")
    vectors = {}
    for names in (("matcher",), ("reader", "matcher"), ("reader",)):
        loaded = load_base(str(model), precision="fp32", device="cpu")
        folders = {"matcher": made.matcher, "reader": tmp_path / "other" / "reader"}
        attach_adapters(loaded, {name: folders[name] for name in names})
        assert bool(loaded.adapters.merged) == bool(limit)
        lm = FrozenModel(
            loaded.model, loaded.tokenizer, lambda name, loaded=loaded: active(loaded, name)
        )
        vectors[names] = torch.from_numpy(
            Matcher(lm, MatchHead.of(load_tensors(made.match))).vectors(texts)
        )
    torch.testing.assert_close(vectors[("matcher",)], trained, atol=2e-2, rtol=0)
    torch.testing.assert_close(
        vectors[("reader", "matcher")], vectors[("matcher",)], atol=1e-5, rtol=0
    )
    assert float((vectors[("reader",)] - trained).abs().max()) > 0.05


def shipped(folder, base):
    """A bundle with all parts for a base model, as files that differ."""
    made = folder / "model"
    for name in ("reader", "encoder", "matcher"):
        (made / name).mkdir(parents=True)
        (made / name / "adapter_model.safetensors").write_bytes(name.encode())
    (made / "match.safetensors").write_bytes(b"match")
    (made / "cmt-adapter.json").write_text(
        json.dumps({"base": base, "compressor": "kv", "vector_weight": 0.5})
    )
    return made


def test_what_makes_keys_is_named_by_its_files(tmp_path):
    """The head alone as before there was an adapter for embeddings; both together by both."""
    made = read_bundle(shipped(tmp_path, "b"))
    first, second = (sha256(data).hexdigest()[:8] for data in (b"match", b"matcher"))
    assert Bundle().matcher_hash == "plain"
    assert replace(made, matcher=None).matcher_hash == first
    assert made.matcher_hash == first + second
    assert replace(made, reader=None, encoder=None).matcher_hash == made.matcher_hash
    assert set(made.adapters) == {"reader", "encoder", "matcher"}


def test_adapters_for_kv_memories_serve_soft_ones_until_there_are_others(tmp_path, monkeypatch):
    """Shipped ones or a folder's; those for soft memories are taken where there are some, and serve
    no kv memories.
    """
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    first = shipped(tmp_path, "b")
    assert (
        find_bundle("default", "b", "soft")
        == find_bundle("default", "b")
        == find_bundle(str(first), "b", "soft")
    )
    second = first.with_name("second")
    shutil.copytree(first, second)
    said = json.loads((second / "cmt-adapter.json").read_text())
    (second / "cmt-adapter.json").write_text(json.dumps({**said, "compressor": "soft"}))
    for part in ("matcher", "match.safetensors"):
        gone = second / part
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    found = find_bundle("default", "b", "soft")
    assert (found.reader, found.encoder, found.compressor) == (
        second / "reader",
        second / "encoder",
        "soft",
    )
    assert (found.matcher, found.match, found.vector_weight) == (
        first / "matcher",
        first / "match.safetensors",
        0.5,
    )
    assert find_bundle("default", "b").reader == first / "reader"
    with pytest.raises(
        ModelMismatch, match="was trained for compressor='soft', this memory has 'kv'"
    ):
        find_bundle(str(second), "b")


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ("reader", {"matcher"}),
        ("soft", {"matcher"}),
        ("embedding", {"reader", "encoder"}),
        ("matcher", {"reader", "encoder"}),
    ],
)
def test_a_trained_part_stands_beside_the_shipped_ones(part, kept, tmp_path, monkeypatch):
    """What was not trained stays; a head that learned over bare states stands without the adapter
    for embeddings.
    """
    before = read_bundle(shipped(tmp_path / "shipped", "b"))
    monkeypatch.setattr(run, "find_bundle", lambda *_: before)
    monkeypatch.setattr(run, "model_info", lambda _: type("Model", (), {"sha256": "b"}))
    made = tmp_path / "out" / "adapter"
    mine = {
        "reader": {"reader"},
        "soft": {"reader", "encoder"},
        "embedding": {"matcher"},
        "matcher": set(),
    }[part]
    for name in mine:
        (made / name).mkdir(parents=True)
        (made / name / "adapter_model.safetensors").write_bytes(b"new")
    made.mkdir(parents=True, exist_ok=True)
    run._write_bundle(Recipe(part, tmp_path / "out", ["questions"], model="m"))
    found = read_bundle(tmp_path / "out").adapters
    new = {
        name
        for name, folder in found.items()
        if (folder / "adapter_model.safetensors").read_bytes() == b"new"
    }
    assert (new, set(found) - new) == (mine, kept)


@pytest.mark.parametrize(
    ("part", "kept"), [("reader", True), ("matcher", True), ("compressor", False), ("soft", False)]
)
def test_gates_and_codec_stay_with_the_encoder_that_they_were_fitted_to(
    part, kept, tmp_path, monkeypatch
):
    """A new encoder makes other entries."""
    folder = shipped(tmp_path / "shipped", "b")
    (folder / "gates.safetensors").write_bytes(b"gates")
    (folder / "codec.safetensors").write_bytes(b"codec")
    before = read_bundle(folder)
    monkeypatch.setattr(run, "find_bundle", lambda *_: before)
    monkeypatch.setattr(run, "model_info", lambda _: type("Model", (), {"sha256": "b"}))
    (tmp_path / "out" / "adapter").mkdir(parents=True)
    run._write_bundle(Recipe(part, tmp_path / "out", ["questions"], model="m"))
    made = read_bundle(tmp_path / "out")
    assert (made.gates is not None, made.codec is not None) == (kept, kept)


@pytest.mark.usefixtures("later_is_better")
def test_a_run_of_keys_goes_on_from_another_one(tmp_path):
    """Its adapter and its head are where the next one starts."""
    model, questions = save_tiny(tmp_path / "tiny"), questions_file(tmp_path)
    prepare(
        recipe("embedding", model, questions, tmp_path / "first", candidates=5, start="none")
    ).run()
    later = prepare(
        recipe(
            "embedding",
            model,
            questions,
            tmp_path / "second",
            candidates=5,
            start=str(tmp_path / "first"),
        )
    ).task
    head = load_tensors(tmp_path / "first" / "match.safetensors")
    tensors = load_file(tmp_path / "first" / "matcher" / "adapter_model.safetensors")
    torch.testing.assert_close(later.head.projection.detach(), head["projection"].float())
    moved = sorted(float(t.float().sum()) for n, t in tensors.items() if "lora_B" in n)
    assert moved == pytest.approx(
        sorted(float(p.detach().sum()) for p in later.adapter[1::2]), abs=1e-5
    )
    assert any(moved)
