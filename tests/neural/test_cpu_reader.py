"""The reader on a CPU against the one of torch: one contract for both."""

import json

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper
from peft import LoraConfig, get_peft_model

from cmt_sdk.config.settings import Settings
from cmt_sdk.cpu import engine as engine_module
from cmt_sdk.cpu.engine import CPUModel, build, fits
from cmt_sdk.cpu.files import damaged, find_graph
from cmt_sdk.cpu.graph import EXACT, MICROSOFT, _Builder
from cmt_sdk.cpu.shape import Shape
from cmt_sdk.errors import InvalidInput, ModelError, ModelUnsupported
from cmt_sdk.memory.local_engine import LocalEngine
from cmt_sdk.memory.preparing import check_model, prepare_model
from cmt_sdk.reading.copying import REPLIES
from cmt_sdk.testing.families import tiny_model
from cmt_sdk.testing.tiny import save_tiny
from cmt_sdk.types import CopiedTexts, Prompt, Turn
from cmt_sdk.weights.bundle import MANIFEST
from cmt_sdk.weights.registry import MARKER, graphs_dir, model_info

TEXTS = [
    "The museum moved to Lisbon in 2019.",
    "It opens at ten; it closes at six, except on Mondays.",
    "né 日本 <end> of the tour",
]
QUESTION = "Where is the museum?"


def opened(folder, adapter="none", bits=EXACT):
    """A model's engine of torch, and its graph."""
    settings = Settings(
        model=str(folder), adapter=str(adapter), precision="fp32", device="cpu", compression=2
    )
    engine = LocalEngine(settings)
    info = model_info(str(folder))
    shape = fits(info, engine._bundle)
    assert shape is not None
    files = find_graph(info, bits) or build(info, shape, engine._frozen, "fp32", bits)
    return engine, CPUModel(info, shape, files, engine._bundle)


