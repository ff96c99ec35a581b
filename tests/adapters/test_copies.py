"""Copies and pickles of what the adapters make of a memory."""

import asyncio
import copy
import os
import pickle
import threading

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import Memory

from cmt_adapters.langchain import CMTDocumentStore, CMTRetriever, CMTVectorStore
from cmt_adapters.langchain_agent import ChatCMT, CMTChatMessageHistory, CMTMiddleware, memory_tools
from cmt_adapters.langgraph import CMTStore
from cmt_adapters.llama_index import CMTMemoryBlock
from cmt_adapters.llama_index import CMTRetriever as IndexRetriever
from cmt_adapters.openai_agents import CMTSession
from cmt_sdk.errors import InvalidInput
from cmt_sdk.testing.fakes import open_fake
from tests.unit.test_handles import in_child

MADE = {
    "retriever": lambda m: CMTRetriever(memory=m),
    "vector store": CMTVectorStore,
    "document store": CMTDocumentStore,
    "chat model": lambda m: ChatCMT(memory=m),
    "history": lambda m: CMTChatMessageHistory("7", m),
    "middleware": CMTMiddleware,
    "tool": lambda m: memory_tools(m)[0],
    "LangGraph store": CMTStore,
    "session": lambda m: CMTSession("7", m),
    "memory block": lambda m: CMTMemoryBlock(memory=m),
    "LlamaIndex retriever": IndexRetriever,
    "LlamaIndex memory": lambda m: Memory.from_defaults(
        session_id="7", memory_blocks=[CMTMemoryBlock(memory=m)]
    ),
    "model": lambda m: m.model,
}


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        opened.add("Ann likes green tea.")
        yield opened


@pytest.mark.parametrize("name", MADE)
def test_a_deep_copy_is_over_the_same_memory(memory, name):
    """Frameworks copy the settings of agents: the copy remembers where the original does."""
    made = MADE[name](memory)
    twin = copy.deepcopy(made)
    assert type(twin) is type(made)
    if hasattr(made, "model_copy"):
        assert type(made.model_copy(deep=True)) is type(made)


@pytest.mark.parametrize("name", [n for n in MADE if n not in ("tool", "LlamaIndex memory")])
def test_a_pickle_says_what_to_do(memory, name):
    """Not which module of Python's cannot be pickled."""
    with pytest.raises(InvalidInput, match=r"cannot be pickled.*cmt_sdk\.open\(path\)"):
        pickle.dumps(MADE[name](memory))


def test_copies_work(memory):
    """A retriever's copy finds, a session's copy goes on with the same conversation."""
    assert (
        copy.deepcopy(MADE["retriever"](memory)).invoke("green tea")[0].page_content
        == "Ann likes green tea."
    )
    assert (
        MADE["chat model"](memory).model_copy(deep=True).invoke("Who likes green tea?").content
        == "Ann likes green tea."
    )
    session = CMTSession("7", memory)
    asyncio.run(copy.deepcopy(session).add_items([{"role": "user", "content": "Hello."}]))
    assert asyncio.run(session.get_items()) == [{"role": "user", "content": "Hello."}]
    block = copy.deepcopy(CMTMemoryBlock(memory=memory))
    assert asyncio.run(block.aget([ChatMessage(role="user", content="green tea")]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_a_session_is_locked(memory):
    """The child's session takes a lock of its own, and does not wait for the parent's thread."""
    session, store = CMTSession("7", memory), CMTStore(memory)
    store.put(("a",), "b", {"x": 1})
    inside, leave = threading.Event(), threading.Event()

    def work():
        inside.set()
        leave.wait(20)

    thread = threading.Thread(target=lambda: asyncio.run(session._in_thread(work)))
    thread.start()
    assert inside.wait(10)
    assert in_child(lambda: asyncio.run(session.get_items())) == []
    assert in_child(lambda: store.get(("a",), "b").value) == {"x": 1}
    leave.set()
    thread.join()
