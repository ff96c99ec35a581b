"""A generator writes answers and replies from the passages that are found; each of its failures is
an error with the value and the remedy.
"""

from __future__ import annotations

import io
import json
import logging
import re

import pytest

import cmt_sdk
from cmt_sdk.config.address import is_loopback
from cmt_sdk.config.settings import Settings
from cmt_sdk.endpoint import KEY, LONGEST_LINE, Endpoint, without_thoughts
from cmt_sdk.errors import GeneratorError, InvalidSetting
from cmt_sdk.testing.fakes import open_fake
from cmt_sdk.text.prompt_messages import UNKNOWN
from cmt_sdk.types import Turn
from tests.unit.generator_server import (
    END,
    EVENTS,
    HTML,
    JSON,
    event,
    fails,
    keeps_alive,
    says,
    sends,
    serving,
    sleeps,
)

pytestmark = pytest.mark.enable_socket
MUSEUM = "The museum moved to Lisbon in 2019."
QUESTION = "Where is the museum now?"
SECRET = "-".join(["sk", "very", "private", "1234"])


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)


@pytest.fixture
def server():
    with serving(says("Lis", "bon", ".")) as made:
        yield made


@pytest.fixture
def memory(tmp_path, server):
    settings = {"generator": server.url, "generator_model": "qwen", "generator_timeout": 1}
    with open_fake(tmp_path / "notes", **settings) as made:
        made.add(MUSEUM, source="trip.md")
        yield made


# -- what it gets and what comes of it -----------------------------------------------------------


def test_the_generator_answers_from_the_passages(memory, server):
    """It gets the passage's text with its day and source; the answer names its source."""
    answer = memory.ask(QUESTION)
    assert (answer.text, answer.abstained, answer.reader) == ("Lisbon.", False, "text")
    assert [(s.source, s.holds_answer, s.quote) for s in answer.sources] == [
        ("trip.md", True, "Lisbon")
    ]
    assert (answer.prompt_tokens, answer.answer_tokens, answer.confidence) == (70, 2, 1.0)
    assert MUSEUM in server.last
    assert "trip.md]" in server.last
    assert server.last.endswith(QUESTION)
    assert UNKNOWN in server.system
    assert server.bodies[-1]["model"] == "qwen"
    assert server.bodies[-1]["max_tokens"] == 64


def test_the_answer_comes_in_pieces(memory):
    """As the server sends them."""
    stream = memory.ask(QUESTION, stream=True)
    assert list(stream) == ["Lis", "bon", "."]
    assert stream.answer.text == "Lisbon."


@pytest.mark.parametrize(
    "words", ["I don't know.", "I don’t know", " i don't know. The notes…", "(I don't know."]
)
def test_a_refusal_of_the_model_is_an_abstention(memory, server, words):
    """In the spellings that models use."""
    server.plays = [says(words)]
    answer = memory.ask(QUESTION)
    assert (answer.abstained, answer.confidence) == (True, 0.0)


def test_where_nothing_is_found_nothing_is_sent(tmp_path, server):
    """The reply is the one without a generator."""
    with open_fake(tmp_path / "n", generator=server.url, generator_model="m") as memory:
        answer = memory.ask(QUESTION)
        assert (answer.text, answer.abstained) == (UNKNOWN, True)
        assert memory.chat().say(QUESTION).text == UNKNOWN
    assert server.bodies == []


def test_words_that_stand_in_no_passage_lower_the_confidence(memory, server):
    """A generator tells no probability: the place of its words is what there is."""
    server.plays = [says("Kathmandu")]
    answer = memory.ask(QUESTION)
    assert answer.confidence == 0.5
    assert not answer.sources[0].holds_answer


def test_the_bare_model_gets_the_question_alone(memory, server):
    """`reader="none"`."""
    answer = memory.ask(QUESTION, reader="none")
    assert (answer.reader, answer.sources) == ("none", [])
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": QUESTION}]


def test_thoughts_are_no_part_of_the_answer(memory, server):
    """What a reasoning model writes before it."""
    server.plays = [says("<th", "ink>Lisbon? Porto?", "</think>", "\n\n", "Lis", "bon")]
    assert list(memory.ask(QUESTION, stream=True)) == ["Lis", "bon"]


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        (["<", "b>"], "<b>"),
        (["<think>a</think>b", "c"], "bc"),
        (["<think>", "never ends"], ""),
        (["", " "], ""),
        (["2 < 3"], "2 < 3"),
    ],
)
def test_only_thoughts_at_the_beginning_are_left_out(pieces, wanted):
    """The rest is the answer as it is."""
    assert "".join(without_thoughts(pieces)) == wanted


