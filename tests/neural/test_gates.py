"""Gates: KV entries scored in one reading of the passage."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import cmt_sdk
from cmt_cli.train import train
from cmt_sdk.config.settings import Settings
from cmt_sdk.memory.local_engine import LocalEngine
from cmt_sdk.neural.methods.gates import Gates, scaled, wanted
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.partial_forward import run_entries
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.testing.tiny import save_tiny, tiny_frozen
from cmt_sdk.training import gates as fitting
from cmt_sdk.training.gates import fit_gates
from cmt_sdk.weights.bundle import read_bundle

TOWNS = ["Lisbon", "Porto", "Turin", "Leeds", "Malmo", "Krakow", "Bergen", "Cork"]
TEXTS = [
    f"The museum moved to {town}, and opens at {n} on most days." for n, town in enumerate(TOWNS)
]


@pytest.fixture(scope="module")
def lm():
    """A tiny model."""
    return tiny_frozen()


def test_scores_are_those_of_the_formula():
    """exp(weight . state + bias), at most 1, and -1 behind a row's end."""
    torch.manual_seed(0)
    states = [torch.randn(2, 5, 8) for _ in range(3)]
    gates = Gates(torch.randn(3, 8, 2) / 8, torch.full((3, 2), -1.0))
    found = gates.scores(states, torch.tensor([5, 3]))
    assert found.shape == (2, 3, 2, 5)
    expected = (scaled(states[1])[1, 2] @ gates.weight[1] + gates.bias[1]).exp().clamp(max=1)
    torch.testing.assert_close(found[1, 1, :, 2], expected)
    assert (found[1, :, :, 3:] == -1).all()
    assert found[0].min() > 0


def test_a_fit_finds_the_weights_that_made_the_scores(lm, monkeypatch):
    """Scores that are a function of the states are found again, and so are their best entries."""
    layers, heads, _ = lm.kv_shape
    true = Gates(torch.randn(layers, 128, heads) / 30, torch.full((layers, heads), -4.0))
    read = fitting._read_twice

    def scored(lm, ids):
        states, _ = read(lm, ids)
        return states, true.scores([s[None] for s in states], torch.tensor([len(ids)]))[0]

    monkeypatch.setattr(fitting, "_read_twice", scored)
    monkeypatch.setattr(fitting, "RIDGE", 1e-3)
    seen = []
    fitted = fit_gates(lm, TEXTS, TEXTS[:2], on_passage=seen.append)
    assert seen == list(range(1, 9))
    assert fitted.recall > 0.98
    ids = lm.passage_ids(TEXTS[0])
    states, scores = scored(lm, ids)
    mine = fitted.gates.scores([s[None] for s in states], torch.tensor([len(ids)]))[0]
    torch.testing.assert_close(wanted(mine), wanted(scores), atol=0.1, rtol=0.05)


def test_a_passage_is_read_once_with_gates(lm, monkeypatch):
    """Its entries are the same, those that are kept are the best by the gates."""
    layers, heads, _ = lm.kv_shape
    gates = Gates(torch.randn(layers, 128, heads) / 30, torch.full((layers, heads), -4.0))
    rotary, tokens = Rotary(lm.model), []
    model = type(lm.model.base_model)
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda self, input_ids=None, **more: (
            tokens.append(input_ids.shape[1]) or forward(self, input_ids=input_ids, **more)
        ),
    )
    once, twice = (KVMethod(lm, rotary, 0.25, 0, g) for g in (gates, None))
    ids = [lm.passage_ids(text) for text in TEXTS[:2]]
    longest = max(map(len, ids))
    with torch.inference_mode():
        lm.prefix_cache(1)
        tokens.clear()
        keys, values, scores = once.encode(ids)
        assert len(tokens) == 1
        assert tokens[0] < 1.5 * longest
        other_keys, other_values, _ = twice.encode(ids)
    for row, count in enumerate(map(len, ids)):
        for mine, theirs in ((keys, other_keys), (values, other_values)):
            torch.testing.assert_close(
                mine[row, :, :, :count], theirs[row, :, :, :count], atol=1e-4, rtol=1e-4
            )
        assert (scores[row, :, :, count:] == -1).all()
    assert scores.shape == keys.shape[:4]
    made = once.compress(TEXTS[:2])
    assert [len(m.arrays["key_codes"]) for m in made] == [
        round(0.25 * layers * heads * len(i)) for i in ids
    ]


