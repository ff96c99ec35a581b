"""The session for the OpenAI Agents SDK: the same answers as the SDK's own SQLite session, and what
was said is recalled.
"""

import asyncio
import builtins
import importlib
import json
import runpy
import sys
import tempfile
from pathlib import Path

import pytest
from agents import (
    Agent,
    ModelResponse,
    RunConfig,
    Runner,
    Session,
    SessionSettings,
    SQLiteSession,
    Usage,
)
from agents.models.interface import Model
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from cmt_adapters.langchain_agent import CMTChatMessageHistory
from cmt_adapters.openai_agents import CMTSession
from cmt_sdk.errors import InvalidDocument, MissingExtra
from cmt_sdk.testing.fakes import open_fake


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        yield opened


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.just("x\ud83d\0")
)
deep = st.recursive(
    scalars,
    lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=3), s, max_size=3),
    max_leaves=6,
)
parts = st.lists(
    st.fixed_dictionaries({"type": st.just("output_text"), "text": st.text(max_size=6)}) | deep,
    max_size=2,
)
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]),
        "content": st.text(max_size=6) | parts,
    },
    optional={"type": st.just("message"), "id": st.text(max_size=4)},
)
items = messages | st.dictionaries(
    st.sampled_from(["type", "role", "call_id", "output", ""]), deep, max_size=4
)
steps = st.lists(
    st.tuples(st.just("add_items"), st.lists(items, max_size=4))
    | st.tuples(st.just("get_items"), st.none() | st.integers(-2, 6))
    | st.just(("pop_item",))
    | st.just(("clear_session",)),
    max_size=10,
)


async def told(session, steps):
    """What a session answers to every step."""
    return [await getattr(session, name)(*arguments) for name, *arguments in steps]


@pytest.mark.parametrize("limit", [None, 2])
@settings(  # no shrinking: it takes minutes with a disk beneath
    max_examples=20,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(steps=steps)
def test_the_same_steps_have_the_same_results_as_in_the_sdks_session(limit, steps):
    """Items come back exactly, in order, with limits and pops; another session in the same scope is
    another conversation.
    """
    limits = SessionSettings(limit=limit)
    with tempfile.TemporaryDirectory() as folder, open_fake(Path(folder) / "notes") as memory:
        mine = CMTSession("a", memory, scope="user/ann", session_settings=limits)
        other = CMTSession("b", memory, scope="user/ann")
        beneath = CMTSession("a", memory, scope="user/ann/b")
        theirs = SQLiteSession("a", session_settings=limits)
        for session in (other, beneath):
            asyncio.run(session.add_items([{"role": "user", "content": "Hello."}]))
        assert asyncio.run(told(mine, steps)) == asyncio.run(told(theirs, steps))
        assert asyncio.run(mine.get_items(100)) == asyncio.run(theirs.get_items(100))
        for session in (other, beneath):
            assert asyncio.run(session.get_items()) == [{"role": "user", "content": "Hello."}]
        theirs.close()


def test_it_is_a_session_to_the_sdk(memory):
    """The runner asks for the protocol."""
    assert isinstance(CMTSession("7", memory), Session)
    assert CMTSession("a/7", memory).scope == "session/a%2F7"


async def test_a_conversation_outlives_the_process(tmp_path):
    """Opened again over the same folder, a session goes on."""
    said = [
        {"role": "user", "content": "Hello."},
        {"type": "function_call", "call_id": "1", "arguments": "{}"},
    ]
    with open_fake(tmp_path / "notes") as memory:
        await CMTSession("7", memory).add_items(said)
    with open_fake(tmp_path / "notes") as memory:
        assert await CMTSession("7", memory).get_items() == said


async def test_what_was_said_is_recalled_in_the_scope_and_above(memory):
    """By words and meaning, from what the user and the assistant said; calls of tools have no words
    to be found by.
    """
    session = CMTSession("7", memory, scope="user/ann/session/7", wait=True)
    await session.add_items(
        [
            {"role": "user", "content": "I moved to Lisbon."},
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Lisbon has lovely trams."}],
            },
            {"type": "function_call_output", "call_id": "1", "output": "Lisbon: 22 degrees"},
        ]
    )
    found = memory.search("Lisbon", scope="user/ann", mode="text")
    assert {m.passage.text for m in found} == {"I moved to Lisbon.", "Lisbon has lovely trams."}
    assert {m.document.metadata["role"] for m in found} == {"user", "assistant"}
    assert memory.model.ask("Who moved where?", scope="user/ann").text == "I moved to Lisbon."


