"""Short notes and twin recipes, with the default model: what is answered, and where it is from."""

from __future__ import annotations

import pytest

import cmt_sdk

pytestmark = pytest.mark.model

CAKE = """# Apple cake

200 g flour, 150 g butter, 140 g sugar, 3 eggs, 5 apples.

Put the apples on the dough. Bake at 175 degrees for 45 minutes and let it cool in the tin."""
BREAD = """# Sourdough

500 g flour, 350 g water, 100 g starter, 10 g salt.

Let it rest overnight. Bake with the lid for 20 minutes at 250 degrees, then without for 25 minutes."""
SHORT = {
    "Ilse Brandt repaired the Tervo lighthouse lamp in 1987.": {
        "Who repaired the Tervo lighthouse lamp?": "Ilse Brandt",
        "When was the Tervo lighthouse lamp repaired?": "1987",
    },
    "Ines Bouhired teaches pottery in the Kessel mill.": {
        "Who teaches pottery?": "Bouhired",
        "Where is pottery taught?": "Kessel",
    },
    "Teodor Nagy repairs accordions on Lark Street.": {
        "Who repairs accordions?": "Nagy",
        "What does Teodor Nagy repair?": "accordions",
    },
}


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """Two recipes and three notes of one sentence."""
    with cmt_sdk.open(tmp_path_factory.mktemp("everyday") / "notes") as opened:
        recipes = [
            cmt_sdk.Document(CAKE, source="cake.md"),
            cmt_sdk.Document(BREAD, source="bread.md"),
        ]
        opened.add_many([*recipes, *map(cmt_sdk.Document, SHORT)])
        yield opened


def test_notes_of_one_sentence_lose_nothing(memory):
    """Five of six questions at least: with a quarter of the entries kept it is three."""
    asked = {
        question: answer for questions in SHORT.values() for question, answer in questions.items()
    }
    said = {question: memory.model.ask(question).text for question in asked}
    right = [question for question, answer in asked.items() if answer in said[question]]
    assert len(right) >= 5, said


def test_the_time_of_one_recipe_is_not_that_of_another(memory):
    """Or the answer is not sure, and the document that it is from comes first."""
    answer = memory.model.ask("How long do I bake the apple cake?")
    first = answer.sources[0]
    assert (first.quote or "").rstrip(".") == answer.text.rstrip(".")
    assert ("45" in answer.text and first.source == "cake.md") or (
        answer.confidence < 0.6 and first.source == "bread.md"
    )