@pytest.fixture(params=["llama", "mistral", "qwen2", "qwen3"])
def pair(request, tmp_path, monkeypatch):
    """A tiny model by both."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    changes = {"sliding_window": None} if request.param == "mistral" else {}
    return opened(save_tiny(tmp_path / "tiny", tiny_model(request.param, **changes)))


def memories(engine):
    """Compressed passages, short ones complete."""
    return [e.compressed for e in engine.compressor.compress(TEXTS)]


def answer(reader, prompt, most=12):
    """The text, and the usage."""
    pieces = list(reader.read(prompt, most))
    return "".join(p.text for p in pieces), pieces[-1].usage


def prompts(engine):
    """From memory, from text, both after a conversation, and without notes."""
    history = [Turn("user", "Hello"), Turn("assistant", "Hi!")]
    yield Prompt(QUESTION, memories=memories(engine))
    yield Prompt(QUESTION, history, memories=memories(engine)[:1])
    yield Prompt(QUESTION, texts=TEXTS)
    yield Prompt(QUESTION, memories=[])
    yield Prompt(QUESTION, history, notes=False)
    yield Prompt("Hello", notes=False, talk=True)
    yield Prompt(QUESTION, memories=memories(engine), copied=CopiedTexts(TEXTS))


def test_both_write_the_same_answers(pair):
    """Token for token, with the same confidence."""
    engine, graph = pair
    for prompt in prompts(engine):
        theirs, mine = answer(engine.reader, prompt), answer(graph.reader, prompt)
        assert mine[0] == theirs[0]
        assert mine[1].confidence == pytest.approx(theirs[1].confidence, abs=1e-4)
        assert mine[1].prompt_tokens == theirs[1].prompt_tokens
        assert mine[1].answer_tokens == theirs[1].answer_tokens


def test_a_copied_answer_stands_in_a_text(pair):
    """Whatever the model wants to write."""
    engine, graph = pair
    prompt = Prompt(QUESTION, memories=memories(engine), copied=CopiedTexts(TEXTS))
    for reader in (engine.reader, graph.reader):
        text, _ = answer(reader, prompt)
        assert text.strip()
        places = [place.lower() for place in (*TEXTS, *REPLIES)]
        assert any(text.strip().lower() in place for place in places), text


def test_both_score_questions_and_spans_alike(pair):
    """In nats."""
    engine, graph = pair
    made = memories(engine)
    theirs = np.array(engine.reader.word_likelihoods(QUESTION, made))
    mine = np.array(graph.reader.word_likelihoods(QUESTION, made))
    assert mine == pytest.approx(theirs, abs=1e-3)
    assert graph.reader.word_likelihoods(QUESTION, []) == []
    words = [(0, 3), (4, 10), (11, 16), (17, 19), (20, 26)]
    for prompt in [Prompt(QUESTION, memories=made), Prompt(QUESTION, texts=TEXTS)]:
        theirs = engine.reader.answer_spans(prompt, TEXTS[0], words)
        mine = graph.reader.answer_spans(prompt, TEXTS[0], words)
        assert [(s.text, s.tokens) for s in mine] == [(s.text, s.tokens) for s in theirs]
        likelihoods = [s.likelihood for s in theirs]
        assert [s.likelihood for s in mine] == pytest.approx(likelihoods, abs=1e-2)
    assert graph.reader.answer_spans(Prompt(QUESTION, memories=made), "", []) == []


def test_both_read_uncompressed_passages_alike(pair):
    """Among compressed ones, in any order; alone one is read as its text is, and neither leaves
    anything out.
    """
    engine, graph = pair
    made = memories(engine)
    theirs, mine = engine.reader.uncompressed(TEXTS), graph.reader.uncompressed(TEXTS)
    for a, b in zip(theirs, mine, strict=True):
        assert (a.kind, a.tokens) == (b.kind, b.tokens)
        for name in a.arrays:
            assert b.arrays[name] == pytest.approx(a.arrays[name], abs=1e-3)
    mixed = [Prompt(QUESTION, memories=[found[0], made[1], found[2]]) for found in (theirs, mine)]
    expected = answer(engine.reader, mixed[0])
    found = answer(graph.reader, mixed[1])
    assert found[0] == expected[0]
    assert found[1].confidence == pytest.approx(expected[1].confidence, abs=1e-4)
    alone = answer(graph.reader, Prompt(QUESTION, memories=mine[:1]))
    text = answer(graph.reader, Prompt(QUESTION, texts=TEXTS[:1]))
    assert alone[0] == text[0]
    assert alone[1].confidence == pytest.approx(text[1].confidence, abs=1e-3)
    scores = np.array(engine.reader.word_likelihoods(QUESTION, theirs))
    assert np.array(graph.reader.word_likelihoods(QUESTION, mine)) == pytest.approx(
        scores, abs=1e-3
    )
    assert graph.reader.uncompressed([]) == engine.reader.uncompressed([]) == []


def test_passages_beyond_the_context_are_not_read(pair):
    """They are refused before the first of them is read."""
    for reader in (part.reader for part in pair):
        with pytest.raises(InvalidInput, match="context holds"):
            reader.uncompressed(["one two three " * 1_000] * 3)


def test_both_embed_questions_and_read_states_alike(pair):
    """One space for passages, which torch embeds, and questions."""
    engine, graph = pair
    theirs = engine.compressor.embed_question(QUESTION)
    assert graph.embed(QUESTION) == pytest.approx(theirs, abs=1e-4)
    states = engine.state_reader.states([QUESTION, "Hi"])
    assert graph.state_reader.states([QUESTION, "Hi"]) == pytest.approx(states, abs=1e-3)
    assert graph.state_reader.name == engine.state_reader.name


def test_a_prompt_beyond_the_context_is_refused(pair):
    """With the numbers and the remedy."""
    _, graph = pair
    with pytest.raises(InvalidInput, match="ask with a smaller k"):
        answer(graph.reader, Prompt(QUESTION, texts=["long " * 4000]))


def test_eight_bits_stay_near(tmp_path, monkeypatch):
    """Likelihoods within 0.3 nats a token; building the graph checks the divergence too."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    engine, graph = opened(save_tiny(tmp_path / "tiny", initializer_range=0.05), bits=8)
    made = memories(engine)
    theirs = np.array(engine.reader.word_likelihoods(QUESTION, made))
    assert np.array(graph.reader.word_likelihoods(QUESTION, made)) == pytest.approx(theirs, abs=0.3)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft asks for it
def test_adapters_are_read_alike(tmp_path, monkeypatch):
    """A reader, an encoder and a matcher, of all modules or of some."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    folder = save_tiny(tmp_path / "tiny")
    bundle = tmp_path / "bundle"
    for name, modules in {
        "reader": ["q_proj", "v_proj"],
        "encoder": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "matcher": ["k_proj", "down_proj"],
    }.items():
        config = LoraConfig(r=4, lora_alpha=8, target_modules=modules, init_lora_weights=False)
        get_peft_model(tiny_model("llama"), config).save_pretrained(bundle / name)
    base = model_info(str(folder)).sha256
    (bundle / MANIFEST).write_text(json.dumps({"base": base}))
    engine, graph = opened(folder, bundle)
    for prompt in prompts(engine):
        assert answer(graph.reader, prompt)[0] == answer(engine.reader, prompt)[0]
    theirs = engine.compressor.embed_question(QUESTION)
    assert graph.embed(QUESTION) == pytest.approx(theirs, abs=1e-4)


def test_a_damaged_graph_is_not_found(tmp_path, monkeypatch):
    """Neither one that is cut off nor one with other bytes of the same size; they are named."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    _, graph = opened(save_tiny(tmp_path / "tiny"))
    assert damaged(graph.info, EXACT) == []
    data = graph.files.folder / "second.onnx.data"
    whole = data.read_bytes()
    for wrong in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        data.write_bytes(wrong)
        assert find_graph(graph.info, EXACT) is None
        assert damaged(graph.info, EXACT) == ["second.onnx.data"]
    data.write_bytes(whole)
    (graph.files.folder / "graph.json").write_text("{")
    assert find_graph(graph.info, EXACT) is None
    assert damaged(graph.info, EXACT) == ["graph.json"]


