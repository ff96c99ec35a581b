"""What clients send along to /v1: parts that are no text, options of other models, tools' results.
Limits bend.
"""

import json

import openai
import pytest

from cmt_sdk.memory import Memory
from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

GENOA = "The boat lies in the harbour of Genoa."
ASKED = {"role": "user", "content": "Where does the boat lie?"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
SYSTEM = "system"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("served") / "notes", remember=False) as made:
        made.memory.add(GENOA)
        yield made


@pytest.fixture
def said(server):
    """Send messages, and see the answer; what the model has read is in `server.reader.prompts`."""
    server.reader.prompts.clear()

    def send(*messages, **options):
        answer = server.http.post(
            "/v1/chat/completions", json={"model": "cmt", "messages": messages, **options}
        )
        return answer.status_code, answer.json()

    return send


@pytest.fixture
def turns(monkeypatch):
    """The turns that came before the last message, of every request."""
    found = []
    chat = Memory.chat

    def listening(self, *, turns=(), **options):
        found.append(list(turns))
        return chat(self, turns=turns, **options)

    monkeypatch.setattr(Memory, "chat", listening)
    return found


def text_of(answer):
    """The words of an answer that has come."""
    status, body = answer
    assert status == 200, body
    return body["choices"][0]["message"]["content"]


def refused(answer):
    """The message of a request that was refused."""
    status, body = answer
    assert status == 400, body
    return body["error"]["message"]


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ([{"type": "text", "text": "See this."}, PICTURE], "See this.\n[picture]"),
        ([{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}], "[sound]"),
        ([{"type": "file", "file": {"file_id": "f", "filename": "bill.pdf"}}], "[file bill.pdf]"),
        (
            [{"type": "input_image", "image_url": "x"}, {"type": "input_text", "text": "Hm."}],
            "[picture]\nHm.",
        ),
        ([{"type": "refusal", "refusal": "I will not."}], "I will not."),
        ([{"type": "video_url", "video_url": {"url": "x"}}], "[video]"),
        ([{"type": "hologram", "data": 5}, "and words"], "[hologram]\nand words"),
        ([{"text": "no type"}], "no type"),
        ({"type": "text", "text": {"value": "one part"}}, "one part"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Done."}], "Done."),
        ([{"type": "text", "text": None}, 7, {"type": 5}], "[unknown]\n[unknown]"),
        ([[], {"type": "file", "filename": 5}, {"type": "<b>"}], "[unknown]\n[file]\n[b]"),
    ],
)
def test_any_part_of_an_earlier_message_is_read_or_marked(turns, said, content, read):
    """Whoever said it; the conversation goes on."""
    for role in ("user", "assistant", "system"):
        assert (
            text_of(
                said(
                    {"role": role, "content": content},
                    {"role": "assistant", "content": "Yes."},
                    ASKED,
                )
            )
            == GENOA
        )
        assert read in [turn.content for turn in turns[-1]]


def test_the_last_message_is_read_without_its_pictures(server, said):
    """Its words are the question; where there are none, the message says which part cannot be
    read.
    """
    assert (
        text_of(
            said({"role": "user", "content": [PICTURE, {"type": "text", "text": ASKED["content"]}]})
        )
        == GENOA
    )
    assert server.reader.prompts[-1].question == ASKED["content"]
    told = refused(
        said({"role": "system", "content": "Be brief."}, {"role": "user", "content": [PICTURE]})
    )
    assert (
        told == "messages[1].content: [picture] cannot be read, and there is no text: ask in words"
    )


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (
            [ASKED, {"role": "assistant", "content": 5}, ASKED],
            "messages[1].content: give a text, or a list of parts",
        ),
        (["hello"], "messages[0]: give an object with a role and a content"),
        ([{"content": "hello"}], "messages[0]: give an object with a role and a content"),
        ({"role": "user"}, "messages: give a list"),
    ],
)
def test_faults_are_named_by_their_field(server, messages, words):
    """Not by the path that the checking program has taken."""
    answer = server.http.post("/v1/chat/completions", json={"model": "cmt", "messages": messages})
    assert refused((answer.status_code, answer.json())).startswith(words)


