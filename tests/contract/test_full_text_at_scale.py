"""Full-text search of a large memory scores the rows of the rarest words alone: what it finds first
is what scoring every row finds.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmt_sdk.storage import full_text
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.types import Document, Filter, Hit, Span
from tests.contract.stores import Clock

COMMON = ["the", "of", "in", "and", "a", "to", "was", "it"]
WORDS = [
    f"{a}{b}{c}" for a in "bdgklm" for b in ("ar", "el", "in", "or") for c in ("ta", "ne", "mi")
]


@pytest.fixture
def store(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteStore]:
    """A store of 400 documents in 40 scopes that takes itself for a large one."""
    opened = SQLiteStore(tmp_path / "notes", clock=clock)
    chance = random.Random(5)
    documents = []
    for n in range(400):
        words = [*chance.choices(COMMON, k=8), *chance.choices(WORDS, k=chance.randrange(4, 12))]
        if n % 8 == 0:
            words.append("quidnunc")
        body = " ".join(words)
        document = Document(body, id=f"d{n}", scope=f"user/{n % 40}", metadata={"odd": n % 2 == 1})
        documents.append((document, [Span(0, len(body), len(words))]))
    opened.add_together(documents)
    monkeypatch.setattr(full_text, "ROWS", 60)
    monkeypatch.setattr(full_text, "ROWS_OF_FEW", 120)
    yield opened
    opened.close()


def of_all(store: SQLiteStore, query: str, limit: int, filter: Filter) -> list[Hit]:
    """What scoring every row finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_text, "ROWS", 10**6)
        patch.setattr(full_text, "ROWS_OF_FEW", 10**6)
        return store.search_text(query, limit, filter)


@pytest.mark.parametrize(
    "query", ["the quidnunc of barta", "was it in kelmi or dorne", "morta the"]
)
def test_the_best_are_those_of_a_search_through_every_row(store, query):
    """In the same order, with the same scores: common words count where a rare one stands too."""
    found = store.search_text(query, 10, Filter())[:5]
    every = of_all(store, query, 10, Filter())[:5]
    assert [h.passage_id for h in found] == [h.passage_id for h in every]
    assert [h.score for h in found] == pytest.approx([h.score for h in every])


@pytest.mark.parametrize(
    "filter", [Filter(scope="user/8"), Filter(scope="user"), Filter(where={"odd": True})]
)
def test_the_best_of_a_filter_are_those_of_a_search_through_every_row(store, filter):
    """Of few documents and of many."""
    found = store.search_text("the quidnunc of barta in kelmi", 5, filter)
    every = of_all(store, "the quidnunc of barta in kelmi", 5, filter)
    assert found[0].passage_id == every[0].passage_id
    assert {h.passage_id for h in every} >= {found[0].passage_id}
    scores = {
        h.passage_id: h.score for h in of_all(store, "the quidnunc of barta in kelmi", 400, filter)
    }
    assert [h.score for h in found] == pytest.approx([scores[h.passage_id] for h in found])


def test_words_that_only_other_scopes_have_do_not_hide_what_a_scope_has(store):
    """The rare word is outside the scope: its common words are searched then."""
    found = store.search_text("quidnunc was the", 5, Filter(scope="user/1"))
    assert len(found) == 5
    passages = store.passages([h.passage_id for h in found])
    assert {d.scope for _, d in passages.values()} == {"user/1"}


def test_a_question_of_common_words_alone_finds_passages(store):
    """There is no rare word to begin with."""
    assert len(store.search_text("what was it", 10, Filter())) == 10


def test_a_scope_holds_those_below_it_and_no_namesakes(store):
    """Those of "user/1" have its name, or it and a "/" before theirs."""
    for name in ("user/1", "user/1/x", "user/1!", "user/10", "user/1-a"):
        store.add(Document("The zanzibar.", scope=name, id=name), [Span(0, 13, 2)])
    found = store.search_text("zanzibar", 10, Filter(scope="user/1"))
    passages = store.passages([h.passage_id for h in found])
    assert sorted(d.id for _, d in passages.values()) == ["user/1", "user/1/x"]
    assert len(store.choose(Filter(scope="user/1"))) == 12
