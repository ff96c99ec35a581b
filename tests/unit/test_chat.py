"""A turn of a conversation: kept where it tells, answered where it asks, erased after a yes."""

import numpy as np
import pytest

from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake
from cmt_sdk.text import fixed_replies
from cmt_sdk.text.prompt_messages import UNKNOWN
from cmt_sdk.types import Piece, Turn, Usage
from cmt_sdk.understanding.utterances import LABELS

NUMBER = "My phone number is 555 0134."


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as made:
        yield made


def texts(memory):
    return [d.text for d in memory.documents()]


def test_what_is_told_is_kept_and_said_back(memory):
    """Not "I don't know.": the reply says what was kept."""
    answer = memory.chat(remember=True).say("I live in Berlin.")
    assert (answer.text, answer.abstained) == ("Noted: “I live in Berlin.”", False)
    assert texts(memory) == ["I live in Berlin."]


def test_what_is_told_is_kept_before_a_piece_of_the_reply(memory):
    """A reply that nobody reads loses nothing."""
    chat = memory.chat(remember=True)
    chat.stream("I live in Berlin. Where is the museum?")
    assert texts(memory) == ["I live in Berlin."]
    assert chat.turns == []


def test_what_tells_and_asks_is_kept_and_answered(memory):
    """The part that asks is answered from memory, and is not kept."""
    memory.add("The museum moved to Lisbon.")
    answer = memory.chat(remember=True).say("I live in Berlin. Where did the museum move?")
    assert answer.text == "Noted.\n\nThe museum moved to Lisbon."
    assert texts(memory) == ["The museum moved to Lisbon.", "I live in Berlin."]


def test_a_sentence_that_tells_and_seems_to_ask_is_acknowledged(tmp_path):
    """Where the memory has no answer: "I don't know." is no reply to a statement."""

    class Doubtful(FakeEngine):
        def intent_scores(self, texts):
            names = ("asks", "tells")
            return np.array([[1.0 if n in names else -1.0 for n in LABELS.values()] for _ in texts])

    with open_fake(tmp_path / "notes", Doubtful()) as memory:
        memory.add("Ann likes tea.", source="a.md")
        answer = memory.chat(remember=True, where={"never": 1}).say("I live in Berlin.")
    assert answer.text == "Noted: “I live in Berlin.”"


def test_a_statement_without_remember_claims_nothing(memory):
    """It is heard, and nothing is added."""
    chat = memory.chat()
    assert chat.say("I live in Berlin.").text == fixed_replies.HEARD
    assert chat.say(f"Forget that {NUMBER}").text == fixed_replies.UNCHANGED
    assert memory.count() == 0


def test_small_talk_is_answered_by_the_bare_model(tmp_path):
    """By its own template, without notes; and it is not kept."""
    prompts = []

    class Listening(FakeReader):
        def read(self, prompt, max_tokens):
            prompts.append(prompt)
            return super().read(prompt, max_tokens)

    with open_fake(tmp_path / "notes", FakeEngine(reader=Listening())) as memory:
        memory.add("I keep bees.")
        memory.chat(remember=True).say("Hello there!")
        assert texts(memory) == ["I keep bees."]
    assert [(p.talk, p.notes, p.memories) for p in prompts] == [(True, False, ())]


def test_a_message_longer_than_a_question_may_be_is_kept_answered_and_forgotten(memory):
    """Of what is searched and read the middle is left out; the note is kept whole."""
    chat = memory.chat(remember=True)
    statement = "I live in Berlin and like tea. " * 1_000
    assert chat.say(statement).text.startswith("Noted: “I live in Berlin")
    assert texts(memory) == [statement.strip()]
    assert fixed_replies.ASSENT in chat.say(f"Forget that {statement}").text
    chat.say("Generate a title for this. " + statement)
    assert chat.heard.intent.machine
    assert len(memory.search(statement, history=[])) == 5


def test_a_machine_prompt_is_not_kept(memory):
    """A front end's request for a title, with the dialogue in it."""
    memory.chat(remember=True).say("Generate a title.\nUSER: I live in Berlin.")
    assert memory.count() == 0


def test_the_same_turn_sent_again_is_one_document(memory):
    """As front ends do after a failure."""
    for _ in range(2):
        memory.chat(remember=True, scope="user/ann").say(NUMBER)
    assert texts(memory) == [NUMBER]


