"""Reading: the bare model stays what it was, text comes in pieces, costs are counted."""

import contextlib
import hashlib

import pytest
import torch

from cmt_sdk.errors import InvalidInput
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods import kv
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.methods.soft import SoftMethod
from cmt_sdk.neural.quantization import QuantizedRows
from cmt_sdk.neural.reader import TorchReader
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.neural.scoring import question_likelihoods
from cmt_sdk.testing.tiny import tiny_frozen, tiny_llama
from cmt_sdk.types import Prompt, Turn

TEXT = "The museum moved to Lisbon in 2019."


@pytest.fixture(scope="module")
def lm():
    return tiny_frozen()


@pytest.fixture(scope="module")
def reader(lm):
    return TorchReader(lm, KVMethod(lm, Rotary(lm.model)))


def weights(model):
    """A hash over every parameter's bytes."""
    digest = hashlib.sha256()
    for _, parameter in sorted(model.named_parameters()):
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def answer(reader, prompt, tokens=12):
    """The text of an answer and its usage."""
    pieces = list(reader.read(prompt, tokens))
    return "".join(p.text for p in pieces), pieces[-1].usage


def test_without_notes_the_model_is_the_base_model(lm, reader):
    """Logits are bit-identical to an untouched model, before and after memories were read."""
    untouched, ids = tiny_llama(), torch.tensor([[5, 9, 77, 130, 2]])
    with torch.inference_mode():
        expected = untouched(input_ids=ids).logits
        assert torch.equal(lm.model(input_ids=ids).logits, expected)
        answer(
            reader,
            Prompt("Where?", memories=KVMethod(lm, reader.method.rotary, 0.5).compress([TEXT])),
        )
        assert torch.equal(lm.model(input_ids=ids).logits, expected)


def test_the_weights_never_change(lm, reader):
    """Compressing and reading leave every byte of the base model as it was."""
    before = weights(lm.model)
    answer(
        reader,
        Prompt(
            "Where?",
            memories=KVMethod(lm, reader.method.rotary, 0.25).compress([TEXT, TEXT + "!"]),
        ),
    )
    answer(reader, Prompt("Where?", texts=[TEXT]))
    assert weights(lm.model) == before == weights(tiny_llama())


def test_bare_reading_equals_generate(lm, reader):
    """Greedy reading without notes gives the tokens of transformers' own generate."""
    text, usage = answer(reader, Prompt("Where is it?", notes=False))
    ids = torch.tensor([lm.bare_ids("Where is it?")])
    with torch.inference_mode():
        expected = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
    assert text == lm.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert usage.prompt_tokens == ids.shape[1]


def test_text_reading_equals_one_plain_prompt(lm, reader):
    """Head, passage and question read in parts give what the model says to the whole prompt at
    once.
    """
    text, usage = answer(reader, Prompt("Where?", texts=[TEXT]))
    ids = torch.tensor([lm.prefix_ids + lm.passage_ids(TEXT) + lm.question_ids("Where?")])
    with torch.inference_mode():
        expected = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
    assert text == lm.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert usage.prompt_tokens == len(lm.passage_ids(TEXT)) + len(lm.question_ids("Where?"))


def test_a_memory_of_all_entries_reads_like_the_text(lm, reader, monkeypatch):
    """With every entry kept, only the four-bit rounding separates memory from text: without it the
    first token's odds agree.
    """
    monkeypatch.setattr(
        kv, "quantize", lambda rows, _group=0: QuantizedRows(rows.float(), rows[:, :1].half())
    )
    monkeypatch.setattr(kv, "dequantize", lambda codes: codes.codes)
    _, from_text = answer(reader, Prompt("Where?", texts=[TEXT]), 1)
    memories = KVMethod(lm, reader.method.rotary, 1.0).compress([TEXT])
    _, from_memory = answer(reader, Prompt("Where?", memories=memories), 1)
    assert from_memory.confidence == pytest.approx(from_text.confidence, abs=1e-3)
    assert from_memory.prompt_tokens == len(lm.question_ids("Where?"))


def test_streamed_pieces_join_to_whole_characters(lm):
    """Bytes of one character come as one piece; what never completes comes at the end."""
    from cmt_sdk.reading.decoding import DecodedText

    text = DecodedText(lm.tokenizer)
    pieces = [text.add(token) for token in lm.ids("né 日")]
    assert [p for p in pieces if p] == ["n", "é", " ", "日"]
    assert text.rest() == ""


def test_history_goes_before_the_question(lm):
    """Earlier turns stand between the notes and the question; the part before the notes stays the
    same.
    """
    ids = lm.question_ids("And when?", [Turn("user", "Where is it?"), Turn("assistant", "Lisbon")])
    text = lm.tokenizer.decode(ids)
    assert text.index("Where is it?") < text.index("Lisbon") < text.index("And when?")
    assert lm.tokenizer.decode(lm.prefix_ids).endswith("I don't know.\n\n")


def test_a_prompt_over_the_context_is_refused():
    """The error names both sizes and what to do."""
    lm = tiny_frozen(tiny_llama(max_position_embeddings=256))
    with pytest.raises(
        InvalidInput, match=r"need \d+ tokens, the model's context holds 256; ask with a smaller k"
    ):
        answer(TorchReader(lm, KVMethod(lm, Rotary(lm.model))), Prompt("Where?", texts=[TEXT * 9]))


