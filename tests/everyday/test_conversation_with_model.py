"""Conversations with the default model: what messages want, and what their replies are."""

import numpy as np
import pytest

import cmt_sdk
from cmt_sdk.text import fixed_replies
from cmt_sdk.understanding.intent import understand
from tests.fit_probe import accuracy, held_out

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    with cmt_sdk.open(tmp_path_factory.mktemp("talk") / "notes") as made:
        yield made


@pytest.fixture
def chat(memory, request):
    """A conversation in a scope of its own."""
    return memory.chat(remember=True, scope=f"test/{request.node.name.replace('[', '-')[:40]}")


def kept(memory, chat):
    return [d.text for d in memory.documents(scope=chat._options["scope"])]


@pytest.fixture(scope="module")
def scores(memory):
    """Scores of each held-out message, by its text; the model reads each once."""
    texts = [u.text for u in held_out()]
    return dict(zip(texts, memory._retriever.intent_scores(texts), strict=True))


def test_messages_that_no_probe_was_fitted_to(scores):
    """210 messages in nine languages, of other topics and wordings: 0.94 to 1.0 a label."""
    found = accuracy(np.stack([scores[u.text] for u in held_out()]), held_out())
    assert min(found.values()) > 0.92
    assert found["tells"] > 0.96


def test_what_is_kept_of_messages_that_no_probe_was_fitted_to(memory, scores):
    """What tells something, and nothing else; 87 of the first 172 before, when a question mark
    decided.
    """

    def judge(texts):
        return np.stack(
            [scores[t] if t in scores else memory._retriever.intent_scores([t])[0] for t in texts]
        )

    right = [understand(u.text, judge).tells == bool(u.labels & {"tells"}) for u in held_out()]
    assert sum(right) >= 198


def test_a_conversation(memory, chat):
    """Told, asked back, thanked for: no "I don't know." but to what was told nowhere."""
    assert chat.say("My boat is called Pelican.").text == "Noted: “My boat is called Pelican.”"
    assert chat.say("Can you remember that my locker is number 12?").text.startswith("Noted")
    assert "Pelican" in chat.say("what is my boat called").text
    assert "12" in chat.say("Tell me the number of my locker.").text
    for said in ("Hi!", "Thanks!", "How are you?", "Merci !"):
        reply = chat.say(said)
        assert not reply.abstained
        assert 0 < len(reply.text.split()) < 40
        assert "Pelican" not in reply.text
    assert chat.say("Where does my sister live?").abstained
    assert kept(memory, chat) == [
        "My boat is called Pelican.",
        "Can you remember that my locker is number 12?",
    ]


def test_forgetting_in_words(memory, chat):
    """It names what it means and nothing else, and erases after a yes."""
    chat.say("My phone number is 555 0134.")
    chat.say("I hate olives.")
    question = chat.say("Please delete everything you know about my phone.").text
    assert question == fixed_replies.confirmation(["My phone number is 555 0134."])
    assert chat.say("Yes, please.").text.startswith("Erased: 1 text")
    assert "555" not in chat.say("What is my phone number?").text
    assert kept(memory, chat) == ["I hate olives."]


def test_what_is_forgotten_is_what_the_request_names(memory, chat):
    """Not the note that shares more words with it."""
    chat.say("The alarm code for the bakery is 6120.")
    chat.say("The strongbox at work opens with 8854, only Ida and I know that.")
    question = chat.say("Please forget the code of the strongbox.").text
    assert "8854" in question
    assert "6120" not in question
    assert chat.say("No, leave it.").text == fixed_replies.STAYS


@pytest.mark.parametrize(
    "said",
    [
        "what colour is my car",
        "When did Dr. Lee call?",
        "Tell me my name.",
        "What is my name? Thanks",
        "ok",
        "lol",
        "exit",
        "### Task:\nGenerate 1-3 tags for the chat.\n### Chat History:\nUSER: My name is Ann.",
        "Human: Where do I live?\nAI: In Paris.\nHuman: Thanks.",
    ],
)
def test_what_tells_nothing_is_not_kept(memory, said):
    """Whatever its punctuation, whoever wrote it."""
    assert memory.understand(said).statement == ""


@pytest.mark.parametrize(
    "said",
    [
        "Can you remember that my boat is called Pelican?",
        "My flight is on Friday at nine, ok?",
        "Did you know that I am allergic to walnuts?",
        "Could you note that the key is under the mat?",
        "Would you please keep in mind that I am vegetarian?",
        "You know I hate olives, right?",
        "I just got the job at the library, isn't that great?",
        "My name is Ann, what is yours?",
        "Correction: my old flat was in Milan, not Rome.",
        "No, that is wrong, my password hint is green.",
    ],
)
def test_what_tells_is_kept(memory, said):
    """Also where it ends with a question mark."""
    assert memory.understand(said).statement == said