def test_a_server_that_does_not_stream_is_read_too(memory, server):
    """Its one JSON value is the answer."""
    whole = {"choices": [{"message": {"content": "Lisbon"}}]}
    server.plays = [sends(json.dumps(whole), JSON)]
    assert memory.ask(QUESTION).text == "Lisbon"


def test_an_answer_that_ends_at_max_tokens_is_truncated(memory, server):
    """As the server says; without its counts too."""
    server.plays = [sends(event("Lis") + event(finish="length") + "data: [DONE]\n\n")]
    answer = memory.ask(QUESTION, max_tokens=5)
    assert (answer.text, answer.truncated) == ("Lis", True)


def test_a_server_that_never_ends_is_left(memory, server):
    """It ignores max_tokens: the answer ends, and is marked."""
    server.plays = [sends(event("la " * 100) * 100)]
    answer = memory.ask(QUESTION, max_tokens=8)
    assert answer.truncated
    assert len(answer.text) < 600


def test_options_that_a_server_refuses_are_left_out(memory, server):
    """As those of reasoning models do."""
    server.plays = [
        fails(400, "use max_completion_tokens", param="max_tokens"),
        fails(400, "only the default", param="temperature"),
        says("Lisbon"),
    ]
    assert memory.ask(QUESTION).text == "Lisbon"
    assert server.bodies[-1]["max_completion_tokens"] == 64
    assert not {"max_tokens", "temperature"} & set(server.bodies[-1])


# -- a conversation -------------------------------------------------------------------------------


def test_a_statement_is_kept_and_the_generator_replies(memory, server):
    """It knows that the statement was kept, and reads no note of it as one of its own."""
    server.plays = [says("Nice, Porto is lovely!")]
    answer = memory.chat(remember=True).say("I live in Porto.")
    assert answer.text == "Nice, Porto is lovely!"
    assert "I live in Porto." in [d.text for d in memory.documents()]
    assert "has just been kept" in server.system
    assert server.last == "I live in Porto."


def test_the_days_that_a_statement_means_stand_with_it(memory, server):
    """After the day and the time at which it was stated."""
    chat = memory.chat(remember=True)
    chat.say("I saw the dentist yesterday.")
    chat.say("When was I at the dentist?")
    assert re.search(
        r"\[\d{4}-\d\d-\d\d \d\d:\d\d, chat, yesterday: \d{4}-\d\d-\d\d\]\nI saw the dentist",
        server.last,
    )


def test_statements_are_read_in_the_order_in_which_they_were_made(tmp_path, server):
    """Those of one day differ in their order alone, and the latest one is right."""
    with open_fake(
        tmp_path / "talk", generator=server.url, generator_model="m", generator_timeout=5.0
    ) as memory:
        chat = memory.chat(remember=True)
        for said in ("I live in Bristol, where I live well.", "I moved.", "I live in Cardiff."):
            chat.say(said)
        chat.say("Where do I live?")
    places = [server.last.index(word) for word in ("Bristol", "Cardiff", "Where do I live?")]
    assert places == sorted(places)


def test_without_remember_the_generator_claims_nothing(memory, server):
    """It is told that nothing is kept."""
    memory.chat().say("I live in Porto.")
    assert "do not claim" in server.system
    assert memory.count() == 1


def test_only_a_question_may_be_answered_with_not_knowing(memory, server):
    """A small model that may say so says so to statements and greetings."""
    chat = memory.chat(remember=True)
    for text, may in (("Hello there!", False), ("I keep bees.", False), (QUESTION, True)):
        chat.say(text)
        assert (UNKNOWN in server.system) is may, text