def test_an_uncompressed_soft_passage_is_its_memory(lm):
    """One pass over half the layers makes it: there is nothing to leave out."""
    reader = TorchReader(lm, SoftMethod(lm, 4))
    (made,), (memory,) = reader.uncompressed([TEXT]), reader.method.compress([TEXT])
    assert made.kind == memory.kind
    for name, array in memory.arrays.items():
        assert (made.arrays[name] == array).all()


def test_soft_memories_are_read(lm):
    """Soft tokens take the place of words: a passage costs a quarter of its tokens."""
    method = SoftMethod(lm, 4)
    prompt = Prompt("Where?", memories=method.compress([TEXT]))
    _, usage = answer(TorchReader(lm, method), prompt)
    assert usage.prompt_tokens == len(lm.question_ids("Where?")) + -(
        -len(lm.passage_ids(TEXT)) // 4
    )


def test_between_two_pieces_the_adapter_is_off():
    """Who uses the model while an answer streams meets the bare base."""
    on = []

    @contextlib.contextmanager
    def activate(name):
        on.append(name)
        yield
        on.remove(name)

    bare = tiny_frozen()
    lm = FrozenModel(bare.model, bare.tokenizer, activate)
    method = KVMethod(lm, Rotary(lm.model), 0.5)
    prompt = Prompt("Where?", memories=method.compress([TEXT]))
    states = [list(on) for _ in TorchReader(lm, method).read(prompt, 5)]
    assert len(states) > 1
    assert not any(states)


def test_a_question_is_most_probable_after_the_memory_that_tells_of_it():
    """One pass for all memories gives what a pass for each gives, and is the likelihood of the
    words themselves.
    """
    lm = tiny_frozen()
    contents = [
        "The museum is in Lisbon.",
        "A harbour lies in Genoa, far from every museum.",
        "Tea.",
    ]
    question = "Where is the museum?"
    method = KVMethod(lm, Rotary(lm.model), 0.5)
    memories = method.compress(contents)
    together = question_likelihoods(method, memories, question)
    for memory, found in zip(memories, together, strict=True):
        assert question_likelihoods(method, [memory], question)[0] == pytest.approx(
            found, rel=1e-3, abs=1e-3
        )
    before, words = lm.question_span(question)
    assert lm.tokenizer.decode(before + words).endswith("Question: Where is the museum?")
    with torch.inference_mode():
        cache = method.cache([memories[:1]], room=len(before + words))
        states = lm.forward(cache, **cache.inputs(torch.tensor([before + words])))
        logs = lm.logits(states[0]).log_softmax(-1)
    expected = [float(logs[len(before) - 1 + n, word]) for n, word in enumerate(words)]
    assert together[0] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert TorchReader(lm, method).word_likelihoods(question, memories)[0] == pytest.approx(
        expected, rel=1e-3, abs=1e-3
    )


def test_soft_memories_have_likelihoods_too():
    """One a memory, and different ones for different memories."""
    lm = tiny_frozen()
    method = SoftMethod(lm, 4)
    memories = method.compress(["The museum is in Lisbon.", "A harbour."])
    found = TorchReader(lm, method).word_likelihoods("Where is the museum?", memories)
    first, second = map(sum, found)
    assert first < 0
    assert second < 0
    assert first != second


@pytest.mark.parametrize("kind", ["memory", "text", "soft"])
def test_a_stretch_is_as_likely_as_its_words_one_by_one(kind):
    """After memories, text and soft memories; the model ends the answer after each span."""
    lm = tiny_frozen()
    method = SoftMethod(lm, 4) if kind == "soft" else KVMethod(lm, Rotary(lm.model), 0.5)
    reader = TorchReader(lm, method)
    prompt = Prompt("Where is it?", texts=[TEXT])
    if kind != "text":
        prompt = Prompt("Where is it?", memories=method.compress([TEXT, "A harbour."]))
    text = "in Lisbon, by the sea"
    words = [(0, 2), (3, 9), (11, 13), (14, 17), (18, 21)]
    found = {s.text: s for s in reader.answer_spans(prompt, text, words)}
    assert {"in", "in Lisbon", "Lisbon, by", "sea"} <= set(found)
    for span in ("Lisbon", "Lisbon, by"):
        ids = lm.ids(span)
        expected = one_by_one(reader, prompt, ids)
        assert found[span].likelihood == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert found[span].tokens == len(ids)


def one_by_one(reader, prompt, ids):
    """The log probability of an answer and its end, one forward pass per token."""
    reading = reader._read_notes(prompt, 40)
    steps = reading.ids
    position = reading.position
    total = 0.0
    with torch.inference_mode():
        for token in [*ids, None]:
            with reader.lm.activate(reading.adapter):
                logs = reader._next_logits(reading, steps, position).log_softmax(-1)
            ends = logs[sorted(reader.lm.stop_ids)].logsumexp(0)
            total += float(ends if token is None else logs[token])
            position += len(steps)
            steps = [token]
    return total
