"""Questions in a conversation: what earlier turns add to a search, and what is left out of long
ones.
"""

from dataclasses import dataclass, field

import pytest

from cmt_sdk import Turn
from cmt_sdk.errors import InvalidInput
from cmt_sdk.retrieval.context import (
    EXCHANGES,
    MESSAGE_CHARACTERS,
    QUERY,
    REPLY_CHARACTERS,
    Exchange,
    as_passages,
    exchanges,
    recent_turns,
    shortened,
    system_turns,
)
from cmt_sdk.retrieval.question import LONGEST_QUESTION
from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake
from cmt_sdk.types import Piece, Usage

NOTES = [
    "The museum moved to Lisbon in 2019.",
    "The harbour of Genoa opens at nine.",
    "Clara works as a nurse in Lyon.",
    "The orchard has sixty pear trees.",
    "The library was closed after a flood.",
]
STORY = "Today we walked along the river and met a miller with a red cart. " * 4


def talk(*pairs):
    """User and assistant in turn."""
    return [
        Turn(role, text)
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=False)
    ]


@dataclass
class Listening(FakeReader):
    """A reader that records the prompts it reads."""

    prompts: list = field(default_factory=list)

    def read(self, prompt, max_tokens):
        """Answer as the other one does."""
        self.prompts.append(prompt)
        return super().read(prompt, max_tokens)


@pytest.fixture
def reader():
    return Listening()


@pytest.fixture
def memory(tmp_path, reader):
    with open_fake(tmp_path / "notes", FakeEngine(reader=reader)) as opened:
        opened.add_many(NOTES)
        yield opened


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], []),
        (talk(("Where?", "Here.")), [Exchange("Where?", "Here.")]),
        (talk(("One?", "1."), ("Two?", "2.")), [Exchange("Two?", "2."), Exchange("One?", "1.")]),
        (
            [Turn("user", "One,"), Turn("user", "two?"), Turn("assistant", "3.")],
            [Exchange("One,\ntwo?", "3.")],
        ),
        ([Turn("assistant", "Hello!")], [Exchange("", "Hello!")]),
        ([Turn("system", "Be brief."), Turn("tool", "{}"), Turn("user", " ")], []),
        (talk(("Who?", "I don't know.")), [Exchange("Who?", unanswered=True)]),
        ([Turn("user", "a\0b\ud800")], [Exchange("a\ufffdb\ufffd", "")]),
    ],
)
def test_messages_become_exchanges(history, expected):
    """Latest first; a reply that knows nothing names no subject; no text holds what no text may
    hold.
    """
    assert exchanges(history) == expected


def test_long_and_many_messages_are_cut():
    """The latest exchanges count, and of each no more than can be searched and read."""
    long = [
        Turn("system", "x" * 90_000),
        *talk(*[(f"{n} " + "a" * 9_000, "b" * 9_000) for n in range(40)]),
    ]
    found = exchanges(long)
    assert len(found) == EXCHANGES
    assert found[0].message.startswith("39 aaa")
    assert max(len(e.message) for e in found) <= MESSAGE_CHARACTERS
    assert max(len(e.reply) for e in found) <= REPLY_CHARACTERS
    assert len(system_turns(long)[0].content) < 2_000
    assert sum(len(t.content) for t in recent_turns(long)) < 20_000
    assert as_passages(long)[0].startswith("xxx")


@pytest.mark.parametrize(("text", "most"), [("a" * 30 + "?", 12), ("x" * 99, 10), (" short ", 9)])
def test_the_middle_of_a_long_text_is_left_out(text, most):
    """Its start stays, and more of its end, where a question mostly stands."""
    cut = shortened(text, most)
    assert len(cut) <= most
    assert (cut[0], cut[-1]) == (text.strip()[0], text.strip()[-1])


@pytest.mark.parametrize("before", ["Hm.", STORY, STORY * 4, STORY * 12])
def test_a_question_that_says_what_it_is_about_finds_it_after_any_talk(memory, before):
    """What was said before is not put before it."""
    question = "Which harbour opens at nine?"
    alone = memory.search(question, 1, history=[])
    assert memory.search(question, 1, history=talk((before, "I don't know."))) == alone
    answer = memory.model.ask(question, history=talk((before, "I don't know.")))
    assert answer.text == memory.model.ask(question).text == NOTES[1]


@pytest.mark.parametrize("back", range(5))
def test_a_question_that_is_short_of_its_subject_finds_it(memory, back):
    """In the exchange before, also where the user only thanked since."""
    said = talk(("Which library was closed?", "The old one."), *[("Oh!", "Ha.")] * back)
    assert memory.search("Why?", 1, history=said)[0].passage.text == NOTES[4]


def test_an_answer_names_a_subject_too(memory):
    """The user's words need not."""
    assert (
        memory.search("How?", 1, history=talk(("Tell me of one", "Clara, a nurse")))[0].passage.text
        == NOTES[2]
    )