async def test_clearing_leaves_other_documents_of_the_scope(memory):
    """Only the items of the session go."""
    memory.add("Ann likes tea.", scope="user/ann")
    session = CMTSession("7", memory, scope="user/ann")
    await session.add_items([{"role": "user", "content": "Hello."}])
    await session.clear_session()
    assert [d.text for d in memory.documents()] == ["Ann likes tea."]


async def test_a_langchain_history_of_the_same_name_is_another_conversation(memory):
    """In the same scope too: neither gives, pops or clears what the other one keeps."""
    session, history = CMTSession("7", memory), CMTChatMessageHistory("7", memory)
    history.add_messages([HumanMessage("I moved to Lisbon.")])
    await session.add_items([{"role": "user", "content": "Hello."}])
    assert await session.get_items() == [{"role": "user", "content": "Hello."}]
    assert [m.content for m in history.messages] == ["I moved to Lisbon."]
    await session.clear_session()
    assert await session.pop_item() is None
    assert [m.content for m in history.messages] == ["I moved to Lisbon."]


async def test_the_same_words_twice_are_two_items(memory):
    """An item is an item, whatever it says."""
    session = CMTSession("7", memory)
    await session.add_items([{"role": "user", "content": "Yes."}] * 3)
    await session.pop_item()
    assert len(await session.get_items()) == 2


async def test_tasks_that_pop_together_get_each_item_once(memory):
    """No item is given out twice, none is lost."""
    session, twin = CMTSession("7", memory), CMTSession("7", memory)
    await session.add_items([{"role": "user", "content": str(n)} for n in range(12)])
    popped = await asyncio.gather(*(s.pop_item() for s in (session, twin) * 6))
    assert sorted(int(i["content"]) for i in popped) == list(range(12))


async def test_what_is_no_json_is_refused_and_nothing_is_added(memory):
    """The error names the item."""
    session = CMTSession("7", memory)
    with pytest.raises(InvalidDocument, match="is not JSON"):
        await session.add_items([{"role": "user", "content": "Hello."}, {"x": object()}])
    assert await session.get_items() == []


class Parrot(Model):
    """A model that says how many items it was given and repeats the last words."""

    async def get_response(self, system_instructions, input, *rest, **options):  # noqa: A002 - the SDK's name
        """The number of items and the last words."""
        self.heard = [input] if isinstance(input, str) else list(input)
        self.system = system_instructions
        last = self.heard[-1]
        words = last if isinstance(last, str) else last["content"]
        text = ResponseOutputText(
            text=f"{len(self.heard)}: {words}", type="output_text", annotations=[]
        )
        message = ResponseOutputMessage(
            id="m", content=[text], role="assistant", status="completed", type="message"
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *rest, **options):
        """Not asked for."""
        raise NotImplementedError


async def test_a_runner_continues_a_conversation(memory):
    """The second run is given what the first one said; the session holds all four messages."""
    agent, quiet = Agent("parrot", model=Parrot()), RunConfig(tracing_disabled=True)
    session = CMTSession("7", memory)
    assert (
        await Runner.run(agent, "Hello.", session=session, run_config=quiet)
    ).final_output == "1: Hello."
    assert (
        await Runner.run(agent, "Again.", session=session, run_config=quiet)
    ).final_output == "3: Again."
    assert [i["role"] for i in await session.get_items()] == [
        "user",
        "assistant",
        "user",
        "assistant",
    ]


def test_the_example_recalls_an_earlier_session(tmp_path):
    """What was said in one session is at hand in the next one, as data in the user's turn."""
    example = runpy.run_path(
        str(Path(__file__).parents[2] / "examples" / "openai_agents_session.py")
    )
    model = Parrot()
    with open_fake(tmp_path / "notes") as memory:
        example["main"](memory, model, "ann", "1", "I moved to Lisbon.")
        assert memory.wait(20)
        example["main"](memory, model, "ann", "2", "Where did I move?")
        notes, question = model.heard
        found = json.loads(notes["content"].removeprefix("Notes: "))
        assert (notes["role"], sorted(found)) == (
            "user",
            ["1: I moved to Lisbon.", "I moved to Lisbon."],
        )
        assert question["content"] == "Where did I move?"
        assert "Lisbon" not in (model.system or "")


def test_without_the_sdk_the_error_is_its_install_line(monkeypatch):
    """Importing the adapter where the Agents SDK is missing says what to install."""
    real = builtins.__import__

    def hidden(name, *rest, **options):
        if name.split(".")[0] == "agents":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "cmt_adapters.openai_agents")
    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(MissingExtra, match=r"pip install 'cmt-sdk\[openai-agents\]'"):
        importlib.import_module("cmt_adapters.openai_agents")
