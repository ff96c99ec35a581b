"""/v1, asked by OpenAI's own client over the loopback: a chatbot that remembers."""

import base64
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import openai
import pytest

from cmt_sdk.testing.fakes import FINGERPRINT, FakeCompressor
from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

LISBON = "The museum moved to Lisbon in 2019."
ASKED = [{"role": "user", "content": "Where did the museum move to?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("served") / "notes") as made:
        yield made


@pytest.fixture(scope="module")
def client(server):
    with server.client() as made:
        yield made


@pytest.fixture
def served(server):
    """The one server, whose memory knows one thing."""
    server.empty()
    server.memory.add(LISBON, source="trip.md")
    server.reader.questions.clear()
    return server


def test_an_answer_comes_from_memory(served, client):
    """With its source beside the choices, and with what it cost."""
    answer = client.chat.completions.create(model="cmt", messages=ASKED)
    assert answer.choices[0].message.content == LISBON
    assert (answer.choices[0].finish_reason, answer.choices[0].message.role) == (
        "stop",
        "assistant",
    )
    assert (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.usage.total_tokens,
    ) == (6, 7, 13)
    assert answer.usage.memory_tokens == 9
    (source,) = answer.sources
    assert (source["source"], source["start"], source["end"], source["text"]) == (
        "trip.md",
        0,
        35,
        LISBON,
    )
    assert LISBON[source["answer_start"] : source["answer_end"]] == LISBON


def test_a_stream_is_the_same_answer_in_pieces(served, client):
    """Role first, then words, then the end with the sources, then, where it is asked for, the
    usage.
    """
    usage = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model="cmt", messages=ASKED, stream=True, stream_options=usage
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks[1:-2]] == [
        f"{word} " for word in LISBON.split()
    ]
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * 8 + ["stop"]
    assert chunks[-2].sources[0]["text"] == LISBON
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 13)
    assert len({c.id for c in chunks}) == 1
    without = list(client.chat.completions.create(model="cmt", messages=ASKED, stream=True))
    assert without[-1].choices[0].finish_reason == "stop"


async def test_the_async_client_streams_too(served):
    """Other tasks run meanwhile."""
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(model="cmt", messages=ASKED, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]).strip() == LISBON


def test_an_answer_that_is_cut_says_so(served, client):
    """By either name of the limit."""
    for name in ("max_tokens", "max_completion_tokens"):
        choice = client.chat.completions.create(
            model="cmt", messages=ASKED, extra_body={name: 2, "remember": False}
        ).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("The museum", "length")


@pytest.mark.usefixtures("served")
def test_more_than_the_longest_answer_may_be_asked_for(client):
    """As clients do that were set up for a larger model; the answer ends where it ends."""
    more = {"max_tokens": 128_000, "remember": False}
    choice = client.chat.completions.create(model="cmt", messages=ASKED, extra_body=more).choices[0]
    assert (choice.message.content, choice.finish_reason) == (LISBON, "stop")


def test_what_is_to_be_forgotten_is_erased_after_a_yes(served, client):
    """The client sends the conversation back, as all do: it holds the question."""
    said = ["My number is 555 0134.", "Forget my number.", "Yes, please."]
    messages = []
    for text in said:
        messages.append({"role": "user", "content": text})
        for _ in range(2):  # a client that tries again changes nothing
            reply = (
                client.chat.completions.create(model="cmt", user="ann", messages=messages)
                .choices[0]
                .message.content
            )
            if text == said[2]:
                break
        messages.append({"role": "assistant", "content": reply})
        assert served.memory.count(scope="user/ann") == (0 if text == said[2] else 1)
    assert "“My number is 555 0134.”" in messages[3]["content"]
    assert messages[5]["content"].startswith("Erased: 1 text; no trace is left")


def test_a_front_ends_own_prompt_is_not_remembered(served, client):
    """Its request for a title holds the dialogue."""
    prompt = "Generate a title for this conversation.\nUSER: My number is 555 0134."
    client.chat.completions.create(
        model="cmt", user="ann", messages=[{"role": "user", "content": prompt}]
    )
    assert served.memory.count(scope="user/ann") == 0


def test_what_the_user_says_is_remembered(served, client):
    """In the scope of `user`; the next conversation knows it. With remember=False it is not."""
    client.chat.completions.create(
        model="cmt", user="ann", messages=[{"role": "user", "content": "My dog is called Rufus."}]
    )
    (kept,) = served.memory.documents(scope="user/ann")
    assert (kept.text, kept.source, kept.metadata) == (
        "My dog is called Rufus.",
        "chat",
        {"role": "user"},
    )
    asked = [{"role": "user", "content": "What is my dog called?"}]
    off = {"remember": False}
    answer = client.chat.completions.create(model="cmt", user="ann", messages=asked, extra_body=off)
    assert answer.choices[0].message.content == "My dog is called Rufus."
    list(
        client.chat.completions.create(
            model="cmt", user="ann", messages=asked, extra_body=off, stream=True
        )
    )
    assert served.memory.count(scope="user/ann") == 1
    # what only asks tells nothing
    list(client.chat.completions.create(model="cmt", user="ann", messages=asked, stream=True))
    assert served.memory.count(scope="user/ann") == 1
    told = [{"role": "user", "content": "Rufus is seven."}]
    list(client.chat.completions.create(model="cmt", user="ann", messages=told, stream=True))
    assert served.memory.count(scope="user/ann") == 2


