"""An answer from an older note gives way to a newer note's words; no torch."""

import numpy as np
import pytest

from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake
from cmt_sdk.types import AnswerSpan, Piece, Usage
from cmt_sdk.understanding import newest
from cmt_sdk.understanding.newest import renews

STATED = {"role": "user"}  # as a conversation keeps statements


class Stubborn(FakeReader):
    """Answers "Paris" to every prompt; later spans are likelier."""

    def read(self, prompt, max_tokens):
        """One word."""
        yield Piece("Paris")
        yield Piece("", Usage(1, 1, 0.9, 0.0, 0.0, 0.0))


@pytest.fixture
def sure(monkeypatch):
    """The probe's score of each pair, to be set."""
    number = [1.0]
    monkeypatch.setattr(
        newest, "supersession_probe", lambda _: lambda states: np.full(len(states), number[0])
    )
    return number


@pytest.fixture
def memory(tmp_path, sure):
    with open_fake(tmp_path / "notes", FakeEngine(reader=Stubborn())) as opened:
        yield opened


def test_words_of_another_file_replace_no_answer(memory):
    """Files state different things; the probe alone does not make one of them newer."""
    memory.add("my flat is in Paris", source="flat.md")
    memory.add("gave up the flat in Paris for one in Berlin", source="museum.md")
    assert memory.model.ask("Where is my flat?").text != "Berlin"


@pytest.mark.parametrize("reader", ["memory", "text", "auto"])
def test_the_newer_note_answers_in_its_own_words(memory, reader):
    """Though it names the old value; the older note stays a source."""
    old = memory.add("my flat is in Paris", metadata=STATED)
    new = memory.add("gave up the flat in Paris for one in Berlin", metadata=STATED)
    answer = memory.model.ask("Where is my flat?", reader=reader)
    assert answer.text == "Berlin"
    assert [(s.document_id, s.superseded_by) for s in answer.sources] == [
        (new.id, None),
        (old.id, new.id),
    ]
    assert answer.sources[0].quote == "Berlin"
    assert "".join(memory.model.ask("Where is my flat?", stream=True, reader=reader)) == "Berlin"


def test_a_long_number_gives_way_too(memory, monkeypatch):
    """Each of its digits is a piece; only the newer one is shown."""

    def read(_reader, _prompt, _tokens):
        yield from map(Piece, "0171 445 902 334 118 220")
        yield Piece("", Usage(1, 24, 0.9, 0.0, 0.0, 0.0))

    monkeypatch.setattr(FakeReader, "read", read)
    monkeypatch.setattr(Stubborn, "read", read)
    memory.add("my number is 0171 445 902 334 118 220", metadata=STATED)
    memory.add("my number is 0159", metadata=STATED)
    assert "".join(memory.model.ask("What is my number?", stream=True)) == "0159"


def read_by(answers):
    """A reader's `read` that answers a prompt by the words of its passages; "I don't know." where
    it has no answer for all of them.
    """

    def read(_reader, prompt, _tokens):
        hidden = [np.asarray(m.arrays["bytes"], np.uint8) for m in prompt.memories]
        texts = [bytes(h ^ np.uint8(0x55)).decode() for h in hidden]
        text, confidence = answers.get(frozenset(texts), ("I don't know.", 0.1))
        yield Piece(text)
        yield Piece("", Usage(1, 2, confidence, 0.0, 0.0, 0.0))

    return read


PARIS, BERLIN = "my flat is in Paris", "moved the flat to Berlin"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({frozenset([PARIS]): ("Paris", 0.9)}, "Berlin"),
        ({frozenset([PARIS]): ("Paris", 0.4)}, "I don't know."),
        ({}, "I don't know."),
        ({frozenset([PARIS, BERLIN]): ("Berlin", 0.7)}, "Berlin"),
    ],
)
def test_an_older_note_that_answers_shows_what_the_newer_one_tells(
    memory, monkeypatch, answers, expected
):
    """The newer one alone does not tell a small model. A probable answer is not given up for it."""
    monkeypatch.setattr(Stubborn, "read", read_by(answers))
    memory.add(PARIS, metadata=STATED)
    memory.add(BERLIN, metadata=STATED)
    answer = memory.model.ask("Where is the moved flat?")
    assert answer.text == expected
    assert answer.abstained == (expected == "I don't know.")


def test_the_newest_of_three_answers(memory):
    """Of two that are as likely it is the later one."""
    for note in ("my flat is in Paris", "my flat is in Berlin", "my flat is in Rome"):
        memory.add(note, metadata=STATED)
    assert memory.model.ask("Where is my flat?").text == "Rome"


def test_something_else_by_the_probe_changes_nothing(memory, sure):
    """However likely its words are."""
    sure[0] = -0.5
    memory.add("my flat is in Paris", metadata=STATED)
    memory.add("my sister has a flat in Berlin", metadata=STATED)
    answer = memory.model.ask("Where is my flat?")
    assert answer.text == "Paris"
    assert {s.superseded_by for s in answer.sources} == {None}


def test_a_question_for_the_value_before_gets_the_older_note(memory):
    """The older note stays the source."""
    memory.add("my flat is in Paris", metadata=STATED)
    memory.add("my flat is in Berlin", metadata=STATED)
    assert memory.model.ask("Where was my old flat before?").text == "Paris"


def test_words_of_the_older_note_and_of_the_question_are_nothing_new(memory, monkeypatch):
    """Nor is the old value with more around it."""

    def answer_spans(_reader, _prompt, text, _words):
        return [
            AnswerSpan(text, -0.1, 4),
            AnswerSpan("Paris now", -0.2, 2),
            AnswerSpan("Where", -0.3, 1),
            AnswerSpan("Oslo", -3.0, 1),
        ]

    monkeypatch.setattr(FakeReader, "answer_spans", answer_spans)
    memory.add("my flat is in Paris", metadata=STATED)
    memory.add("my flat is in Paris no more", metadata=STATED)
    assert memory.model.ask("Where is my flat?").text == "Oslo"


def test_the_newer_answer_has_no_more_than_max_tokens(memory, monkeypatch):
    """The likeliest words are too many; the tokens of the words that answer are counted."""

    def answer_spans(_reader, _prompt, _text, _words):
        return [AnswerSpan("Berlin since May", -0.1, 3), AnswerSpan("Berlin", -0.2, 2)]

    monkeypatch.setattr(FakeReader, "answer_spans", answer_spans)
    memory.add("my flat is in Paris", metadata=STATED)
    memory.add("my flat is in Berlin since May", metadata=STATED)
    assert memory.model.ask("Where is my flat?").text == "Berlin since May"
    answer = memory.model.ask("Where is my flat?", max_tokens=2)
    assert (answer.text, answer.answer_tokens) == ("Berlin", 2)


def test_a_sure_probe_outweighs_a_likelier_old_value():
    """And a likely new value a probe that is not sure."""
    assert renews(-4.0, -0.1, 0.9) > 0.0
    assert renews(-0.5, -3.5, -0.5) > 0.0
    assert renews(-4.0, -0.1, 0.0) < 0.0
    assert renews(-0.5, -0.5, -1.0) < 0.0


def test_an_unlikely_span_is_no_answer():
    """However sure the probe is: the note has no answer to the question."""
    assert renews(-6.5, -2.3, 2.0) < 0.0
