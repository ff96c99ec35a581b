"""Codecs: fitted to a model, used where the adapter has one, read by both engines."""

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cmt_sdk
from cmt_cli.train import train
from cmt_sdk.config.settings import Settings
from cmt_sdk.cpu.engine import CPUModel, build, fits
from cmt_sdk.cpu.graph import EXACT
from cmt_sdk.memory.local_engine import LocalEngine
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.questions.dataset import Question, QuestionedPassage
from cmt_sdk.testing.tiny import save_tiny, tiny_frozen
from cmt_sdk.training.codec import fit_codec
from cmt_sdk.types import CompressedPassage, Prompt
from cmt_sdk.weights.bundle import read_bundle
from cmt_sdk.weights.registry import model_info

TOWNS = ["Lisbon", "Porto", "Turin", "Leeds", "Malmo", "Krakow", "Bergen", "Cork"]
TEXTS = [
    f"The museum moved to {town}, and opens at {n} on most days." for n, town in enumerate(TOWNS)
]
PASSAGES = [
    QuestionedPassage("", text, (Question("Where is the museum?", (town,)),))
    for text, town in zip(TEXTS, TOWNS, strict=True)
]


@pytest.fixture(scope="module")
def lm():
    """A tiny model."""
    return tiny_frozen()


@pytest.fixture(scope="module")
def method(lm):
    """Its method without a codec; half of the entries are kept."""
    return KVMethod(lm, Rotary(lm.model), 0.5)


@pytest.fixture(scope="module")
def fitted(method):
    """A codec with a small step."""
    return fit_codec(method, PASSAGES, PASSAGES[:2], step=0.01)


def entries(method, memory):
    """Keys and values."""
    found = method._decoded(memory)
    return found.keys, found.values


def test_a_smaller_step_costs_bytes_and_saves_error(method, fitted):
    """And the figure of the fit is that of the memories."""
    seen = []
    coarse = fit_codec(method, PASSAGES, PASSAGES[:2], step=0.1, on_passage=seen.append)
    assert seen == list(range(1, 9))
    errors, sizes = [], []
    lm, rotary = method.lm, method.rotary
    complete = KVMethod(lm, rotary, 0.5, codec=fitted.codec)
    with torch.inference_mode():
        keys, values, scores = method.encode([lm.passage_ids(TEXTS[0])])
    kept = method.chosen(scores[0], keys.shape[3])
    for made in (fitted, coarse):
        coded = KVMethod(lm, rotary, 0.5, codec=made.codec)
        (memory,) = coded.compress(TEXTS[:1])
        found = entries(complete if made is fitted else coded, memory)
        errors.append(
            [
                float(np.abs(mine - theirs[0][kept].numpy()).mean())
                for mine, theirs in zip(found, (keys, values), strict=True)
            ]
        )
        sizes.append(memory.nbytes)
    assert errors[0][0] < errors[1][0]
    assert errors[0][1] < errors[1][1]
    assert sizes[0] > 1.3 * sizes[1]
    assert fitted.bytes_per_token > 1.3 * coarse.bytes_per_token > 0
    assert fitted.passages == 8


def test_errors_are_smallest_where_they_cost_most(method, fitted):
    """The divergence of the fitted directions is below that of the same error anywhere else."""
    basis = fitted.codec.basis[1].astype(np.float64)
    lengths = np.linalg.norm(basis, axis=2)  # of what a code of 1 adds: of values, in any direction
    stored = fitted.codec.classes[1] > 0
    assert lengths[stored].max() > 1.5 * lengths[stored].min()
    assert (np.diff(fitted.codec.classes.astype(int), axis=2) <= 0).all()


def test_both_kinds_are_read_together(method, fitted):
    """A memory of the codec and one of four bits in one prompt, each with its own entries."""
    coded = KVMethod(method.lm, method.rotary, 0.5, codec=fitted.codec)
    plain = KVMethod(method.lm, method.rotary, 0.5, codec=fitted.codec, encodes=False)
    (mine,), (theirs,) = coded.compress(TEXTS[:1]), plain.compress(TEXTS[1:2])
    assert (mine.kind, theirs.kind) == ("kv2", "kv")
    assert all(coded.is_valid(m) and plain.is_valid(m) for m in (mine, theirs))
    assert not method.is_valid(mine)
    assert not coded.is_valid(CompressedPassage("kv2", mine.tokens + 8, mine.arrays))
    both = coded.cache([[mine, theirs]])
    alone = coded.cache([[mine]])
    count = len(alone.keys[0][0, 0])
    per_row = alone.bias[0][0, :, 0]
    for head in range(2):
        used = int((per_row[head] == 0).sum())
        torch.testing.assert_close(both.keys[0][0, head, :used], alone.keys[0][0, head, :used])
    assert len(both.keys[0][0, 0]) > count