def test_the_last_layer_only_makes_its_entries(lm):
    """The cache has the entries of a complete pass and the states that layers get are the same,
    while the last layer's MLP does not run.
    """
    ids = torch.tensor([lm.passage_ids(TEXTS[0])])
    start = len(lm.prefix_ids)
    inputs = {"input_ids": ids, "position_ids": torch.arange(start, start + ids.shape[1])[None]}
    ran = []
    with torch.inference_mode():
        complete, alone = lm.prefix_cache(1), lm.prefix_cache(1)
        hook = lm.blocks[-1].mlp.register_forward_hook(lambda *_: ran.append("mlp"))
        expected = lm.forward_with_states(complete, **inputs)
        assert ran == ["mlp"]
        found = run_entries(lm, alone, **inputs)
        assert ran == ["mlp"]
    hook.remove()
    assert len(found) == len(expected) == len(lm.blocks)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(alone.layers, complete.layers, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys)
        torch.testing.assert_close(mine.values, theirs.values)


def test_gates_of_an_adapter_are_used_and_named(tmp_path):
    """`cmt train --part gates` makes them; scores="repeat" leaves them alone, and memories of both
    kinds read each other's passages.
    """
    model, notes = save_tiny(tmp_path / "tiny"), tmp_path / "notes"
    notes.mkdir()
    for town, text in zip(TOWNS, TEXTS, strict=True):
        (notes / f"{town}.md").write_text(f"{text} {text[::-1]}.", encoding="utf-8")
    arguments = ["--text", str(notes), "--out", str(tmp_path / "made"), "--part", "gates"]
    train.main([*arguments, "--model", str(model), "--device", "cpu"], standalone_mode=False)
    bundle = read_bundle(tmp_path / "made")
    assert bundle.adapters == {}
    given = {"model": str(model), "adapter": str(tmp_path / "made"), "device": "cpu"}
    engine, repeating = (
        LocalEngine(Settings(**given, compression=4, keep_at_least=0, scores=scores))
        for scores in ("auto", "repeat")
    )
    mine, theirs = engine.compressor.fingerprint, repeating.compressor.fingerprint
    assert (mine.gates, theirs.gates) == (bundle.gates_hash, "")
    assert mine.id != theirs.id
    assert mine.differences(theirs) == []
    with cmt_sdk.open(tmp_path / "m", **given, compression=4, keep_at_least=0) as memory:
        memory.add(TEXTS[0])
    with cmt_sdk.open(tmp_path / "m", scores="repeat") as memory:
        memory.add(TEXTS[1])
        assert len(memory.model.ask("Where is the museum?", k=2, max_tokens=2).sources) == 2


def test_damaged_gates_are_named(tmp_path):
    """Those of another model too."""
    model = save_tiny(tmp_path / "tiny")
    folder = tmp_path / "made"
    folder.mkdir()
    base = cmt_sdk.model_info(str(model)).sha256
    (folder / "cmt-adapter.json").write_text(f'{{"base": "{base}"}}')
    settings = Settings(model=str(model), adapter=str(folder), device="cpu", compression=4)
    for tensors in (
        {"weight": torch.zeros(3, 64, 2), "bias": torch.zeros(3, 2)},
        {"weight": torch.full((3, 128, 2), float("nan")), "bias": torch.zeros(3, 2)},
        {"bias": torch.zeros(3, 2)},
    ):
        save_file(tensors, folder / "gates.safetensors")
        assert load_file(folder / "gates.safetensors")
        with pytest.raises(cmt_sdk.ModelError, match=r"gates\.safetensors"):
            LocalEngine(settings).compressor.compress(["A passage of a few words. " * 9])