def test_the_reader_sees_the_exchange_that_the_question_leans_on(memory, reader):
    """And no other one; none before a question that stands by itself."""
    said = talk(("Which library was closed?", "The old one."), ("Oh!", "Ha."))
    memory.model.ask("Why?", history=said)
    assert list(reader.prompts[0].history) == said[:2]
    memory.model.ask("Which harbour opens at nine?", history=said)
    assert not reader.prompts[-1].history


def test_the_rules_of_a_conversation_are_read(memory, reader):
    """A system prompt comes first, whatever the question."""
    memory.model.ask("Which harbour opens?", history=[Turn("system", "Be brief.")])
    assert list(reader.prompts[-1].history) == [Turn("system", "Be brief.")]


@pytest.mark.parametrize(
    ("history", "question", "expected"),
    [
        (talk(("My name is Ann.", "Hello Ann!")), "What is my name?", "My name is Ann."),
        (
            talk(("The locker is number 12.", "Noted."), ("Thanks", "Yes")),
            "Which locker?",
            "The locker is number 12.",
        ),
        (
            [Turn("system", "You are a guide. The tour begins at noon.")],
            "When is the tour?",
            "The tour begins at noon.",
        ),
        ([Turn("system", "You are a guide.")], "What colour?", "I don't know."),
        (talk(("My name is Ann.", "Hello Ann!")), "Which colour?", "I don't know."),
        ([], "What is my name?", "I don't know."),
    ],
)
def test_where_nothing_is_found_the_conversation_is_read(tmp_path, history, question, expected):
    """An empty memory does not make deaf; nor does a filter that nothing fits."""
    with open_fake(tmp_path / "notes") as memory:
        answer = memory.model.ask(question, history=history)
        assert (answer.text, answer.abstained) == (expected, expected == "I don't know.")
        assert answer.sources == []
        memory.add("The harbour opens at nine.")
        assert memory.model.ask(question, history=history, scope="bob").text == expected
        assert memory.chat(scope="bob").say(question).text == "I don't know."


def test_what_was_told_in_the_conversation_is_read_where_the_memory_does_not_tell(memory):
    """Also in pieces: of "I don't know." nothing is shown. What neither tells stays unknown; a
    question is no answer.
    """
    as_passages = talk(
        ("My bicycle is called Rosinante.", "Nice."), ("Which spokes?", "I don't know.")
    )
    running = memory.model.ask("Which bicycle?", history=as_passages, stream=True)
    assert "".join(running).strip() == running.answer.text == "My bicycle is called Rosinante."
    assert (running.answer.sources, running.answer.abstained) == ([], False)
    for question in ("Which spokes?", "Which colour?"):
        running = memory.model.ask(question, history=as_passages, stream=True)
        assert "".join(running).strip() == running.answer.text == "I don't know."
        assert running.answer.abstained


def test_an_answer_that_ends_with_not_knowing_stays_as_it_was_shown(memory, reader, monkeypatch):
    """Its first words were shown: the conversation is not read in its place."""

    def read(_prompt, _tokens):
        yield from (Piece("Blue."), Piece(" I don't know."), Piece("", Usage(1, 5, 0.9, 0, 0, 0)))

    monkeypatch.setattr(reader, "read", read)
    history = talk(("My bicycle is called Rosinante.", "Nice."))
    running = memory.model.ask("Which colour has the harbour?", history=history, stream=True)
    assert "".join(running) == running.answer.text == "Blue. I don't know."


@pytest.mark.parametrize("size", [LONGEST_QUESTION + 1, 27_000, 200_000])
def test_a_long_message_is_cut_in_a_conversation(memory, reader, size):
    """Its middle is left out; what was said before it has a limit of its own. A lone question is
    refused.
    """
    message = "Read this: " + ("word " * size)[:size] + " Which harbour opens?"
    assert memory.model.ask(message, history=[]).text == NOTES[1]
    assert len(reader.prompts[-1].question) < 5_000
    assert (
        memory.model.ask("Which harbour opens?", history=talk((message, message))).text == NOTES[1]
    )
    assert memory.search(message, 1, history=[])[0].passage.text == NOTES[1]
    assert memory.chat().say(message).text == NOTES[1]
    with pytest.raises(InvalidInput, match=r"the limit is 20,000"):
        memory.model.ask(message)


def test_a_message_in_a_dense_script_is_cut_by_its_tokens(memory, reader):
    """Four thousand characters can be ten thousand tokens."""
    memory.model.ask("字 " * 4_000 + "Which harbour opens?", history=[])
    assert len(reader.prompts[-1].question.split()) <= 1_000


def test_a_long_conversation_costs_no_more_searches(memory):
    """Turns beyond the latest ones are not looked at."""
    seen = []
    search = memory._store.search_text
    memory._store.search_text = lambda query, *rest: (
        seen.append(len(query)),
        search(query, *rest),
    )[1]
    memory.model.ask("Which harbour?", history=talk(*[(STORY, STORY)] * 400))
    assert len(seen) == 1 + EXCHANGES
    assert max(seen) <= QUERY
