"""Answers whose words stand elsewhere than in the passage that fits best: order, confidence, and
reading again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cmt_sdk import Document
from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake
from cmt_sdk.types import Piece, Usage

CAKE = "Apple cake: bake at 180 degrees for 45 minutes."
BREAD = "Sourdough bread: bake at 230 degrees for 20 minutes."
QUESTION = "How long do I bake the apple cake?"


class LongPassages(FakeEngine):
    """Counts a hundred tokens in each text: no passage is a short note, which is read alone too."""

    def count_tokens(self, texts):
        """A hundred each."""
        return [100] * len(texts)


@dataclass
class Scripted(FakeReader):
    """Says `many` of several passages and `alone` of one, each with its confidence; the bread fits
    `gap` nats less.
    """

    many: tuple[str, float] = ("20 minutes", 0.9)
    alone: tuple[str, float] = ("45 minutes", 0.8)
    gap: float = 10.0
    read_from: list[int] = field(default_factory=list)

    def read(self, prompt, max_tokens):
        """The scripted words; `read_from` records how many passages there were."""
        count = len(prompt.memories) + len(prompt.texts)
        self.read_from.append(count)
        text, confidence = self.many if count > 1 else self.alone
        for word in text.split():
            yield Piece(word + " ")
        yield Piece("", Usage(10, len(text.split()), confidence, 0.0, 0.0, 0.0))

    def word_likelihoods(self, question, memories):
        """By the cake's word."""
        texts = [bytes(m.arrays["bytes"] ^ 0x55).decode() for m in memories]
        return [[0.0 if "cake" in text else -self.gap] for text in texts]


@pytest.fixture
def asked(tmp_path):
    """A function that asks a scripted reader of the cake and the bread."""
    opened = []

    def ask(by, question=QUESTION, **options):
        memory = open_fake(tmp_path / f"notes{len(opened)}", LongPassages(reader=by), rerank=2)
        opened.append(memory)
        memory.add_many([Document(CAKE, source="cake.md"), Document(BREAD, source="bread.md")])
        return memory.model.ask(question, **options)

    yield ask
    for memory in opened:
        memory.close()


def test_the_best_passage_is_read_again_alone_where_another_one_gave_the_words(asked):
    """The more probable answer stands, and the sources show where it is from."""
    reader = Scripted()
    answer = asked(reader)
    assert (answer.text, answer.confidence, reader.read_from) == ("45 minutes", 0.8, [2, 1])
    assert [(s.source, s.rank, s.quote) for s in answer.sources] == [
        ("cake.md", 1, "45 minutes"),
        ("bread.md", 2, None),
    ]
    assert answer.prompt_tokens == 20


@pytest.mark.parametrize("reader", ["memory", "text"])
def test_a_stream_gives_the_answer_that_stands(asked, reader):
    """What was held back is never shown."""
    stream = asked(Scripted(), stream=True, reader=reader)
    assert "".join(stream).strip() == "45 minutes"
    assert stream.answer.text == "45 minutes"


def test_a_long_answer_is_shown_while_it_is_written(asked):
    """From its twelfth piece on it is not held back, and what has been shown stands."""
    words = "bake at 230 degrees for 20 minutes " * 3
    reader = Scripted(many=(words, 0.9))
    stream = asked(reader, stream=True)
    pieces = list(stream)
    assert pieces == [f"{word} " for word in words.split()]
    assert (stream.answer.text, reader.read_from) == (words.strip(), [2])
    assert stream.answer.confidence < 0.9


@pytest.mark.parametrize(
    ("alone", "expected"),
    [
        (("45 minutes", 0.3), "20 minutes"),
        (("I don't know.", 0.9), "20 minutes"),
        (("I don't know.", 0.1), "I don't know."),
    ],
    ids=["less probable", "surely known", "surely unknown"],
)
def test_of_two_readings_the_more_probable_stands(asked, alone, expected):
    """At ten nats 0.9 counts half, 0.45; not to know counts as what is left of its confidence."""
    answer = asked(Scripted(alone=alone))
    assert answer.text == expected
    assert answer.confidence == pytest.approx(0.45 if expected == "20 minutes" else 0.1)