def test_unknown_roles_are_passed_over(turns, said):
    """As are those that other programs use for the same."""
    assert (
        text_of(
            said({"role": "ipython", "content": "x"}, {"role": "human", "content": "Ahoy."}, ASKED)
        )
        == GENOA
    )
    assert [(t.role, t.content) for t in turns[-1]] == [("user", "Ahoy.")]


@pytest.mark.parametrize("tokens", [-1, 0, None, 10**9, 2**80, 1e300, "64", 1000.7])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_length_is_bent(said, name, tokens):
    """No number, none at all, and one that no answer has."""
    assert text_of(said(ASKED, **{name: tokens})) == GENOA


@pytest.mark.parametrize("tokens", ["many", [1], {}])
def test_a_length_that_is_no_number_is_refused(said, tokens):
    """By its name."""
    assert refused(said(ASKED, max_tokens=tokens)).startswith("max_tokens: give a whole number")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"response_format": {"type": "json_object"}},
            "response_format: the model answers in plain text",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format: the model answers in plain text",
        ),
        ({"tool_choice": "required"}, "tool_choice: the model calls no tools"),
        ({"tool_choice": "any"}, "tool_choice: the model calls no tools"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice: the model calls no tools",
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required"}}},
            "tool_choice: the model calls",
        ),
        ({"function_call": {"name": "f"}}, "function_call: the model calls no tools"),
        ({"logprobs": True}, "logprobs: there are none"),
        ({"n": 2}, "n: there is one answer"),
        ({"n": 0}, "n: there is one answer"),
        ({"modalities": ["text", "audio"]}, "modalities: the model answers in plain text"),
        ({"stop": list("abcde")}, "stop: there are 5 texts, the limit is 4"),
        ({"stop": 5}, "stop: give a text, or a list of up to 4"),
        ({"stream": "yes"}, "stream: give true or false"),
        ({"k": 1000}, "k: give at most 100"),
    ],
)
def test_what_changes_the_form_of_an_answer_is_refused_by_name(said, options, words):
    """With what to do; before a stream begins, too."""
    for stream in ({}, {"stream": True}):
        assert refused(said(ASKED, **{**stream, **options})).startswith(words)


@pytest.mark.parametrize(
    "options",
    [
        {
            "response_format": {"type": "text"},
            "tool_choice": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
        {
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}},
            "parallel_tool_calls": True,
        },
        {
            "function_call": "none",
            "logprobs": False,
            "top_logprobs": 0,
            "n": 1,
            "modalities": ["text"],
            "stop": None,
        },
        {
            "temperature": 3,
            "seed": "x",
            "reasoning_effort": "high",
            "stream_options": {},
            "store": True,
        },
    ],
)
def test_what_can_be_passed_over_is(said, options):
    """Tools that may be called, and what other models can be told."""
    assert text_of(said(ASKED, **options)) == GENOA


def test_what_a_tool_gave_is_read_with_the_question(server, said):
    """Last, in parts, from several tools; never remembered, nor looked for; and not that of earlier
    questions.
    """
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    given = [
        {
            "role": "tool",
            "tool_call_id": "1",
            "content": [{"type": "text", "text": "It was moved to Naples."}],
        },
        {"role": "tool", "tool_call_id": "2", "content": "It sails at nine."},
    ]
    before = [
        {"role": "user", "content": "Ahoy."},
        {"role": "tool", "content": "stale"},
        {"role": "assistant", "content": "Yes?"},
    ]
    assert text_of(said(*before, ASKED, called, *given)) == GENOA
    prompt = server.reader.prompts[-1]
    assert prompt.question == ASKED["content"]
    assert [turn.content for turn in prompt.history if turn.role == SYSTEM] == [
        "A tool has told: It was moved to Naples.\n\nA tool has told: It sails at nine.",
    ]
    assert "stale" not in str(prompt.history)
    assert "end with a question" in refused(said(given[1]))
    assert text_of(said(ASKED, called, {"role": "tool", "content": ""})) == GENOA