@pytest.fixture
def trained(tmp_path):
    """A model, and the adapter of `cmt train --part codec` on a folder of notes."""
    model, notes = save_tiny(tmp_path / "tiny"), tmp_path / "notes"
    notes.mkdir()
    for town, text in zip(TOWNS, TEXTS, strict=True):
        (notes / f"{town}.md").write_text(f"{text} {text[::-1]}. " * 2, encoding="utf-8")
    arguments = ["--text", str(notes), "--out", str(tmp_path / "made"), "--part", "codec"]
    train.main([*arguments, "--model", str(model), "--device", "cpu"], standalone_mode=False)
    given = {"model": str(model), "adapter": str(tmp_path / "made"), "device": "cpu"}
    return given | {"compression": 4}


def archive_format(file):
    """The format number that an archive declares."""
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("manifest.json"))["format"]


def kinds(memory):
    """The kind of each stored compressed passage, by its document."""
    stored = {d.id: [p.id for p in memory.passages(d.id)] for d in memory.documents()}
    loaded = memory._store.load([n for found in stored.values() for n in found], memory.fingerprint)
    return {name: loaded[number].kind for name, (number,) in stored.items()}


def answers(memory):
    """Whether two passages are read for an answer, without one being compressed again."""
    assert memory.stats().pending == 0
    return len(memory.model.ask("Where is the museum?", k=2, max_tokens=2).sources) == 2


def test_the_codec_of_an_adapter_is_the_default_and_named(trained, tmp_path):
    """codec="4bit" leaves it alone, and so does a model without a codec."""
    bundle = read_bundle(tmp_path / "made")
    assert bundle.codec is not None
    engine, plain, bare = (
        LocalEngine(Settings(**trained | changed))
        for changed in ({}, {"codec": "4bit"}, {"adapter": "none"})
    )
    mine, theirs = engine.compressor.fingerprint, plain.compressor.fingerprint
    assert (mine.codec, theirs.codec) == (bundle.codec_hash, "")
    assert bare.compressor.fingerprint.codec == ""
    made = [e.compressor.compress(TEXTS[:1])[0].compressed.kind for e in (engine, plain, bare)]
    assert made == ["kv2", "kv", "kv"]
    assert mine.id != theirs.id
    assert theirs.differences(mine) == []
    assert mine.differences(theirs) == [f"codec: {mine.codec} != "]


@pytest.fixture
def four_bits(trained, tmp_path):
    """The folder of a memory with one document, "old", in four-bit codes, and its fingerprint."""
    with cmt_sdk.open(tmp_path / "m", **trained | {"codec": "4bit"}) as memory:
        memory.add(TEXTS[0], id="old")
        assert kinds(memory) == {"old": "kv"}
        return tmp_path / "m", memory.fingerprint


def test_a_memory_recorded_in_four_bits_stays_so(four_bits):
    """It opens at the defaults, adds in four bits, answers, and has nothing to reencode."""
    folder, made_by = four_bits
    with cmt_sdk.open(folder) as memory:
        assert memory.settings.codec == "4bit"
        memory.add(TEXTS[1], id="new")
        assert kinds(memory) == {"old": "kv", "new": "kv"}
        assert answers(memory)
        assert memory._store.fingerprints() == [made_by]
        assert memory.reencode() == 0


def test_a_memory_from_before_the_setting_mixes(four_bits):
    """What it holds is read as it is and keeps its id; what comes new is made by the codec;
    reencode brings the rest.
    """
    folder, made_by = four_bits
    with cmt_sdk.open(folder) as memory:
        recorded = memory._store.settings()
        memory._store.set_settings({n: v for n, v in recorded.items() if n != "codec"})
    with cmt_sdk.open(folder) as memory:
        assert memory.model.ask("Where is the museum?", max_tokens=2).sources
        memory.add(TEXTS[1], id="new")
        assert kinds(memory) == {"old": "kv", "new": "kv2"}
        assert answers(memory)
        found = {made.id: made.codec for made in memory._store.fingerprints()}
        assert found == {made_by.id: "", memory.fingerprint.id: memory.fingerprint.codec}
        assert all(result.ok for result in memory.check())
        assert memory.reencode() == 1
        assert kinds(memory) == {"old": "kv2", "new": "kv2"}