def test_forgetting_asks_first_and_names_what_goes(memory):
    """The next turn erases; what said it is no part of later questions; the request is not kept."""
    chat = memory.chat(remember=True)
    chat.say(NUMBER)
    chat.say("I live in Berlin.")
    assert chat.say("Forget my phone number.").text == fixed_replies.confirmation([NUMBER])
    assert NUMBER in texts(memory)
    answer = chat.say("Yes.")
    assert answer.text == "Erased: 1 text; no trace is left."
    assert chat.heard.receipts[0].traces_found == 0
    assert texts(memory) == ["I live in Berlin."]
    assert not any(NUMBER in turn.content for turn in chat.turns)
    assert [t.content for t in chat.turns if t.role == "user"] == ["I live in Berlin.", "Yes."]


def test_what_was_erased_is_not_read_from_the_turns_that_a_client_sends(memory):
    """It sends back all that was said, the erased text too."""
    said = [NUMBER, "I live in Berlin.", "Forget my phone number.", "Yes."]
    turns = []
    for text in said:
        reply = memory.chat(remember=True, turns=turns).say(text).text
        turns += [Turn("user", text), Turn("assistant", reply)]
    left = memory.chat(remember=True, turns=turns).turns
    assert not any("555" in turn.content for turn in left)
    assert "I live in Berlin." in [turn.content for turn in left]


@pytest.mark.parametrize(
    "reply", ["Hello?", "Thanks", "I live in Rome.", "What is my phone number?"]
)
def test_without_a_yes_nothing_is_erased(memory, reply):
    """Whatever else the next turn is; and a yes after it is only a yes."""
    chat = memory.chat(remember=True)
    chat.say(NUMBER)
    chat.say("Forget my phone number.")
    chat.say(reply)
    chat.say("Yes.")
    assert NUMBER in texts(memory)


def test_a_yes_is_understood_from_the_turns_alone(memory):
    """As a client of OpenAI's API sends them: the conversation object is new each time."""
    memory.chat(remember=True).say(NUMBER)
    asked = [Turn("user", "Forget my phone number.")]
    question = memory.chat(remember=True).say(asked[0].content).text
    turns = [Turn("system", "Be brief."), *asked, Turn("assistant", question)]
    assert memory.chat(remember=True, turns=turns).say("Yes.").text.startswith("Erased")
    assert memory.count() == 0


def test_what_was_not_named_is_not_erased(memory):
    """The question named something else than what is found now."""
    memory.chat(remember=True).say(NUMBER)
    turns = [
        Turn("user", "Forget my phone number."),
        Turn("assistant", fixed_replies.confirmation(["Another."])),
    ]
    memory.chat(remember=True, turns=turns).say("Yes.")
    assert texts(memory) == [NUMBER]


def test_only_what_was_told_in_this_scope_is_forgotten(memory):
    """Not another user's words, and no file."""
    memory.add(NUMBER, source="phone.md")
    memory.add(
        "My phone number is 555 9999.", scope="user/bob", source="chat", metadata={"role": "user"}
    )
    said = memory.chat(remember=True, scope="user/ann").say("Forget my phone number.").text
    assert said == fixed_replies.CONCERNS_NOTHING
    memory.chat(remember=True).say("Forget my phone number.")
    assert memory.count() == 2


def test_a_long_statement_is_quoted_in_one_line():
    """And cut."""
    said = fixed_replies.noted("I live\nin " + "a very " * 40 + "small house.")
    assert said.startswith("Noted: “I live in a very")
    assert said.endswith("…”")
    assert len(said) <= fixed_replies.QUOTED + len("Noted: “”")


def test_what_a_statement_takes_the_place_of_is_named():
    """With its words."""
    said = fixed_replies.noted("I live in Berlin now.", ["I live in Paris."])
    assert said == "Noted: “I live in Berlin now.” Before: “I live in Paris.”"


@pytest.mark.parametrize(
    ("asked", "knows"),
    [("Who built the organ of Visby?", False), ("Who painted the Mona Lisa?", True)],
)
def test_what_own_notes_name_is_not_asked_of_the_world(tmp_path, monkeypatch, asked, knows):
    """The bare model answers a question about the world where the memory has no answer."""

    class World(FakeEngine):
        def intent_scores(self, texts):
            names = ("asks", "general")
            return np.array([[1.0 if n in names else -1.0 for n in LABELS.values()] for _ in texts])

    def read(_reader, prompt, _tokens):
        yield Piece(UNKNOWN if prompt.notes else "A guess.")
        yield Piece("", Usage(1, 1, 0.5, 0.0, 0.0, 0.0))

    monkeypatch.setattr(FakeReader, "read", read)
    with open_fake(tmp_path / "notes", World()) as memory:
        memory.add("the one in Visby has 38 stops")
        answer = memory.chat().say(asked)
    assert answer.text == ("A guess." if knows else UNKNOWN)
