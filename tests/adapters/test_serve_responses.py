"""/v1/responses, asked by OpenAI's own clients: the Python SDK, its streams, and the Agents SDK
with its default model.
"""

import json

import agents
import httpx
import openai
import pytest

from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

GENOA = "The boat lies in the harbour of Genoa."
QUESTION = "Where does the boat lie?"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("served") / "notes") as made:
        yield made


@pytest.fixture
def client(server):
    server.empty()
    server.memory.add(GENOA, source="log.md")
    server.reader.prompts.clear()
    with server.client() as made:
        yield made


def test_an_answer_comes_from_memory(client):
    """With its source, and what it cost."""
    answer = client.responses.create(model="cmt", input=QUESTION, instructions="Be brief.")
    assert (answer.output_text, answer.status, answer.error) == (GENOA, "completed", None)
    assert (answer.usage.output_tokens, answer.usage.total_tokens) == (8, 13)
    assert (answer.instructions, answer.store, answer.sources[0]["source"]) == (
        "Be brief.",
        False,
        "log.md",
    )
    assert [(item.type, item.role) for item in answer.output] == [("message", "assistant")]


def test_a_stream_has_the_events_of_the_api(client):
    """In order and numbered; the pieces are the text that the last event holds whole."""
    events = list(client.responses.create(model="cmt", input=QUESTION, stream=True))
    kinds = [e.type.removeprefix("response.") for e in events]
    deltas = kinds.count("output_text.delta")
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * deltas,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert (
        "".join(e.delta for e in events if e.type == "response.output_text.delta").strip() == GENOA
    )
    last = events[-1].response
    assert (last.output_text, last.usage.output_tokens, last.id) == (
        GENOA,
        8,
        events[0].response.id,
    )
    assert last.output[0].id == events[2].item.id
    with client.responses.stream(model="cmt", input=QUESTION) as stream:
        assert stream.get_final_response().output_text == GENOA


def test_a_conversation_is_a_list_of_items(client, server):
    """Of which those that say something are read, with what a tool gave last."""
    items = [
        {"role": "developer", "content": "Be brief."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Ahoy."}, {"type": "input_image"}],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Yes?", "annotations": []}],
        },
        {"type": "reasoning", "id": "r", "summary": []},
        {"role": "user", "content": QUESTION},
        {"type": "function_call", "call_id": "c", "name": "find", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "It sails at nine."},
        {"type": "item_reference", "id": "x"},
    ]
    assert client.responses.create(model="cmt", input=items).output_text == GENOA
    prompt = server.reader.prompts[-1]
    assert prompt.question == QUESTION
    assert [turn.content for turn in prompt.history] == [
        "Be brief.\n\nA tool has told: It sails at nine."
    ]


def test_what_the_user_tells_is_remembered(client, server):
    """In the user's scope, unless it only asks or the request does not want it."""
    client.responses.create(model="cmt", input="My dog is called Rufus.", user="ann")
    client.responses.create(
        model="cmt", input="My cat is called Mia.", user="ann", extra_body={"remember": False}
    )
    list(
        client.responses.create(
            model="cmt", input="My bird is called Kiwi.", safety_identifier="ann", stream=True
        )
    )
    kept = [d.text for d in server.memory.documents(scope="user/ann")]
    assert kept == ["My dog is called Rufus.", "My bird is called Kiwi."]


def test_a_cut_answer_is_incomplete(client):
    """And says why."""
    answer = client.responses.create(model="cmt", input=QUESTION, max_output_tokens=2)
    assert (answer.output_text, answer.status, answer.incomplete_details.reason) == (
        "The boat",
        "incomplete",
        "max_output_tokens",
    )
    *_, last = client.responses.create(
        model="cmt", input=QUESTION, max_output_tokens=2, stream=True
    )
    assert last.type == "response.incomplete"
    assert (
        client.responses.create(model="cmt", input=QUESTION, max_output_tokens=-1).output_text
        == GENOA
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id: responses are not stored here"),
        ({"conversation": "conv_1"}, "conversation: responses are not stored here"),
        ({"prompt": {"id": "p"}}, "prompt: no prompts are stored here"),
        ({"background": True}, "background: responses are not stored here"),
        (
            {"text": {"format": {"type": "json_object"}}},
            "text.format: the model answers in plain text",
        ),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice: the model calls no tools"),
        ({"top_logprobs": 3}, "top_logprobs: there are none"),
        ({"input": 5}, "input: give a text, or a list of items"),
        ({"input": ["hello"]}, "input[0]: give an object"),
        (
            {"input": [{"role": "user", "content": 5}]},
            "input[0].content: give a text, or a list of parts",
        ),
        ({"input": []}, "input: the last one is not the user's"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "filename": "a.pdf"}]}]},
            "input[0].content: [file a.pdf]",
        ),
        ({"user": ""}, "user: the name is empty"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, server, body, words):
    """Before a stream begins, too."""
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**{"model": "cmt", "input": QUESTION, "stream": stream, **body})
        assert caught.value.body["message"].startswith(words)


def test_a_stream_that_breaks_off_says_so(client, server, monkeypatch):
    """The client raises what went wrong."""
    read = type(server.reader).read

    def breaking(self, prompt, max_tokens):
        yield next(read(self, prompt, max_tokens))
        raise openai_error("the GPU is gone")

    monkeypatch.setattr(type(server.reader), "read", breaking)
    with pytest.raises(openai.APIError, match="the GPU is gone"):
        list(client.responses.create(model="cmt", input=QUESTION, stream=True))


def openai_error(words):
    """A failure of the model."""
    from cmt_sdk.errors import ModelError

    return ModelError(words)


async def test_the_agents_sdk_runs_with_its_default_model(client, server):
    """Also in a stream, with a second turn after the first, and with tools that may be called."""
    agents.set_tracing_disabled(True)
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0
    ) as own:
        agent = agents.Agent(
            "sailor",
            instructions="Be brief.",
            model=agents.OpenAIResponsesModel(model="cmt", openai_client=own),
            tools=[
                agents.function_tool(
                    lambda city: city,
                    name_override="find",
                    description_override="x",
                    strict_mode=False,
                )
            ],
        )
        first = await agents.Runner.run(agent, QUESTION)
        assert first.final_output == GENOA
        again = [
            *first.to_input_list(),
            {"role": "user", "content": "And where does the boat lie now?"},
        ]
        streamed = agents.Runner.run_streamed(agent, again)
        kinds = {event.type async for event in streamed.stream_events()}
        assert streamed.final_output == GENOA
        assert "raw_response_event" in kinds


def test_the_shape_is_what_other_clients_read(server, client):
    """The fields that the AI SDK demands of an answer and of the end of a stream."""
    body = {
        "model": "cmt",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
    }
    whole = httpx.post(f"{server.url}/v1/responses", json=body).json()
    stream = httpx.post(f"{server.url}/v1/responses", json={**body, "stream": True}).text
    names = [
        line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: ")
    ]
    data = [
        json.loads(line.removeprefix("data: "))
        for line in stream.splitlines()
        if line.startswith("data: ")
    ]
    assert names == [d["type"] for d in data]
    for answer in (whole, data[-1]["response"]):
        assert {
            "id",
            "created_at",
            "model",
            "output",
            "usage",
            "error",
            "incomplete_details",
        } <= answer.keys()
        assert answer["output"][0]["content"][0]["annotations"] == []
        assert answer["usage"]["input_tokens_details"] == {"cached_tokens": 0}