def refused_as_of_another_codec(path):
    """Asking the memory there names the difference and the remedy."""
    with (
        cmt_sdk.open(path) as memory,
        pytest.raises(cmt_sdk.ModelMismatch, match=r"codec: .* cmt reencode"),
    ):
        memory.model.ask("Where is the museum?")


def test_a_memory_goes_back_to_four_bits_by_reencode(trained, tmp_path):
    """Until then the difference is named with the remedy."""
    with cmt_sdk.open(tmp_path / "m", **trained) as memory:
        memory.add(TEXTS[0], id="old")
        memory.configure(codec="4bit")
    refused_as_of_another_codec(tmp_path / "m")
    with cmt_sdk.open(tmp_path / "m") as memory:
        assert memory.reencode() == 1
        assert kinds(memory) == {"old": "kv"}


def test_an_archive_may_hold_both_kinds(four_bits, trained, tmp_path):
    """Its number is then one that earlier releases refuse; that of one in four bits alone stays. A
    memory in four bits takes those in four bits, and makes the others anew.
    """
    folder, _ = four_bits
    with cmt_sdk.open(folder, codec="auto") as memory:
        memory.export(tmp_path / "four.cmt")
        memory.add(TEXTS[1], id="new")
        assert memory.export(tmp_path / "both.cmt") == 2
    assert [archive_format(tmp_path / name) for name in ("four.cmt", "both.cmt")] == [1, 2]
    for codec, new, made in (("auto", "kv2", 0), ("4bit", "kv", 1)):
        with cmt_sdk.open(tmp_path / codec, **trained | {"codec": codec}) as memory:
            progress = memory.import_archive(tmp_path / "both.cmt")
            assert (progress.added, progress.compressed - progress.taken) == (2, made)
            assert kinds(memory) == {"old": "kv", "new": new}
            assert answers(memory)


def test_both_engines_read_the_same_entries(trained, tmp_path, monkeypatch):
    """Onnxruntime decodes without torch."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    engine = LocalEngine(Settings(**trained, precision="fp32"))
    info = model_info(trained["model"])
    shape = fits(info, engine._bundle)
    files = build(info, shape, engine._frozen, "fp32", EXACT)
    graph = CPUModel(info, shape, files, engine._bundle)
    made = [e.compressed for e in engine.compressor.compress(TEXTS[:2])]
    assert [m.kind for m in made] == ["kv2", "kv2"]
    likely = engine.reader.word_likelihoods("Where is the museum?", made)
    assert np.array(graph.reader.word_likelihoods("Where is the museum?", made)) == pytest.approx(
        np.array(likely), abs=1e-3
    )
    prompt = Prompt("Where is the museum?", memories=made)
    answers = ["".join(p.text for p in r.read(prompt, 8)) for r in (engine.reader, graph.reader)]
    assert answers[0] == answers[1]


def refused(settings):
    """Both engines name the file."""
    engine = LocalEngine(settings)
    with pytest.raises(cmt_sdk.ModelError, match=r"codec\.safetensors"):
        engine.compressor.compress(TEXTS[:1])
    info = model_info(settings.model)
    shape = fits(info, engine._bundle)
    with pytest.raises(cmt_sdk.ModelError, match=r"codec\.safetensors"):
        _ = CPUModel(info, shape, None, engine._bundle)._codec


def test_damaged_codecs_are_named(trained, tmp_path):
    """Those of another model too, by both engines."""
    file = tmp_path / "made" / "codec.safetensors"
    sound = load_file(file)
    settings = Settings(**trained)
    for name, change in (
        ("mean", lambda t: t[:, :, :4]),
        ("basis", lambda t: t * float("nan")),
        ("classes", lambda t: t.flip(2)),
    ):
        save_file({**sound, name: change(sound[name]).contiguous()}, file)
        refused(settings)
    file.write_bytes(file.read_bytes()[:100])
    refused(settings)


def test_a_memory_whose_codec_is_gone_is_refused_with_the_remedy(trained, tmp_path):
    """Not read as something else."""
    with cmt_sdk.open(tmp_path / "m", **trained) as memory:
        memory.add(TEXTS[0])
    (tmp_path / "made" / "codec.safetensors").unlink()
    refused_as_of_another_codec(tmp_path / "m")
    with cmt_sdk.open(tmp_path / "m") as memory:
        assert memory.reencode() == 1
        assert memory.model.ask("Where is the museum?", max_tokens=2).sources