def test_preparing_a_model_builds_its_graph_and_mends_it(tmp_path, monkeypatch):
    """A damaged one is never read; `check_model` names what is damaged. A folder of one's own is
    read by torch until then.
    """
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    folder = str(save_tiny(tmp_path / "tiny", initializer_range=0.05))
    assert not LocalEngine(Settings(model=folder)).has_graph
    assert check_model(folder).ok
    assert find_graph(model_info(folder)) is None
    assert prepare_model(folder)
    assert LocalEngine(Settings(model=folder)).has_graph
    assert not LocalEngine(Settings(model=folder, runtime="torch")).has_graph
    assert not LocalEngine(Settings(model=folder, precision="fp32")).has_graph
    data = find_graph(model_info(folder)).folder / "first.onnx.data"
    data.write_bytes(b"x" + data.read_bytes()[1:])
    assert not LocalEngine(Settings(model=folder)).has_graph
    assert "first.onnx.data" in check_model(folder).detail
    assert prepare_model(folder)
    assert check_model(folder).ok
    assert LocalEngine(Settings(model=folder)).has_graph


@pytest.fixture
def pulled(tmp_path, monkeypatch):
    """The name of a tiny model as `cmt model pull` leaves it."""
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    folder = save_tiny(tmp_path / "models" / "tiny", initializer_range=0.05)
    facts = {"name": "tiny", "pulled_at": "2026-11-30T00:00:00+00:00"}
    (folder / MARKER).write_text(json.dumps(facts))
    return "tiny"


def test_a_pulled_model_gets_its_graph_when_it_is_first_read(pulled, caplog):
    """Once, which is said; a graph of an earlier version is replaced."""
    old = graphs_dir() / f"{model_info(pulled).sha256[:16]}-1-8bit"
    old.mkdir(parents=True)
    assert LocalEngine(Settings(model=pulled)).has_graph
    assert caplog.messages == ["preparing tiny for this machine's CPU, once: this takes seconds"]
    assert find_graph(model_info(pulled)) is not None
    assert not old.exists()
    caplog.clear()
    assert LocalEngine(Settings(model=pulled)).has_graph
    assert caplog.messages == []


def test_a_graph_that_reads_otherwise_is_not_built_twice(pulled, monkeypatch, caplog):
    """Torch reads; asked for by name, the graph is refused with the numbers and the remedy."""
    monkeypatch.setattr(engine_module, "MOST_DIVERGENCE", 0.0)
    assert not LocalEngine(Settings(model=pulled)).has_graph
    assert "torch reads with tiny, which is slower" in caplog.text
    caplog.clear()
    assert not LocalEngine(Settings(model=pulled)).has_graph
    assert caplog.messages == []
    assert check_model(pulled).ok
    with pytest.raises(ModelUnsupported, match=r"at most 0.0\); open with runtime='torch'"):
        prepare_model(pulled)


def test_a_graph_that_cannot_be_written_leaves_the_model_to_torch(pulled, caplog):
    """Such as a file in the place of the folder of graphs."""
    graphs_dir().write_text("")
    assert not LocalEngine(Settings(model=pulled)).has_graph
    assert "cannot be written" in caplog.text
    with pytest.raises(ModelError, match="free some space, or open with runtime='torch'"):
        prepare_model(pulled)


def test_one_large_value_leaves_its_neighbours_their_precision():
    """The kernel rounds 32 values with one scale: turned by a Hadamard matrix they share the large
    one. The product is that of the matrix as it was.
    """
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1, 8, 64)).astype(np.float32)
    x[..., 5] = 30
    matrix = draw.normal(size=(96, 64)).astype(np.float32)
    g = _Builder(Shape.of(tiny_model("llama").config.to_dict()), 8)
    g.input("x", ["batch", "new", 64])
    g.output("y", "Identity", [g.linear("x", "w", matrix)], ["batch", "new", 96])
    made = helper.make_model(
        helper.make_graph(g.nodes, "product", g.inputs, g.outputs, g.inits),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)],
        ir_version=9,
    )
    (product,) = ort.InferenceSession(made.SerializeToString()).run(["y"], {"x": x})
    error = product - x @ matrix.T
    assert np.sqrt(np.mean(error**2)) < 0.25  # without the turn 0.4


@pytest.mark.parametrize("family", ["gemma2", "phi", "gpt2", "smollm3"])
def test_other_families_are_left_to_torch(tmp_path, family):
    """Their layers are of another form."""
    folder = save_tiny(tmp_path / "tiny", tiny_model(family))
    assert fits(model_info(str(folder)), LocalEngine(Settings(model=str(folder)))._bundle) is None
