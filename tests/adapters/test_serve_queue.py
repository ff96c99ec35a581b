"""The line before the one model: who waits, who is sent away, who hangs up, and how it all ends."""

import concurrent.futures
import contextlib
import json
import select
import socket
import time

import httpx
import openai
import pytest

from tests.adapters.serving import LONG, running

pytestmark = pytest.mark.enable_socket

LISBON = "The museum moved to Lisbon in 2019."
ASKED = {"question": "Where did the museum move to?"}
CHAT = {"model": "cmt", "messages": [{"role": "user", "content": ASKED["question"]}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server at whose model two may wait."""
    with running(tmp_path_factory.mktemp("served") / "notes", max_queue=2) as made:
        made.memory.add(LISBON)
        yield made


@pytest.fixture
def held(server):
    """The server, whose answers wait; in the end they go on, nobody is left in the line, and what
    was kept is gone: of several notes the best is read twice.
    """
    server.reader.hold()
    yield server
    server.reader.go()
    until(lambda: not server.queue.running)
    for document in server.memory.documents():
        if document.text != LISBON:
            server.memory.forget(document.id)


@pytest.fixture
def aside():
    """Requests that run beside the test."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield pool.submit


def until(condition):
    """Wait for what comes soon."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextlib.contextmanager
def sent(url, path, body):
    """A request that is under way throughout the block; then its client hangs up, without an
    answer.
    """
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type:"
        f" application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=LONG) as connection:
        connection.sendall(head.encode() + data)
        yield
        assert body.get("stream") or not select.select([connection], [], [], 0)[0]


def fill(server, aside):
    """One answer under way and two that wait."""
    asked = [aside(httpx.post, f"{server.url}/api/ask", json=ASKED, timeout=LONG)]
    until(lambda: server.queue.running)
    for waiting in (1, 2):
        asked.append(aside(httpx.post, f"{server.url}/api/ask", json=ASKED, timeout=LONG))
        until(lambda n=waiting: server.queue.waiting == n)
    return asked


def test_who_finds_the_line_full_is_sent_away(held, aside):
    """With the time to try again; what needs no model is answered all the while, and those in the
    line get their answers.
    """
    asked = fill(held, aside)
    for path, body in (
        ("/api/ask", ASKED),
        ("/api/ask", {**ASKED, "stream": True}),
        ("/v1/chat/completions", CHAT),
    ):
        answer = held.http.post(path, json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (
            "2 requests wait for the model already, the limit is 2"
            in answer.json()["error"]["message"]
        )
    assert held.http.post("/api/documents", json={"text": "Ann likes tea."}).status_code == 503
    assert held.http.get("/api/search", params={"q": "tea"}).status_code == 503
    assert held.http.get("/api/search", params={"q": "museum", "mode": "text"}).status_code == 200
    assert held.http.get("/api/documents").json()["documents"][0]["text"] == LISBON
    with held.client() as client, pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="cmt", input="tea")
    assert held.memory.count() == 1
    held.reader.go()
    assert [a.result().json()["text"] for a in asked] == [LISBON] * 3


def test_answers_are_one_after_another(held, aside):
    """In the order in which they came."""
    before = len(held.reader.questions)
    words = ["first", "second", "third"]
    asked = []
    for n, word in enumerate(words):
        asked.append(
            aside(
                httpx.post,
                f"{held.url}/api/ask",
                json={"question": f"{word} museum?"},
                timeout=LONG,
            )
        )
        until(lambda n=n: held.queue.running and held.queue.waiting == n)
    until(lambda: len(held.reader.questions) == before + 1)
    held.reader.go()
    assert all(a.result().status_code == 200 for a in asked)
    assert held.reader.questions[before:] == [f"{word} museum?" for word in words]


@pytest.mark.parametrize(("path", "body"), [("/api/ask", ASKED), ("/v1/chat/completions", CHAT)])
@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_stops_the_generation(held, path, body, stream):
    """Between two words, in a stream or not; the turn is the next one's, and what was said is not
    remembered.
    """
    said, count = held.reader.said, held.memory.count()
    with httpx.Client(base_url=held.url, timeout=LONG) as http:
        request = http.build_request("POST", path, json={**body, "stream": stream})
        if stream:
            held.reader.words.release(2)
            answer = http.send(request, stream=True)
            until(lambda: held.reader.said == said + 2)
            answer.close()
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.send(
                    http.build_request("POST", path, json={**body, "stream": stream}, timeout=0.5)
                )
    until(lambda: not held.queue.running)
    held.reader.go()
    assert held.http.post("/api/ask", json=ASKED).json()["text"] == LISBON
    assert held.reader.said <= said + 2 + 1 + 8  # two words, one under way, and the next answer
    assert held.memory.count() == count


def test_who_hangs_up_in_the_line_leaves_it(held, aside):
    """And whoever came later moves up."""
    asked = aside(httpx.post, f"{held.url}/api/ask", json=ASKED, timeout=LONG)
    until(lambda: held.queue.running)
    before = len(held.reader.questions)
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{held.url}/api/ask", json={**ASKED, "stream": stream}, timeout=0.3)
        until(lambda: held.queue.waiting == 0)
    later = aside(
        httpx.post, f"{held.url}/api/ask", json={"question": "Which museum?"}, timeout=LONG
    )
    until(lambda: held.queue.waiting == 1)
    held.reader.go()
    assert asked.result().json()["text"] == later.result().json()["text"] == LISBON
    assert held.reader.questions[before:] in (
        [ASKED["question"], "Which museum?"],
        ["Which museum?"],
    )


def test_who_reads_slowly_keeps_nobody_waiting(held):
    """The answer is generated to its end while its client still reads the first word."""
    held.reader.go()
    with (
        httpx.Client(base_url=held.url, timeout=LONG) as http,
        http.stream("POST", "/api/ask", json={**ASKED, "stream": True}) as slow,
    ):
        lines = slow.iter_lines()
        next(lines)
        assert held.http.post("/api/ask", json=ASKED).json()["text"] == LISBON
        assert sum(line == "event: piece" for line in lines) >= 6


def test_texts_of_all_that_wait_are_embedded_together(held, aside, monkeypatch):
    """In one pass, each text once; everybody gets their own vectors, and one who hangs up spoils
    nothing.
    """
    passes = []
    embed = type(held.memory.model).embed
    monkeypatch.setattr(
        type(held.memory.model),
        "embed",
        lambda self, texts: passes.append(list(texts)) or embed(self, texts),
    )
    asked = aside(httpx.post, f"{held.url}/api/ask", json=ASKED, timeout=LONG)
    until(lambda: held.queue.running)
    first, second = (
        aside(
            httpx.post,
            f"{held.url}/v1/embeddings",
            json={"model": "cmt", "input": texts},
            timeout=LONG,
        )
        for texts in (["tea", "harbour"], ["harbour", "museum"])
    )
    until(lambda: held.queue.waiting == 2)
    held.reader.go()
    made = [[e["embedding"] for e in a.result().json()["data"]] for a in (first, second)]
    assert asked.result().status_code == 200
    assert len(passes) == 1
    assert sorted(passes[0]) == ["harbour", "museum", "tea"]
    assert made[0][1] == made[1][0]
    assert made == [
        embed(held.memory.model, texts).tolist()
        for texts in (["tea", "harbour"], ["harbour", "museum"])
    ]


def test_one_who_embeds_for_others_may_hang_up(held, aside):
    """The next in the line does it."""
    asked = aside(httpx.post, f"{held.url}/api/ask", json=ASKED, timeout=LONG)
    until(lambda: held.queue.running)
    body = {"model": "cmt", "input": "tea"}
    with sent(held.url, "/v1/embeddings", body):
        until(lambda: held.queue.waiting == 1)
    second = aside(httpx.post, f"{held.url}/v1/embeddings", json=body, timeout=LONG)
    until(lambda: held.queue.waiting == 1)
    held.reader.go()
    assert asked.result().status_code == 200
    assert len(second.result().json()["data"]) == 1


def test_answers_under_way_end_before_the_server_does(tmp_path, aside):
    """Those that wait, and those that still come, are sent away; then nobody listens any more."""
    with running(tmp_path / "notes") as server:
        server.memory.add(LISBON)
        server.reader.hold()
        running_, waiting, _ = fill(server, aside)
        server.stop()
        until(lambda: server.queue.closing)
        late = server.http.post("/api/ask", json=ASKED)
        assert (late.status_code, late.json()["error"]["message"]) == (
            503,
            "the server is shutting down",
        )
        server.reader.go()
        assert running_.result().json()["text"] == LISBON
        assert waiting.result().status_code == 503
        assert "shutting down" in waiting.result().json()["error"]["message"]
        until(lambda: is_closed(server.url))


def is_closed(url):
    """Nobody listens."""
    try:
        httpx.get(url)
    except httpx.TransportError:
        return True
    return False


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_told_stays_where_the_client_hangs_up(held, aside, stream):
    """Before its turn at the model comes, and while its reply is written."""
    text = f"I am allergic to {'walnuts' if stream else 'hazelnuts'}. What is Ann allergic to?"
    body = {"model": "cmt", "stream": stream, "messages": [{"role": "user", "content": text}]}
    first = aside(httpx.post, f"{held.url}/api/ask", json=ASKED, timeout=LONG)
    until(lambda: held.queue.running)
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{held.url}/v1/chat/completions", json=body, timeout=0.5)
    held.reader.go()
    assert first.result().status_code == 200
    until(lambda: any(d.text in text for d in held.memory.documents(source="chat")))
    kept = list(held.memory.documents(source="chat"))
    assert [d.text for d in kept] == [text.split(". ")[0] + "."]
    held.memory.delete(kept[0].id)
