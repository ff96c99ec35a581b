"""A generator behind the server, the MCP tools and the framework adapters: its answers, and its
failures as each of them reports failures.
"""

import httpx
import pytest
from mcp import Client

from cmt_adapters.langchain_agent import ChatCMT
from cmt_adapters.llama_index import CMTRetriever
from cmt_adapters.mcp import mcp_server
from cmt_adapters.server.serve import app
from cmt_sdk.errors import GeneratorError
from cmt_sdk.testing.fakes import open_fake
from tests.unit.generator_server import event, fails, says, sends, serving

pytestmark = pytest.mark.enable_socket
MUSEUM = "The museum moved to Lisbon in 2019."
QUESTION = "Where is the museum?"


@pytest.fixture
def generator():
    with serving(says("Lis", "bon.")) as made:
        yield made


@pytest.fixture
def memory(tmp_path, generator):
    with open_fake(tmp_path / "n", generator=generator.url, generator_model="m") as made:
        made.add(MUSEUM, source="trip.md")
        yield made


async def posted(memory, path, **body):
    """The response of the HTTP server."""
    transport = httpx.ASGITransport(app(memory))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.post(path, json=body)


def chat(**more):
    """The body of a chat completion."""
    return {"model": "cmt", "messages": [{"role": "user", "content": QUESTION}], **more}


async def test_the_servers_answers_are_the_generators(memory):
    """On both faces, with the sources."""
    made = (await posted(memory, "/v1/chat/completions", **chat())).json()
    assert made["choices"][0]["message"]["content"] == "Lisbon."
    assert [s["source"] for s in made["sources"]] == ["trip.md"]
    assert made["usage"]["completion_tokens"] == 2
    assert (await posted(memory, "/api/ask", question=QUESTION)).json()["text"] == "Lisbon."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_word_is_a_status(memory, generator, stream):
    """503 with the message, which has the remedy."""
    generator.plays = [fails(401, "bad key")]
    response = await posted(memory, "/v1/chat/completions", **chat(stream=stream))
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (503, "GeneratorError")
    assert "401 (bad key)" in error["message"]


async def test_a_failure_after_a_word_is_an_event(memory, generator):
    """The stream has begun: the error is its last event."""
    generator.plays = [sends(event("Lis"))]
    text = (await posted(memory, "/v1/chat/completions", **chat(stream=True))).text
    assert '"content":"Lis"' in text
    assert "broke off after 3 characters" in text.splitlines()[-2]
    assert "[DONE]" not in text


async def test_the_mcp_tool_asks_the_generator(memory, generator):
    """And gives the model the words of a failure."""
    async with Client(mcp_server(memory)) as client:
        found = await client.call_tool("ask", {"question": QUESTION})
        assert found.structured_content["answer"] == "Lisbon."
        generator.plays = [fails(429)]
        refused = await client.call_tool("ask", {"question": QUESTION})
    assert refused.is_error
    assert "try again in 7 seconds" in refused.content[0].text


def test_frameworks_ask_the_generator(memory, generator):
    """A chat model answers with it; a retriever needs none."""
    assert ChatCMT(memory=memory).invoke(QUESTION).content == "Lisbon."
    sent = len(generator.bodies)
    assert MUSEUM in CMTRetriever(memory, k=1).retrieve(QUESTION)[0].get_content()
    assert len(generator.bodies) == sent
    generator.plays = [fails(500)]
    with pytest.raises(GeneratorError, match="500"):
        ChatCMT(memory=memory).invoke(QUESTION)