def test_small_talk_goes_with_rules_and_history(memory, server):
    """The system's words come first; the turns follow; what does not fit is left out."""
    chat = memory.chat(turns=[Turn("system", "You are a pirate.")])
    chat.say("Hello there!")
    chat.say("Thanks a lot!")
    roles = [m["role"] for m in server.bodies[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert server.system.startswith("You are a pirate.")
    assert server.last == "Thanks a lot!"


def test_a_question_of_a_conversation_reads_its_notes(memory, server):
    """And the turns before it."""
    chat = memory.chat()
    chat.say("Hello!")
    answer = chat.say(QUESTION)
    assert MUSEUM in server.last
    assert answer.sources[0].source == "trip.md"
    assert [t.content for t in chat.turns][-1] == "Lisbon."


def test_a_request_to_forget_needs_no_generator(memory, server):
    """What erases is ours: the question and the receipt are fixed."""
    chat = memory.chat(remember=True)
    chat.say("My phone number is 555 0134.")
    sent = len(server.bodies)
    assert "555 0134" in chat.say("Forget my phone number.").text
    assert chat.say("Yes.").text.startswith("Erased: 1")
    assert len(server.bodies) == sent


def test_a_prompt_that_no_person_wrote_goes_as_it_is(memory, server):
    """A front end asks for a title: no notes, no rules of ours."""
    memory.chat(remember=True).say("Generate a title.\nUSER: I live in Berlin.")
    assert [m["role"] for m in server.bodies[-1]["messages"]] == ["user"]
    assert memory.count() == 1


def test_a_note_that_a_later_one_replaces_is_marked(memory, server, monkeypatch):
    """So that the model can answer what is, and what was before."""
    memory.add("The museum moved to Porto in 2021.", source="new.md")
    first, second = memory.search(QUESTION, 2)
    from dataclasses import replace

    marked = [first, replace(second, superseded_by=first.document.id)]
    monkeypatch.setattr(
        type(memory.model._retriever.supersession), "choose_by_time", lambda *_, **__: marked
    )
    memory.ask(QUESTION)
    assert server.last.count("replaced by a later note") == 1


# -- failures -------------------------------------------------------------------------------------

FAILURES = {
    "401": (fails(401, "Incorrect API key"), ["401", "Incorrect API key", KEY, "no key"]),
    "403": (fails(403, "no access"), ["403", "no access", KEY]),
    "404": (fails(404, "model 'qwen' not found"), ["404", "'qwen'", "/v1", "llama3, mistral"]),
    "429": (fails(429, "slow down"), ["429", "slow down", "in 7 seconds"]),
    "500": (fails(500, "out of memory"), ["500", "out of memory", "log", "try again"]),
    "502 with a page": (sends("<h1>Bad</h1>", HTML, 502), ["502", "<h1>Bad</h1>"]),
    "400": (fails(400, "context length exceeded"), ["400", "context length", "smaller k"]),
    "moved": (sends("", HTML, 301, location="http://x/v1"), ["301", "'http://x/v1'"]),
    "a page": (sends("<html>", HTML), ["text/html", "up to /v1"]),
    "no JSON": (sends("data: {nonsense\n\n"), ["no JSON", "{nonsense", "up to /v1"]),
    "a number": (sends("data: 7\n\n"), ["'7'"]),
    "an error in the stream": (
        sends(event("Lis") + 'data: {"error": {"message": "CUDA is gone"}}\n\n'),
        ["CUDA is gone"],
    ),
    "other fields": (sends('{"answer": "Lisbon"}', JSON), ["empty"]),
    "odd choices": (sends('data: {"choices": [7]}\n\n' + END), ["empty"]),
    "nothing": (sends(""), ["empty", "another generator_model"]),
    "white space": (says(" ", "\n"), ["empty"]),
    "thoughts alone": (
        sends(event("<think>so many") + event(finish="length") + "data: [DONE]\n\n"),
        ["64 tokens", "max_tokens"],
    ),
    "broken off": (sends(event("Lis")), ["broke off after 3 characters", "again"]),
    "a line without an end": (sends("data: " + "a" * (LONGEST_LINE + 9), EVENTS), ["1,048,576"]),
    "a text without an end": (sends(" " * (LONGEST_LINE + 9), JSON), ["1,048,576"]),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_is_an_error_with_its_remedy(memory, server, failure):
    """It names the address and the model or the value; nothing is stored."""
    play, words = FAILURES[failure]
    server.plays, server.models = [play], ["llama3", "mistral"]
    with pytest.raises(GeneratorError) as raised:
        memory.ask(QUESTION)
    assert server.url in str(raised.value)
    for word in words:
        assert word in str(raised.value)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize(
    "play", [sleeps(), sleeps("Lis"), keeps_alive], ids=["at first", "within", "comments alone"]
)
def test_a_server_that_falls_silent_is_left_after_the_timeout(memory, server, play):
    """Also one that keeps the connection open with comments."""
    server.plays = [play]
    with pytest.raises(GeneratorError, match=r"1 seconds.*generator_timeout"):
        memory.ask(QUESTION)


def test_a_server_that_is_not_there(tmp_path, server):
    """The address and what to do."""
    settings = {"generator": "http://127.0.0.1:9/v1", "generator_model": "m"}
    with open_fake(tmp_path / "n", **settings) as memory:
        memory.add(MUSEUM)
        with pytest.raises(GeneratorError, match=r"127\.0\.0\.1:9/v1 cannot be reached.*Start it"):
            memory.ask(QUESTION)


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "gopher://x"), ("SSL_CERT_FILE", "/nowhere.pem")]
)
def test_an_environment_that_cannot_be_used(monkeypatch, name, value):
    """A proxy of another kind, certificates that are not there: the variables are named."""
    monkeypatch.setenv(name, value)
    endpoint = Endpoint.of("https://generator.example/v1", "m", 1, None, named=True)
    with pytest.raises(GeneratorError, match=name):
        list(endpoint.write([{"role": "user", "content": "?"}], 8))


