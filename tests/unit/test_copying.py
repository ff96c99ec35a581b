"""Answers copied from texts: everything that the automaton lets through stands in one of them, as
whole words, with tokenizers of several kinds.
"""

from __future__ import annotations

import json
import math
import re
import time
from itertools import chain, repeat

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cmt_sdk.cpu.tokens import FilePrompts
from cmt_sdk.reading.copying import REPLIES, Copying
from cmt_sdk.reading.decoding import OpenPrompt, decode
from cmt_sdk.types import CopiedTexts

MUSEUM = (
    'The museum (Cardiff) moved to Lisbon in 2019; its "new" café costs $5.20, or 1,234 Kč. '
    "北京很大。 Well-known: <end> stays a word.\nIt isn't far."
)
WHOLE = {reply.lower() for reply in REPLIES}
NOTES = ["Ann lives in Cork.", "Ann moved to Galway in May.", "", "  \n"]
QWEN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KINDS = {
    "bytes": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "bytes, digits alone": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "signs before words": [
        pre_tokenizers.Split(Regex(QWEN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
    "a space at the beginning": [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()],
}


@pytest.fixture(scope="module", params=KINDS)
def prompts(request, tmp_path_factory):
    """The prompts of a small tokenizer of this kind; <end> ends an answer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(KINDS[request.param])
    is_bytes = "space" not in request.param
    tokenizer.decoder = decoders.ByteLevel() if is_bytes else decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if is_bytes else sorted(MUSEUM),
        show_progress=False,
    )
    read = [text.replace("北京很大", "") for text in (MUSEUM, *NOTES, *REPLIES)]
    tokenizer.train_from_iterator(read * 3, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps({"eos_token": "<end>", "chat_template": "{{ messages[0].content }}"})
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return FilePrompts(folder)


def wanted(prompts, words):
    """Logits for each step of an answer of these words."""
    size = prompts.tokenizer._plain.get_vocab_size()
    for token in [*prompts.ids(words), prompts.tokenizer.eos_token_id]:
        logits = np.zeros(size, np.float32)
        logits[token] = 9.0
        yield logits


def copied(prompts, texts, logits, margin=math.inf):
    """The text of an answer that is read with these logits."""
    steps = chain(logits, repeat(np.zeros(500, np.float32)))
    prompt = OpenPrompt([0], lambda _: next(steps))
    source = CopiedTexts(texts, margin) if texts else None
    pieces = list(decode(prompts, prompt, 40, time.perf_counter(), source))
    return "".join(piece.text for piece in pieces).strip()


@pytest.mark.parametrize(
    "words",
    [
        "The museum",
        "Cardiff",
        "new",
        "Lisbon in 2019",
        "2019",
        "café",
        "$5.20",
        "1,234",
        "北京",
        "Well-known",
        "It isn't far.",
        "Galway",
        "I don't know.",
        "Yes",
        "No",
    ],
)
def test_words_of_a_text_are_copied_as_they_are(prompts, words):
    """Behind a space, a bracket, a quote or a line break; and the replies that no text holds."""
    assert copied(prompts, [MUSEUM, *NOTES], wanted(prompts, words)) == words


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_model_wants_the_answer_stands_in_a_text(prompts, seed):
    """As whole words; a reply is given whole."""
    rng = np.random.default_rng(seed)
    size = prompts.tokenizer._plain.get_vocab_size()
    end = prompts.tokenizer.eos_token_id
    path = Copying(prompts, [MUSEUM, *NOTES])
    ids: list[int] = []
    while (token := path.next(rng.normal(size=size).astype(np.float32))) != end:
        ids.append(token)
    answer = prompts.tokenizer.decode(ids).strip()
    assert answer
    first = f"[{re.escape(answer[0])}{re.escape(answer[0].swapcase())}]"
    whole = re.compile(rf"(?<![a-zA-Z0-9]){first}{re.escape(answer[1:])}(?![a-zA-Z0-9])")
    assert answer.lower() in WHOLE or any(whole.search(text) for text in [MUSEUM, *NOTES])


def test_a_special_token_that_a_text_spells_ends_nothing(prompts):
    """It is copied as letters."""
    assert copied(prompts, ["Write <end> twice."], wanted(prompts, "Write")) == "Write"
    end = prompts.tokenizer.eos_token_id
    zeros = np.zeros(500, np.float32)
    zeros[end] = 9.0
    path = Copying(prompts, ["<end>"])
    assert path.next(zeros) != end


def test_without_words_only_the_replies_are_left(prompts):
    """Empty passages, and passages of space."""
    assert copied(prompts, ["", " \n "], wanted(prompts, "Cork")).lower() in WHOLE


def test_a_word_may_begin_in_the_other_case(prompts):
    """As it does within a sentence."""
    if prompts.piece(prompts.ids("the")[0]) == b" ":
        pytest.skip("the tokenizer has a token for the space alone")
    assert copied(prompts, ["The museum is old."], wanted(prompts, "the museum")) == "the museum"


def test_a_word_begins_as_the_tokenizer_begins_it(prompts):
    """A letter that is wanted for another word leads to no word of this letter."""
    (letter,) = prompts.ids("xG")[-1:]
    firsts = {prompts.piece(prompts.ids(text)[0]).strip() for text in ("Galway", " Galway")}
    logits = np.zeros(500, np.float32)
    logits[letter] = 9.0
    token = Copying(prompts, ["Galway"]).next(logits)
    assert b"G" in firsts or token != letter


def test_within_the_margin_a_word_is_spelt_as_the_text_spells_it(prompts):
    """A slightly likelier token of the model's own is left out."""
    first, *rest = wanted(prompts, "Lisbon in 2019")
    first += 1.05 * next(wanted(prompts, "Galway"))  # likelier by 0.45 nats
    assert copied(prompts, [MUSEUM], [first, *rest], margin=0.5) == "Lisbon in 2019"


def test_a_word_that_the_model_has_begun_goes_before_a_likelier_other_one(prompts):
    """Its first letter is no token with which the tokenizer begins it."""
    (letter,) = prompts.ids("xG")[-1:]
    if prompts.piece(letter) != b"G":
        pytest.skip("the tokenizer has no token for the letter alone")
    logits = np.full(500, -9.0, np.float32)
    galway, cork = (prompts.ids(word)[0] for word in ("Galway", "Cork"))
    logits[letter], logits[cork], logits[galway] = 9.0, 8.0, 7.0
    token = Copying(prompts, ["Cork, Galway"], 4.0).next(logits)
    assert prompts.piece(token).strip()[:1] in (b"G", b"")


def test_beyond_the_margin_the_answer_is_free_to_its_end(prompts):
    """Words that no text holds, and after them words that one holds."""
    assert copied(prompts, ["Cork"], wanted(prompts, "Galway in May"), 2.0) == "Galway in May"
    assert copied(prompts, NOTES, wanted(prompts, "lives museum Cork"), 2.0) == "lives museum Cork"


def test_a_free_answer_is_free(prompts):
    """Without texts the likeliest token is taken."""
    assert copied(prompts, [], wanted(prompts, "far museum")) == "far museum"