@pytest.mark.parametrize(
    "other", ["bob", "an", "ann2", "bob/../ann", "..", "ann*", "*", "%", "ann/x", "user/ann"]
)
def test_users_are_kept_apart(served, client, other):
    """Whatever a user is called, the memory of another one is not read, and not written to."""
    said = [{"role": "user", "content": "My password is swordfish."}]
    client.chat.completions.create(model="cmt", user="ann", messages=said)
    asked = [{"role": "user", "content": "What is my password?"}]
    answer = client.chat.completions.create(model="cmt", user=other, messages=asked)
    assert (answer.choices[0].message.content, answer.sources) == ("I don't know.", [])
    assert [d.text for d in served.memory.documents(scope="user/ann")] == [
        "My password is swordfish."
    ]


def test_a_scope_can_be_given_in_place_of_a_user(served, client):
    """And without either, what belongs to no user is asked, and its own scope written to."""
    body = {"scope": "team/blue"}
    told = [{"role": "user", "content": "The harbour is blue."}]
    client.chat.completions.create(model="cmt", user="ann", messages=told, extra_body=body)
    assert [d.scope for d in served.memory.documents(source="chat")] == ["team/blue"]
    client.chat.completions.create(
        model="cmt", messages=[{"role": "user", "content": "Tea is green."}]
    )
    assert {d.scope for d in served.memory.documents(source="chat")} == {"team/blue", ""}


def test_earlier_turns_are_history(served, client):
    """With all roles, in parts or whole; what is said by tools, or with nothing in it, is passed
    over.
    """
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "I ask about"},
                {"type": "text", "text": "the museum."},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [], "refusal": None},
        {"role": "tool", "content": "22 degrees", "tool_call_id": "1"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "And where is the museum now?"},
    ]
    answer = client.chat.completions.create(
        model="gpt-9", messages=messages, temperature=0.2, tools=[], seed=1
    )
    assert answer.choices[0].message.content == LISBON
    assert served.reader.questions == ["And where is the museum now?"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hello."}]}, "end with a question"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "Lisbon"}]}, "end with a question"),
        ({"messages": [{"role": "user", "content": " "}]}, "end with a question"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "NUL"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
                ]
            },
            "messages[0].content: [picture]",
        ),
        ({"messages": ASKED, "n": 2}, "n: "),
        ({"messages": ASKED, "extra_body": {"reader": "wizard"}}, "reader"),
        ({"messages": ASKED, "extra_body": {"scope": "a//b"}}, "scope: give names with a slash"),
    ],
)
def test_what_cannot_be_answered_is_a_bad_request(client, request_, words):
    """The client's own exception, with a message that says where; a stream fails the same way,
    before it begins.
    """
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="cmt", stream=stream, **request_)
        assert words in caught.value.body["message"]
        assert caught.value.type == "invalid_request_error"


def test_one_model_is_listed(client):
    """And any other is not there."""
    assert [(m.id, m.object) for m in client.models.list()] == [("cmt", "model")]
    assert client.models.retrieve("cmt").owned_by == "cmt-sdk"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9'"):
        client.models.retrieve("gpt-9")


def test_embeddings_are_the_vectors_that_find_passages(served, client):
    """In base64, which is what the client asks for by itself, and as numbers; one text or
    several.
    """
    made = client.embeddings.create(model="cmt", input=["Where is the museum?", "tea"])
    vectors = np.array([e.embedding for e in made.data], np.float32)
    assert [e.index for e in made.data] == [0, 1]
    assert np.allclose(vectors, served.memory.model.embed(["Where is the museum?", "tea"]))
    assert served.memory.nearest(vectors[0], 1)[0].passage.text == LISBON
    assert made.usage.total_tokens == 6
    plain = client.embeddings.create(model="cmt", input="tea", encoding_format="float")
    assert np.allclose(plain.data[0].embedding, vectors[1])
    raw = served.http.post(
        "/v1/embeddings", json={"model": "cmt", "input": "tea", "encoding_format": "base64"}
    ).json()
    assert np.array_equal(
        np.frombuffer(base64.b64decode(raw["data"][0]["embedding"]), "<f4"), vectors[1]
    )


@pytest.mark.parametrize(
    "given", ["", " ", [], ["tea", ""], [1, 2], [[1, 2]], "a\0", {"dimensions": 3, "input": "tea"}]
)
def test_what_cannot_be_embedded_is_a_bad_request(client, given):
    """Nothing, tokens of another model, and vectors of another length."""
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(
            model="cmt", **(given if isinstance(given, dict) else {"input": given})
        )


def test_what_the_model_refuses_is_told(served, client, monkeypatch):
    """Memories of another model: before a stream has begun it is a status, like any other
    failure.
    """
    monkeypatch.setattr(
        served.memory.model._retriever.engine,
        "compressor",
        FakeCompressor(replace(FINGERPRINT, base="0" * 16)),
    )
    for stream in (False, True):
        with pytest.raises(openai.ConflictError, match="cmt reencode"):
            client.chat.completions.create(model="cmt", messages=ASKED, stream=stream)


def test_the_example_runs(served, client, capsys):
    """An unmodified client is told what this user told before, and not what another did."""
    main = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "openai_client.py"))["main"]
    main(client, "ann", ["My dog is called Rufus.", "What is my dog called?"])
    main(client, "bob", ["What is my dog called?"])
    told = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert told[1:] == ["My dog is called Rufus.", "I don't know."]