def test_long_messages_do_not_end_a_conversation(server, said):
    """Earlier ones are read by their ends, and the oldest not at all; so are rules and what tools
    gave.
    """
    long = "Ship's log. " + "The river runs past the mill. " * 4000 + "The end."
    turns = [
        m
        for n in range(8)
        for m in (
            {"role": "user", "content": f"{n} {long}"},
            {"role": "assistant", "content": "Well."},
        )
    ]
    assert (
        text_of(
            said(
                {"role": "system", "content": long},
                *turns,
                ASKED,
                {"role": "tool", "content": long},
            )
        )
        == GENOA
    )
    history = server.reader.prompts[-1].history
    assert sum(len(turn.content) for turn in history) < 25_000
    assert all(turn.content.endswith(("The end.", "Well.")) for turn in history)
    assert any(turn.content.startswith("7 Ship's log.") for turn in history)


@pytest.mark.parametrize(
    ("stop", "left"),
    [
        (["harbour"], "The boat lies in the"),
        ("the", "The boat lies in"),
        (["lies in"], "The boat"),
        (["ies in th", "zzz"], "The boat l"),
        (["Genoa", "boat"], "The"),
        ("The", ""),
        (["", "Genoa."], "The boat lies in the harbour of"),
        (["Genoa. and more"], GENOA),
        (" ", "The"),
    ],
)
def test_stop_ends_an_answer(server, said, stop, left):
    """At the first of the texts, wherever the pieces of a stream are cut; nothing of it is
    shown.
    """
    status, body = said(ASKED, stop=stop)
    assert (
        status,
        body["choices"][0]["message"]["content"],
        body["choices"][0]["finish_reason"],
    ) == (200, left, "stop")
    with server.client() as client:
        chunks = list(
            client.chat.completions.create(model="cmt", messages=[ASKED], stop=stop, stream=True)
        )
    assert "".join(c.choices[0].delta.content or "" for c in chunks).strip() == left
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    assert chunks[-1].sources[0]["text"] == GENOA


@pytest.mark.parametrize("bad", ["\ud800", "\0", "\0notes\0", "a\udfff b"])
@pytest.mark.parametrize("role", ["user", "assistant", "system", "tool"])
def test_what_is_no_character_is_replaced_in_history(server, role, bad):
    """In any turn; in the question it is refused."""
    post = {"headers": {"Content-Type": "application/json"}}
    for content in (bad, [{"type": "text", "text": f"hi {bad}"}]):
        body = {
            "model": "cmt",
            "messages": [
                {"role": role, "content": content},
                {"role": "assistant", "content": "x"},
                ASKED,
            ],
        }
        if role == "tool":
            body["messages"] = [ASKED, {"role": role, "content": content}]
        for stream in (False, True):
            answer = server.http.post(
                "/v1/chat/completions", content=json.dumps({**body, "stream": stream}), **post
            )
            assert answer.status_code == 200, answer.text
    last = json.dumps({"model": "cmt", "messages": [{"role": "user", "content": f"hi {bad}?"}]})
    answer = server.http.post("/v1/chat/completions", content=last, **post)
    assert answer.status_code == 400
    assert "NUL or a lone surrogate" in answer.json()["error"]["message"]
    assert not any("\0" in turn.content for turn in server.reader.prompts[-1].history)


@pytest.mark.parametrize("given", [[1, 2], [[1, 2], [3]], ["tea", [1]]])
def test_tokens_to_embed_are_told_from_text(server, given):
    """They are another model's; LangChain sends them unless it is told otherwise."""
    with (
        server.client() as client,
        pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"),
    ):
        client.embeddings.create(model="cmt", input=given)


def test_what_is_not_there_says_what_is(server):
    """Completions of a prompt, and other addresses."""
    with server.client() as client:
        with pytest.raises(openai.NotFoundError, match="send messages to chat/completions"):
            client.completions.create(model="cmt", prompt="Where?")
        with pytest.raises(openai.NotFoundError, match="which are not kept"):
            client.responses.retrieve("resp_1")
    assert server.http.get("/api/nowhere").json()["error"]["message"] == "Not Found"
