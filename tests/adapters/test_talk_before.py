"""What was said before a question, in every adapter: it is searched by itself, and no length ends
what the memory serves.
"""

import pytest
from langchain.agents import create_agent
from llama_index.core.base.llms.types import ChatMessage

from cmt_adapters.langchain_agent import ChatCMT, CMTMiddleware
from cmt_adapters.llama_index import CMTMemoryBlock
from cmt_sdk.testing.fakes import open_fake
from tests.adapters.test_langchain_agent import model, notes

FACTS = [
    "The museum moved to Lisbon in 2019.",
    "The harbour of Genoa opens at nine.",
    "Ann likes green tea.",
]
STORY = "Today we walked along the river and met a miller with a red cart. " * 4
REPORT = "Please sum up this report. " + "The river runs past the mill. " * 900
HALF = "The weir has gates. " * 600

TALK = [
    ("a story", [("user", STORY), ("assistant", "I see.")]),
    ("a long report", [("user", REPORT), ("assistant", "It runs.")]),
    ("two long messages", [("user", HALF), ("user", HALF), ("assistant", "Gates.")]),
    ("an answer without a question", [("assistant", "How can I help?")]),
    ("what no text may hold", [("user", "a\0b\ud800"), ("assistant", "\0")]),
]


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        opened.add_many(FACTS)
        yield opened


def first_note(memory, talk):
    """What the middleware puts before the last message."""
    listening = model("Yes.")
    create_agent(listening, middleware=[CMTMiddleware(memory, k=1, remember=())]).invoke(
        {"messages": talk}
    )
    return notes(listening.heard[0])


async def first_of_block(memory, talk):
    """What the memory block gives, without the line above it."""
    found = await CMTMemoryBlock(memory=memory, k=1).aget(
        [ChatMessage(role=r, content=t) for r, t in talk]
    )
    return found[0].content.split("\n")[1].strip('"')


@pytest.mark.parametrize("before", [t for _, t in TALK], ids=[n for n, _ in TALK])
async def test_a_question_is_found_after_any_talk(memory, before):
    """By the middleware, the memory block and the chat model."""
    talk = [*before, ("user", "Where did the museum move?")]
    assert first_note(memory, talk) == [FACTS[0]]
    assert await first_of_block(memory, talk) == FACTS[0]
    assert ChatCMT(memory=memory).invoke(talk).content == FACTS[0]


@pytest.mark.parametrize(
    "message", [REPORT, HALF * 2, STORY * 500], ids=["report", "two halves", "130,000 characters"]
)
async def test_a_long_message_ends_nothing(memory, message):
    """What is searched and read of it is its start and its end."""
    talk = [("user", message + " Where did the museum move?")]
    assert first_note(memory, talk) == [FACTS[0]]
    assert await first_of_block(memory, talk) == FACTS[0]
    assert ChatCMT(memory=memory).invoke(talk).content == FACTS[0]


@pytest.mark.parametrize("questions", [1, 2, 12])
async def test_a_block_looks_back_as_far_as_it_is_told(memory, questions):
    """`questions` are the user's last messages that count, the question among them."""
    said = [
        ("user", "Which harbour opens?"),
        ("assistant", "Genoa's."),
        ("user", "Hm"),
        ("assistant", "Ha"),
        ("user", "And?"),
    ]
    block = CMTMemoryBlock(memory=memory, k=1, questions=questions)
    (found,) = await block.aget([ChatMessage(role=r, content=t) for r, t in said])
    assert (FACTS[1] in found.content) is (questions == 12)