def test_a_budget_counts_the_text_that_is_read(tmp_path, server):
    """Not the compressed passages, which the generator does not read."""
    with open_fake(tmp_path / "n", generator=server.url, generator_model="m") as memory:
        for number in range(4):
            memory.add(f"Museum {number} is in Lisbon. " * 5)
        assert len(memory.ask(QUESTION, budget=50).sources) == 2


def test_a_proxy_is_not_asked_for_this_machine(memory, monkeypatch):
    """It could not reach what listens here alone."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert memory.ask(QUESTION).text == "Lisbon."


def test_a_failed_reply_leaves_the_statement_and_no_turn(memory, server):
    """Said again it is one document, and is answered."""
    chat = memory.chat(remember=True)
    server.plays = [fails(500), says("Fine.")]
    with pytest.raises(GeneratorError):
        chat.say("I live in Porto.")
    assert (chat.turns, chat.last, memory.count()) == ([], None, 2)
    assert chat.say("I live in Porto.").text == "Fine."
    assert memory.count() == 2


def test_others_search_while_the_generator_writes(memory, server):
    """The lock around the frozen model is free meanwhile."""
    stream = iter(memory.ask(QUESTION, stream=True))
    next(stream)
    assert memory.search("museum")
    assert "".join(stream) == "bon."


# -- address, model and key -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["", "localhost:11434", "ftp://a/v1", "http://", "http://[::1", "http://a:x/v1", "http://a b/"],
)
def test_what_is_no_address_is_refused(address):
    """With an example."""
    with pytest.raises(InvalidSetting, match=r"http://127\.0\.0\.1:11434/v1"):
        Settings(generator=address, generator_model="m")


@pytest.mark.parametrize("address", [f"http://me:{SECRET}@host/v1", f"http://host/v1?key={SECRET}"])
def test_an_address_with_a_secret_is_refused_without_it(address):
    """It would be stored."""
    with pytest.raises(InvalidSetting, match=KEY) as raised:
        Settings(generator=address, generator_model="m")
    assert SECRET not in str(raised.value)


def test_a_generator_needs_the_name_of_its_model():
    """The name may be set first."""
    with pytest.raises(InvalidSetting, match="generator_model"):
        Settings(generator="http://127.0.0.1:1/v1")
    assert Settings(generator_model="m").generator is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://localhost/v1", True),
        ("http://127.0.0.1.evil.example/v1", False),
        ("http://192.168.0.7/v1", False),
        ("nothing", False),
    ],
)
def test_this_machine(address, expected):
    """By address or name."""
    assert is_loopback(address) is expected


def test_a_recorded_address_of_another_machine_is_not_used_by_itself(tmp_path):
    """A folder from elsewhere must not choose who reads the questions."""
    settings = {"generator": "https://elsewhere.example/v1", "generator_model": "m"}
    with open_fake(tmp_path / "n", **settings) as memory:
        memory.add(MUSEUM)
    with open_fake(tmp_path / "n") as memory:
        assert memory.settings.generator == "https://elsewhere.example/v1"
        with pytest.raises(GeneratorError, match=r"elsewhere\.example.*name it yourself"):
            memory.ask(QUESTION)


def test_a_recorded_address_of_this_machine_is_used(tmp_path, server):
    """As any other setting."""
    with open_fake(tmp_path / "n", generator=server.url, generator_model="m") as memory:
        memory.add(MUSEUM)
    with open_fake(tmp_path / "n") as memory:
        assert memory.ask(QUESTION).text == "Lisbon."
        memory.configure(generator=None)
    with open_fake(tmp_path / "n") as memory:
        assert memory.ask(QUESTION).text == MUSEUM


def test_the_key_is_sent_and_nowhere_else(tmp_path, server, monkeypatch):
    """Not stored, not logged, not shown, not in an error that repeats the server's words."""
    monkeypatch.setenv(KEY, SECRET)
    log = logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(logging.root, "handlers", [log])
    monkeypatch.setattr(logging.root, "level", logging.DEBUG)
    folder = tmp_path / "n"
    with open_fake(folder, generator=server.url, generator_model="m") as memory:
        memory.add(MUSEUM)
        memory.ask(QUESTION)
        server.plays = [fails(401, f"Incorrect API key provided: {SECRET}")]
        with pytest.raises(GeneratorError) as raised:
            memory.ask(QUESTION)
    assert server.keys == [f"Bearer {SECRET}"] * 2
    shown = [str(raised.value), log.stream.getvalue(), repr(memory), repr(memory.settings)]
    shown += [repr(Endpoint.of(server.url, "m", 1, None, named=True))]
    assert not any(SECRET in text for text in shown)
    assert not any(SECRET.encode() in file.read_bytes() for file in folder.iterdir())


