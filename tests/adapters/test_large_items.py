"""Large items of conversations and stores: kept and given back as the frameworks' own sessions do,
and gone when forgotten.
"""

import asyncio

import pytest
from agents import SQLiteSession
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from cmt_adapters.langchain_agent import CMTChatMessageHistory
from cmt_adapters.langgraph import CMTStore
from cmt_adapters.openai_agents import CMTSession
from cmt_sdk.errors import InvalidDocument
from cmt_sdk.testing.fakes import open_fake

CALL = {"type": "function_call", "call_id": "1", "name": "read", "arguments": "{}"}
PNG = "data:image/png;base64," + "iVBORw0KGgo"


def picture(size):
    return {"type": "input_image", "image_url": PNG + "iVBORw0KGgo" * (size // 11)}


def result(output):
    return {"type": "function_call_output", "call_id": "1", "output": output}


ITEMS = {
    "a picture of 900 kB": [
        {"role": "user", "content": [{"type": "input_text", "text": "See."}, picture(900_000)]}
    ],
    "a tool's result of 600,000 characters": [CALL, result("row 7; " * 86_000)],
    "two megabytes": [{"role": "user", "content": [picture(2_000_000)]}],
    "quotes, backslashes and line ends": [CALL, result('"\\\n' * 100_000)],
    "Chinese": [CALL, result("数据行" * 60_000)],
    "NUL and lone surrogates": [CALL, result("\0\ud83d\x1b" * 40_000)],
    "encrypted reasoning": [
        {"type": "reasoning", "id": "r", "encrypted_content": "gAAA" * 150_000}
    ],
    "several pictures in one message": [{"role": "user", "content": [picture(200_000)] * 4}],
    "words that begin as the address of a payload": [
        {"role": "user", "content": "data:application/json;base64,e30= " + "x y " * 60_000}
    ],
    "a picture in an image tool's result": [CALL, result([picture(700_000)])],
    "right at the limit of metadata": [CALL, result("\\" * 99_970)],
}


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        yield opened


@pytest.mark.parametrize("name", ITEMS)
async def test_items_come_back_as_from_the_sdks_session(memory, name):
    """Whole, in order, by get and by pop."""
    mine, theirs = CMTSession("a", memory), SQLiteSession("a")
    for session in (mine, theirs):
        await session.add_items(ITEMS[name])
    assert await mine.get_items() == await theirs.get_items() == ITEMS[name]
    assert await mine.pop_item() == await theirs.pop_item()
    assert await mine.get_items() == await theirs.get_items()
    theirs.close()


async def test_a_payload_is_neither_compressed_nor_found(memory):
    """Its words are, and nothing else of it."""
    session = CMTSession("a", memory, wait=True)
    await session.add_items(ITEMS["a picture of 900 kB"])
    (document,) = memory.documents()
    assert [p.text for p in memory.passages(document.id)] == ["See."]
    assert memory.search("iVBORw0KGgo", mode="text") == []


async def test_a_payload_is_forgotten_exported_and_imported_with_its_item(memory, tmp_path):
    """No byte of it stays in the files; an archive gives it back."""
    secret = [CALL, result("the-heron-flies-at-nine " * 20_000)]
    await CMTSession("a", memory).add_items(secret)
    memory.export(tmp_path / "all.cmt")
    (document,) = [d for d in memory.documents() if len(d.text) > 1_000]
    receipt = memory.forget(document.id)
    assert (receipt.complete, receipt.traces_found) == (True, 0)
    assert await CMTSession("a", memory).get_items() == [CALL]
    with open_fake(tmp_path / "other") as other:
        other.import_archive(tmp_path / "all.cmt")
        assert await CMTSession("a", other).get_items() == secret


async def test_of_a_turn_all_is_saved_or_nothing(tmp_path):
    """What the memory cannot take leaves no call without its result; the error says what to set."""
    with open_fake(tmp_path / "notes", max_document_bytes=300_000) as memory:
        session = CMTSession("a", memory)
        await session.add_items([{"role": "user", "content": "Read it."}])
        with pytest.raises(InvalidDocument, match="max_document_bytes="):
            await session.add_items(
                [CALL, result("row 7; " * 86_000), {"role": "assistant", "content": "Done."}]
            )
        assert await session.get_items() == [{"role": "user", "content": "Read it."}]


async def test_a_disk_that_fills_up_leaves_no_half_turn(memory, monkeypatch):
    """The items of one call are one transaction."""
    session = CMTSession("a", memory)
    cut = memory._store._insert_passages
    monkeypatch.setattr(
        memory._store,
        "_insert_passages",
        lambda *rest: cut(*rest) if "(function_call)" in rest[2] else 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        await session.add_items([CALL, result("22 degrees")])
    assert await session.get_items() == []


MESSAGES = {
    "a picture": [
        HumanMessage(
            [
                {"type": "text", "text": "See."},
                {"type": "image_url", "image_url": {"url": PNG * 60_000}},
            ]
        )
    ],
    "a tool's result": [
        AIMessage("", tool_calls=[{"name": "read", "args": {}, "id": "1"}]),
        ToolMessage("row " * 150_000, tool_call_id="1"),
    ],
    "an artifact": [ToolMessage("done", tool_call_id="1", artifact={"rows": ["a,b"] * 90_000})],
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_come_back_whole(memory, name):
    """A LangChain history keeps them likewise."""
    history = CMTChatMessageHistory("7", memory)
    history.add_messages(MESSAGES[name])
    assert history.messages == MESSAGES[name]
    history.clear()
    assert memory.count() == 0


@pytest.mark.parametrize("index", [False, ["name"]])
def test_values_of_a_langgraph_store_come_back_whole(memory, index):
    """A picture in a value, put again, searched, listed and deleted."""
    store = CMTStore(memory, scope="graph")
    value = {"name": "The harbour of Genoa", "image": PNG * 60_000}
    store.put(("pictures",), "a", value, index=index)
    store.put(("pictures",), "a", {**value, "year": 2020}, index=index)
    assert store.get(("pictures",), "a").value == {**value, "year": 2020}
    assert [item.value["year"] for item in store.search(("pictures",), filter={"year": 2020})] == [
        2020
    ]
    assert [item.key for item in store.search(("pictures",), query="Genoa harbour")] == ["a"]
    store.delete(("pictures",), "a")
    assert store.get(("pictures",), "a") is None


def test_a_session_that_an_earlier_release_wrote_is_read(memory):
    """Its items stand in metadata alone."""
    session = CMTSession("a", memory)
    about = {"openai_agents": '{"role": "user", "content": "Hello."}', **session._mark}
    memory.add("Hello.", id="item-1", scope=session.scope, metadata=about)
    assert asyncio.run(session.get_items()) == [{"role": "user", "content": "Hello."}]
