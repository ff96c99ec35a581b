"""The newest wins: what is superseded is marked, ranks behind, and is not read; no torch."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake
from cmt_sdk.text.prompt_messages import UNKNOWN
from cmt_sdk.types import Document, Match, Passage, Piece, Usage
from cmt_sdk.understanding.newest import (
    asks_for_before,
    contested,
    is_same_fact,
    newest_first,
    oldest_first,
    stated_at,
)

START = datetime(2026, 3, 1, 8, tzinfo=UTC)


def match(number, *, document="", minutes=0, score=0.5, likelihood=None, **fields):
    """A match whose passage has this number, of a document told so many minutes after START."""
    name = document or f"d{number}"
    passage = Passage(number, name, 1, 0, 0, 4, 1, "Text", heading=fields.pop("heading", ""))
    told = Document("Text", id=name, updated_at=START + timedelta(minutes=minutes), **fields)
    return Match(passage, told, score, likelihood=likelihood)


ALIKE = np.array([1.0, 0.0], np.float32)
OTHER = np.array([0.0, 1.0], np.float32)


def test_time_is_the_named_day_then_the_moment_then_the_order_of_storing():
    """A note of March that is added today is older than what was said in April."""
    note = match(9, minutes=99999, source="notes/2026-01-05.md")
    said = match(2, minutes=1)
    again = match(3, minutes=1)
    assert stated_at(note) < stated_at(said) < stated_at(again)


def test_what_is_near_the_best_passage_is_compared_with_it():
    """Not another passage of its document, one of other meaning, or one that fits the question far
    less.
    """
    found = [
        match(1, likelihood=-5.0),
        match(2, minutes=5, likelihood=-6.0),
        match(3, document="d1", likelihood=-5.0),
        match(4, likelihood=-5.0),
        match(5, likelihood=-50.0),
    ]
    assert contested(found, {1: ALIKE, 2: ALIKE, 3: ALIKE, 4: OTHER, 5: ALIKE}) == [1]


def test_one_word_that_surprises_tells_two_things_apart():
    """Where every word loses a little, the passages are of the same."""
    assert is_same_fact([-1.0, -1.0, -1.0], [-2.5, -3.0, -2.0])
    assert not is_same_fact([-1.0, -1.0, -1.0], [-1.0, -6.0, -1.0])


def test_the_probe_outweighs_a_surprise():
    """A rephrased fact may miss a word of the question; what is of another person may not."""
    rephrased = [-1.0, -1.0], [-1.0, -5.0]
    assert is_same_fact(*rephrased, score=0.5)
    assert not is_same_fact(*rephrased, score=-0.3)


def test_the_newest_of_three_takes_the_best_place():
    """Scores stay with the places, and others keep theirs."""
    found = [
        match(1, score=1.0),
        match(7, score=0.9),
        match(2, minutes=1, score=0.8),
        match(3, minutes=2, score=0.7),
    ]
    got = newest_first(found, {0, 2, 3})
    assert [m.passage.id for m in got] == [3, 1, 7, 2]
    assert [m.score for m in got] == [1.0, 0.9, 0.8, 0.7]
    assert [m.superseded_by for m in got] == [None, "d3", None, "d3"]
    before = oldest_first(found[::-1], {0, 1, 3})
    assert [m.passage.id for m in before] == [1, 3, 2, 7]
    assert {m.superseded_by for m in before} == {None}


@pytest.mark.parametrize(
    ("question", "before"),
    [
        ("Where did we live before?", True),
        ("What was my old address?", True),
        ("Who was the previous head of the lab?", True),
        ("Wie war meine alte Adresse?", True),
        ("Quel était mon ancien numéro ?", True),
        ("¿Dónde vivía antes?", True),
        ("Where do we live?", False),
        ("What was my address again?", False),
        ("When was the bridge built?", False),
        ("Wie ist meine Adresse?", False),
        ("Quel est mon numéro ?", False),
    ],
)
def test_what_was_before_is_asked_for_in_several_languages(question, before):
    """The past tense alone asks for nothing earlier."""
    assert asks_for_before(question) is before


@dataclass
class Last(FakeReader):
    """Answers with the last word of the note read last; of `mute` notes it knows nothing."""

    mute: str = "nothing"

    def read(self, prompt, max_tokens):
        """The word, or the words for not knowing."""
        texts = [
            bytes(np.asarray(m.arrays["bytes"], np.uint8) ^ np.uint8(0x55)).decode()
            for m in prompt.memories
        ]
        answer = UNKNOWN if self.mute in texts[-1] else texts[-1].split()[-1]
        yield Piece(answer)
        yield Piece("", Usage(1, 1, 0.1 if answer == UNKNOWN else 0.9, 0.0, 0.0, 0.0))


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes", FakeEngine(reader=Last())) as opened:
        yield opened


def test_the_newer_is_read_and_the_older_stays_a_source(memory):
    """In the answer, in its sources, and in the order of a search."""
    old = memory.add("my flat is in Paris")
    new = memory.add("my flat is in Berlin")
    answer = memory.model.ask("Where is my flat?")
    assert answer.text == "Berlin"
    assert [(s.document_id, s.superseded_by) for s in answer.sources] == [
        (new.id, None),
        (old.id, new.id),
    ]
    found = memory.search("Where is my flat?")
    assert [(m.document.id, m.superseded_by) for m in found] == [(new.id, None), (old.id, new.id)]
    assert f"superseded by {new.id}" in found[1].why
    assert memory.model.ask("Where was my old flat before?").text == "Paris"


def test_what_is_told_again_supersedes_what_came_between(memory):
    """There and back: the first text is the newest once more."""
    for told in ("my flat is in Paris", "my flat is in Berlin", "my flat is in Paris"):
        memory.add(told)
    assert memory.model.ask("Where is my flat?").text == "Paris"


def test_where_the_newer_tells_nothing_both_are_read(memory):
    """The older one answers, and is shown as superseded."""
    memory.add("my flat is in Paris")
    new = memory.add("my flat is nothing")
    answer = memory.model.ask("Where is my flat?")
    assert (answer.text, answer.sources[0].superseded_by) == ("Paris", new.id)
    assert len(answer.sources) == 2


def test_two_things_of_one_form_are_both_read(memory):
    """The question's own word tells them apart."""
    memory.add("my sister flat is in Rome")
    memory.add("my brother flat is in Oslo")
    answer = memory.model.ask("Where is my sister flat?")
    assert answer.text == "Rome"
    assert {s.superseded_by for s in answer.sources} == {None}


def test_a_question_is_read_once_after_each_memory(tmp_path, monkeypatch):
    """What put the passages in order tells which of them are of the same, and serves the same
    question again.
    """
    read = []
    words = FakeReader.word_likelihoods

    def counted(reader, question, memories):
        read.append(len(memories))
        return words(reader, question, memories)

    monkeypatch.setattr(FakeReader, "word_likelihoods", counted)
    with open_fake(tmp_path / "notes", FakeEngine(reader=Last()), rerank=3) as opened:
        opened.add("my flat is in Paris")
        opened.add("my flat is in Berlin")
        assert [opened.model.ask("Where is my flat?").text for _ in range(2)] == ["Berlin"] * 2
        assert read == [2]
        opened.add("my flat is in Rome")
        assert opened.model.ask("Where is my flat?").text == "Rome"
        assert read == [2, 1]
