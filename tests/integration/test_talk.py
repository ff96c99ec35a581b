"""Questions after talk, with the default model: found and read as if alone, or with the one
exchange that they lean on.
"""

import pytest

import cmt_sdk
from cmt_sdk import Turn
from tests.everyday import talk as data

pytestmark = pytest.mark.model


def turns(exchanges):
    """Exchanges as messages."""
    return [
        Turn(role, text)
        for pair in exchanges
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    with cmt_sdk.open(tmp_path_factory.mktemp("talk") / "memory") as opened:
        opened.add_many([cmt_sdk.Document(text) for text in data.NOTES])
        yield opened


def test_a_question_is_answered_after_talk_as_it_is_alone(memory):
    """What was said before changes neither what is read nor the answer."""
    for question, _ in data.ALONE[1::8]:
        alone = memory.model.ask(question)
        after = memory.model.ask(question, history=turns(data.talk(2_900, held=True)))
        assert (after.text, [s.text for s in after.sources]) == (
            alone.text,
            [s.text for s in alone.sources],
        )


def test_a_follow_up_finds_its_subject(memory):
    """One and eight exchanges back: the note that tells is among those that are read, and comes
    first for most.
    """
    ranks = []
    for at, (_, _, question, told, _) in list(enumerate(data.FOLLOW_UPS))[1::5]:
        for back in (1, 8):
            found = memory.search(question, 5, history=turns(data.follow_up(at, back)))
            ranks.append(next((n for n, m in enumerate(found) if told in m.passage.text), None))
    assert sum(r is not None for r in ranks) >= 0.9 * len(ranks)
    assert sum(r == 0 for r in ranks) >= 0.7 * len(ranks)


def test_a_conversation_tells_what_no_document_does(tmp_path):
    """With an empty memory; what it does not tell stays unknown."""
    said = turns([("My name is Ann.", "Hello Ann!")])
    rules = [Turn("system", "You are a guide in Ghent. The tour begins at noon.")]
    with cmt_sdk.open(tmp_path / "memory") as memory:
        assert "Ann" in memory.model.ask("What is my name?", history=said).text
        assert "noon" in memory.model.ask("When does the tour begin?", history=rules).text
        assert memory.model.ask("What is my shoe size?", history=said).abstained
