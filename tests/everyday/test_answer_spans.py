"""Where an answer stands verbatim, to the character, in the document's text."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cmt_sdk import Document
from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake
from cmt_sdk.text.provenance import verbatim
from cmt_sdk.types import Piece, Usage


@dataclass
class Says(FakeReader):
    """Answers with these words, whatever it reads."""

    words: str

    def read(self, prompt, max_tokens):
        """The words at once."""
        yield Piece(self.words)
        yield Piece("", Usage(1, 1, 0.9, 0.0, 0.0, 0.0))


PLACES = {
    "as it is": ("$5.20", "Tea: $5.20, cake: $4.", 0, "$5.20"),
    "nearest to the question's words": ("May", "In May rain. The fair is in May.", 20, "May@28"),
    "not within a word": ("art", "The party is about art.", 0, "art@19"),
    "in another case": ("Blue door", "It has a blue door.", 0, "blue door"),
    "over a line break": ("New York", "She lives in New\nYork.", 0, "New\nYork"),
    "without the signs at its edges": ('"Lisbon".', "It moved to Lisbon in May.", 0, "Lisbon"),
    "the sentence with its end": ("It moved.", "It rained. It moved.", 0, "It moved."),
    "a word among characters without spaces": ("北京", "他在北京工作。", 0, "北京"),
    "accents": ("café Zoë", "at the café Zoë", 0, "café Zoë"),
    "a short word of another case is not cited": ("No", "There is no museum.", 0, None),
    "other words": ("in Porto", "It is in Lisbon.", 0, None),
    "a number within a longer one": ("186", "The code is 18682.", 0, None),
    "nothing": ("", "It is in Lisbon.", 0, None),
    "signs alone": ("...", "It is in Lisbon.", 0, None),
}


@pytest.mark.parametrize(("answer", "text", "near", "expected"), PLACES.values(), ids=PLACES)
def test_an_answer_is_found(answer, text, near, expected):
    """As whole words; @ gives the place where several would fit."""
    found = verbatim(answer, text, near)
    if expected is None:
        assert found is None
        return
    words, _, at = expected.partition("@")
    assert found is not None
    assert text[slice(*found)] == words
    assert not at or found[0] == int(at)


def asked(tmp_path, words, *texts, passage_tokens=256, **options):
    """An answer of these words about these texts, and the memory's documents by id."""
    engine = FakeEngine(reader=Says(words))
    with open_fake(tmp_path, engine, passage_tokens=passage_tokens) as memory:
        memory.add_many([Document(text, source=f"{n}.md") for n, text in enumerate(texts)])
        answer = memory.ask("Where is the museum?", **options)
        return answer, {d.id: d.text for d in memory.list()}


def test_a_span_is_of_the_document_not_of_the_passage(tmp_path):
    """The characters count from the beginning of the stored text."""
    text = " ".join(f"Line {n} of the report is here." for n in range(60))
    text += "\n\nThe museum is in Lisbon now."
    answer, texts = asked(tmp_path, "Lisbon", text, passage_tokens=32)
    (span,) = answer.spans
    assert (span.source, span.text, span.start) == ("0.md", "Lisbon", text.index("Lisbon"))
    assert texts[span.document_id][span.start : span.end] == "Lisbon"
    assert (answer.sources[0].answer_start, answer.sources[0].quote) == (span.start, "Lisbon")


def test_each_passage_that_holds_the_answer_has_one_span(tmp_path):
    """In the order of the sources."""
    answer, texts = asked(tmp_path, "Lisbon", "The museum is in Lisbon.", "Lisbon is sunny.")
    assert [span.document_id for span in answer.spans] == [
        source.document_id for source in answer.sources
    ]
    assert {texts[s.document_id][s.start : s.end] for s in answer.spans} == {"Lisbon"}


@pytest.mark.parametrize(
    ("words", "reader"), [("I don't know.", "memory"), ("in Porto", "memory"), ("Lisbon", "none")]
)
def test_what_is_not_verbatim_has_no_span(tmp_path, words, reader):
    """An abstention, other words, an answer that no passage was read for."""
    answer, _ = asked(tmp_path, words, "I don't know. The museum is in Lisbon.", reader=reader)
    assert answer.spans == []