def test_an_answer_of_another_passage_that_fits_nearly_as_well_stands(asked):
    """It loses a part of its confidence, its passage is named first, and nothing is read again."""
    reader = Scripted(gap=5.0)
    answer = asked(reader)
    assert (answer.text, reader.read_from) == ("20 minutes", [2])
    assert answer.confidence == pytest.approx(0.9 * 0.5**0.5)
    assert [(s.source, s.rank, s.quote) for s in answer.sources] == [
        ("bread.md", 2, "20 minutes"),
        ("cake.md", 1, None),
    ]


@pytest.mark.parametrize(
    ("said", "question", "confidence"),
    [
        ("45 minutes", QUESTION, 0.9),
        ("an hour", QUESTION, 0.45),
        ("180", "Is it 180 or 230?", 0.45),
    ],
    ids=["in the best passage", "nowhere", "the question's own words"],
)
def test_confidence_falls_with_what_supports_an_answer(asked, said, question, confidence):
    """Half of it goes where the words stand nowhere, and where the question holds all of them."""
    answer = asked(Scripted(many=(said, 0.9)), question)
    assert answer.text == said
    assert answer.confidence == pytest.approx(confidence)
    assert answer.sources[0].rank == 1


def test_auto_looks_the_text_up_where_the_words_stand_nowhere(asked):
    """0.9 counts 0.45: the best passage's text is read."""
    answer = asked(Scripted(many=("an hour", 0.9)), reader="auto")
    assert (answer.text, answer.reader, len(answer.sources)) == ("45 minutes", "text", 1)


@pytest.mark.parametrize(
    ("many", "alone", "expected"),
    [
        (("an hour", 0.9), ("45 minutes", 0.4), ("an hour", "memory")),
        (("I don't know.", 0.1), ("45 minutes", 0.4), ("45 minutes", "text")),
        (("an hour", 0.4), ("I don't know.", 0.1), ("I don't know.", "text")),
    ],
    ids=["the text is less sure", "memory does not tell", "the text does not tell"],
)
def test_auto_takes_the_more_probable_answer(asked, many, alone, expected):
    """What memory does not tell, the text may."""
    answer = asked(Scripted(many=many, alone=alone), reader="auto")
    assert (answer.text, answer.reader) == expected
    assert answer.prompt_tokens == 20


def test_auto_looks_at_the_text_of_the_passage_that_the_words_are_from_too(asked):
    """0.9 counts 0.57 at six and a half nats: both passages are read, as two they say what they
    said.
    """
    reader = Scripted(gap=6.5)
    answer = asked(reader, reader="auto")
    assert (answer.text, answer.reader, reader.read_from) == ("20 minutes", "text", [2, 2])


def test_an_abstention_has_no_place(asked):
    """The passages keep the order of the search, and none holds the answer."""
    answer = asked(Scripted(many=("I don't know.", 0.2)))
    assert answer.abstained
    assert [(s.rank, s.holds_answer) for s in answer.sources] == [(1, False), (2, False)]


@pytest.mark.parametrize(
    ("source", "metadata", "expected"),
    [
        ("notes/2026-03-04.md", {}, "2026-03-04"),
        ("lease.md", {"created": "2023-01-01", "updated": "2025-06-30T10:00:00Z"}, "2025-06-30"),
        ("2024-01-02 lease.md", {"date": "2025-01-01"}, "2025-01-01"),
        ("lease-2026-13-45.md", {}, None),
        ("call 12026-03-045.md", {}, None),
        (None, {"date": "soon", "year": 2020}, None),
        ("C:\\notes\\2026-03-04.md", {}, "2026-03-04"),
        ("2020-01-01/lease.md", {}, None),
    ],
    ids=[
        "daily note",
        "front matter",
        "both",
        "no date",
        "digits around",
        "none",
        "Windows",
        "folder",
    ],
)
def test_the_day_that_a_document_names(source, metadata, expected):
    """Its metadata comes before its name."""
    assert Document("x", source=source, metadata=metadata).date == expected


def test_scores_fall_in_the_order_in_which_passages_are_shown(tmp_path):
    """Those that were read again in their order, and those behind them."""
    with open_fake(tmp_path / "notes", FakeEngine(reader=Scripted(gap=3.0)), rerank=2) as memory:
        memory.add_many(
            [CAKE, BREAD, "The bread knife is in the drawer.", "A cake tin is there too."]
        )
        scores = [m.score for m in memory.search("bake bread cake", k=4, mode="reranked")]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 1.0
