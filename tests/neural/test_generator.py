"""Reading: the bare model stays what it was, text comes in pieces, costs are counted."""

import contextlib
import hashlib

import pytest
import torch

from cmt_sdk.errors import InvalidInput
from cmt_sdk.neural import kv, reading
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.generator import Generator
from cmt_sdk.neural.kv import KVCompressor
from cmt_sdk.neural.likelihood import likelihoods
from cmt_sdk.neural.quantization import Codes
from cmt_sdk.neural.reading import causal, place
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.soft import SoftCompressor
from cmt_sdk.testing.tiny import tiny_frozen, tiny_llama
from cmt_sdk.types import Prompt, Turn

TEXT = "The museum moved to Lisbon in 2019."


@pytest.fixture(scope="module")
def lm():
    return tiny_frozen()


@pytest.fixture(scope="module")
def generator(lm):
    return Generator(lm, Rotary(lm.model))


def weights(model):
    """A hash over every parameter's bytes."""
    digest = hashlib.sha256()
    for _, parameter in sorted(model.named_parameters()):
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def answer(generator, prompt, tokens=12):
    """The text of an answer and its usage."""
    pieces = list(generator.read(prompt, tokens))
    return "".join(p.text for p in pieces), pieces[-1].usage


def test_without_notes_the_model_is_the_base_model(lm, generator):
    """Logits are bit-identical to an untouched model, before and after memories were read."""
    untouched, ids = tiny_llama(), torch.tensor([[5, 9, 77, 130, 2]])
    with torch.inference_mode():
        expected = untouched(input_ids=ids).logits
        assert torch.equal(lm.model(input_ids=ids).logits, expected)
        answer(
            generator,
            Prompt("Where?", memories=KVCompressor(lm, generator.rotary, 0.5).pack([TEXT])),
        )
        assert torch.equal(lm.model(input_ids=ids).logits, expected)


def test_the_weights_never_change(lm, generator):
    """Compressing and reading leave every byte of the base model as it was."""
    before = weights(lm.model)
    answer(
        generator,
        Prompt(
            "Where?", memories=KVCompressor(lm, generator.rotary, 0.25).pack([TEXT, TEXT + "!"])
        ),
    )
    answer(generator, Prompt("Where?", passages=[TEXT]))
    assert weights(lm.model) == before == weights(tiny_llama())


def test_bare_reading_equals_generate(lm, generator):
    """Greedy reading without notes gives the tokens of transformers' own generate."""
    text, usage = answer(generator, Prompt("Where is it?", notes=False))
    ids = torch.tensor([lm.bare_ids("Where is it?")])
    with torch.inference_mode():
        expected = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
    assert text == lm.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert usage.prompt_tokens == ids.shape[1]


def test_text_reading_equals_one_plain_prompt(lm, generator):
    """Head, passage and question read in parts give what the model says to the whole prompt at
    once.
    """
    text, usage = answer(generator, Prompt("Where?", passages=[TEXT]))
    ids = torch.tensor([lm.head_ids + lm.passage_ids(TEXT) + lm.question_ids("Where?")])
    with torch.inference_mode():
        expected = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
    assert text == lm.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert usage.prompt_tokens == len(lm.passage_ids(TEXT)) + len(lm.question_ids("Where?"))


def test_a_memory_of_all_entries_reads_like_the_text(lm, generator, monkeypatch):
    """With every entry kept, only the four-bit rounding separates memory from text: without it the
    first token's odds agree.
    """
    monkeypatch.setattr(
        kv, "quantize", lambda rows, _group=0: Codes(rows.float(), rows[:, :1].half())
    )
    monkeypatch.setattr(reading, "dequantize", lambda codes: codes.codes)
    _, from_text = answer(generator, Prompt("Where?", passages=[TEXT]), 1)
    memories = KVCompressor(lm, generator.rotary, 1.0).pack([TEXT])
    _, from_memory = answer(generator, Prompt("Where?", memories=memories), 1)
    assert from_memory.confidence == pytest.approx(from_text.confidence, abs=1e-3)
    assert from_memory.prompt_tokens == len(lm.question_ids("Where?"))


def test_streamed_pieces_join_to_whole_characters(lm):
    """Bytes of one character come as one piece; what never completes comes at the end."""
    from cmt_sdk.neural.generator import _Text

    text = _Text(lm.tokenizer)
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
    assert lm.tokenizer.decode(lm.head_ids).endswith("I don't know.\n\n")


def test_a_prompt_over_the_context_is_refused():
    """The error names both sizes and what to do."""
    lm = tiny_frozen(tiny_llama(max_position_embeddings=256))
    with pytest.raises(
        InvalidInput, match=r"need \d+ tokens, the model's context holds 256; ask with a smaller k"
    ):
        answer(Generator(lm, Rotary(lm.model)), Prompt("Where?", passages=[TEXT * 9]))


def test_soft_memories_are_read(lm, generator):
    """Soft tokens take the place of words: a passage costs a quarter of its tokens."""
    memories = SoftCompressor(lm, 4).pack([TEXT])
    _, usage = answer(generator, Prompt("Where?", memories=memories))
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
    memories = KVCompressor(lm, Rotary(lm.model), 0.5).pack([TEXT])
    states = [
        list(on)
        for _ in Generator(lm, Rotary(lm.model)).read(Prompt("Where?", memories=memories), 5)
    ]
    assert len(states) > 1
    assert not any(states)


def test_a_question_is_most_probable_after_the_memory_that_tells_of_it():
    """One pass for all memories gives what a pass for each gives, and is the likelihood of the
    words themselves.
    """
    lm = tiny_frozen()
    rotary = Rotary(lm.model)
    contents = [
        "The museum is in Lisbon.",
        "A harbour lies in Genoa, far from every museum.",
        "Tea.",
    ]
    question = "Where is the museum?"
    memories = KVCompressor(lm, rotary, 0.5).pack(contents)
    together = likelihoods(lm, rotary, memories, question)
    for memory, found in zip(memories, together, strict=True):
        assert likelihoods(lm, rotary, [memory], question)[0] == pytest.approx(
            found, rel=1e-3, abs=1e-3
        )
    before, words = lm.question_span(question)
    assert lm.tokenizer.decode(before + words).endswith("Question: Where is the museum?")
    with torch.inference_mode():
        prefix = place(lm, rotary, memories[:1], len(before + words))
        ids = torch.tensor([before + words])
        positions = torch.arange(prefix.position, prefix.position + len(before + words))[None]
        mask = causal(ids.shape[1], prefix.bias[0])
        states = lm.states(
            prefix, input_ids=ids, position_ids=positions, attention_mask=mask, notes=prefix
        )
        logs = lm.logits(states[0]).log_softmax(-1)
    expected = [float(logs[len(before) - 1 + n, word]) for n, word in enumerate(words)]
    assert together[0] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert Generator(lm, rotary).word_likelihoods(question, memories)[0] == pytest.approx(
        expected, rel=1e-3, abs=1e-3
    )


def test_soft_memories_have_likelihoods_too():
    """One a memory, and different ones for different memories."""
    lm = tiny_frozen()
    memories = SoftCompressor(lm, 4).pack(["The museum is in Lisbon.", "A harbour."])
    first, second = map(sum, Generator(lm, None).word_likelihoods("Where is the museum?", memories))
    assert first < 0
    assert second < 0
    assert first != second