def test_a_key_that_a_header_cannot_carry_is_refused_without_it():
    """Before anything is sent."""
    with pytest.raises(InvalidSetting, match=KEY) as raised:
        Endpoint.of("http://127.0.0.1:1/v1", "m", 1, "sécret", named=True)
    assert "sécret" not in str(raised.value)


def test_open_takes_the_settings_and_the_key():
    """As keyword arguments."""
    assert {"generator", "generator_model", "generator_timeout"} <= set(Settings.names())
    assert "generator_key" in (cmt_sdk.open.__kwdefaults__ or {})
    assert "generator_key" not in Settings.names()


# -- the command line -----------------------------------------------------------------------------


def test_the_commands_take_the_generator(cmt, server):
    """As options, and from the environment."""
    options = ["--generator", server.url, "--generator-model", "m"]
    cmt("add", "-", stdin=MUSEUM)
    assert cmt("ask", QUESTION, *options).stdout.startswith("Lisbon.")
    assert cmt("chat", *options, stdin=f"{QUESTION}\n").stdout.startswith("Lisbon.")
    assert cmt.json("config")["settings"]["generator"] is None


def test_the_environment_names_the_generator(cmt, server, monkeypatch):
    """For every command that answers."""
    cmt("add", "-", stdin=MUSEUM)
    monkeypatch.setenv("CMT_GENERATOR", server.url)
    monkeypatch.setenv("CMT_GENERATOR_MODEL", "m")
    assert cmt("ask", QUESTION).stdout.startswith("Lisbon.")


def test_a_memory_can_record_its_generator(cmt, server):
    """With `cmt config set`."""
    cmt("add", "-", stdin=MUSEUM)
    refused = cmt("config", "set", "generator", server.url, code=None)
    assert "generator_model" in refused.output
    cmt("config", "set", "generator_model", "m")
    cmt("config", "set", "generator", server.url)
    assert cmt("ask", QUESTION).stdout.startswith("Lisbon.")
    cmt("config", "set", "generator", "default")
    assert cmt("ask", QUESTION).stdout.startswith(MUSEUM)


def test_a_failure_at_the_command_line_is_one_message(cmt, server):
    """With a code of its own, and no traceback."""
    cmt("add", "-", stdin=MUSEUM)
    server.plays = [fails(401, "bad key")]
    done = cmt("ask", QUESTION, "--generator", server.url, "--generator-model", "m", code=None)
    assert done.exit_code != 0
    assert "401 (bad key)" in done.output
    assert "Traceback" not in done.output
