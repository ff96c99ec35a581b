"""What operators ask the server: does it live, is it ready, what does it count and log; and how it
drains.
"""

import io
import json
import logging
import re
import signal
import sys
import threading
from contextlib import contextmanager

import httpx
import pytest

from cmt_adapters.server import monitor, probes
from cmt_adapters.server.logs import formatter
from cmt_adapters.server.tracing import tracing_from_environment
from cmt_sdk.errors import InvalidSetting, MissingExtra, ModelNotFound, StorageError
from tests.adapters.serving import LONG, running
from tests.adapters.test_serve_queue import until

pytestmark = pytest.mark.enable_socket

TOKEN = "swordfish-0123456789"  # noqa: S105 - of a server that lives for a test
SECRET = "zanzibarquartz"  # noqa: S105 - a word
CHAT = {"model": "cmt", "messages": [{"role": "user", "content": "Where does the boat lie?"}]}
GENOA = "The boat lies in the harbour of Genoa."


@pytest.fixture(autouse=True)
def _only_this_server_ends(monkeypatch):
    """A signal to one server ends the event streams of all servers in a process, those of MCP in
    other tests too.
    """
    if (streams := sys.modules.get("sse_starlette.sse")) is not None:
        monkeypatch.setattr(streams.AppStatus, "should_exit", False)


@pytest.fixture
def server(tmp_path):
    with running(tmp_path / "notes") as made:
        yield made


def numbers(server):
    """The metrics by name with labels."""
    text = server.http.get("/metrics").text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def failing(error):
    """A function that raises this."""

    def fail(*_):
        raise error

    return fail


# -- probes --------------------------------------------------------------------------------------


def test_a_server_is_not_ready_while_its_store_is_away(server, monkeypatch, caplog):
    """It says why in fixed words, without the message, which names addresses; it lives all the
    while, and is ready again when the store is back.
    """
    kind = type(server.memory)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "get", failing(StorageError(f"no connection to db-{SECRET}")))
        refused = server.http.get("/readyz")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        message = refused.json()["error"]["message"]
        assert message == "the memory's files or database cannot be reached: StorageError"
        assert server.http.get("/healthz").json() == {"ok": True}
    assert server.http.get("/readyz").json() == {"ok": True}
    assert SECRET not in caplog.text
    assert f"not ready: {message}" in caplog.text


def test_a_server_is_not_ready_without_its_model(server, monkeypatch):
    """One that was loaded is not asked for again."""
    kind = type(server.memory)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "fingerprint", property(failing(ModelNotFound("cmt model pull"))))
        refused = server.http.get("/readyz")
        assert refused.status_code == 503
        assert refused.json()["error"]["message"] == "the model is not loaded: ModelNotFound"
    assert server.http.get("/readyz").status_code == 200
    monkeypatch.setattr(kind, "fingerprint", property(failing(ModelNotFound("cmt model pull"))))
    assert server.http.get("/readyz").status_code == 200


def test_a_store_that_hangs_holds_up_no_probe(server, monkeypatch):
    """The check goes on in a thread of its own: a second probe begins no other one."""
    monkeypatch.setattr(probes, "READY_SECONDS", 0.1)
    go, calls = threading.Event(), []

    def hang(*_):
        calls.append(1)
        go.wait(LONG)

    monkeypatch.setattr(type(server.memory), "get", hang)
    for _ in range(2):
        assert "takes over 0.1 s" in server.http.get("/readyz").json()["error"]["message"]
    assert server.http.get("/healthz").status_code == 200
    assert len(calls) == 1
    go.set()
    until(lambda: server.http.get("/readyz").status_code == 200)


def test_probes_need_no_token_and_metrics_do(tmp_path):
    """What is counted tells of the use; whether a server lives does not."""
    with running(tmp_path / "notes", token=TOKEN) as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert "cmt_documents 0.0" in server.http.get("/metrics").text


# -- metrics -------------------------------------------------------------------------------------


def test_requests_answers_and_sizes_are_counted(server, monkeypatch):
    """By route, status and stage; a reply of the model that needs no memory is an answer too."""
    monkeypatch.setattr(monitor, "STATS_SECONDS", 0.0)
    server.http.post("/api/documents", json={"text": GENOA})
    server.http.post("/api/ask", json={"question": "Where does the boat lie?"})
    server.http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    server.http.post("/api/ask", json={"question": "Xylophones?"})
    server.http.post(
        "/v1/chat/completions",
        json={"model": "cmt", "messages": [{"role": "user", "content": "Hello!"}]},
    )
    server.http.get("/api/documents/nothing")
    server.http.request("ZAPP", "/nowhere")
    found = numbers(server)
    assert found['cmt_requests_total{method="POST",route="/api/ask",status="200"}'] == 2
    assert found['cmt_requests_total{method="GET",route="/api/documents/{id}",status="404"}'] == 1
    assert found['cmt_requests_total{method="other",route="-",status="404"}'] == 1
    assert found['cmt_request_seconds_count{route="/v1/chat/completions"}'] == 2
    assert (found["cmt_answers_total"], found["cmt_abstentions_total"]) == (3, 1)
    assert found['cmt_tokens_total{kind="generated"}'] > 2 * len(GENOA.split())
    assert found['cmt_stage_seconds_count{stage="search"}'] >= 3
    assert found['cmt_stage_seconds_count{stage="decode"}'] == 4
    assert found["cmt_documents"] == found["cmt_passages"] == 1
    assert (found["cmt_pending"], found["cmt_requests_waiting"]) == (0, 0)
    assert found["cmt_requests_running"] == 1  # this one


def test_each_application_counts_for_itself(tmp_path):
    """Several in one process do not meet."""
    with running(tmp_path / "a") as one, running(tmp_path / "b") as other:
        one.http.get("/api/stats")
        name = 'cmt_requests_total{method="GET",route="/api/stats",status="200"}'
        assert numbers(one)[name] == 1
        assert name not in numbers(other)


def test_metrics_are_there_while_the_store_is_away(server, monkeypatch):
    """Without the memory's numbers; also where it does not answer at all."""
    monkeypatch.setattr(monitor, "STATS_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(type(server.memory), "stats", failing(StorageError("away")))
        assert "cmt_documents" not in numbers(server)
    assert numbers(server)["cmt_documents"] == 0
    go = threading.Event()
    monkeypatch.setattr(monitor, "STATS_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(type(server.memory), "stats", lambda _: go.wait(LONG))
    assert numbers(server)["cmt_documents"] == 0  # the last ones
    go.set()


# -- logs, ids and spans -------------------------------------------------------------------------


@contextmanager
def logged(log_format):
    """What the server's loggers would write, all levels."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter(log_format))
    loggers = [logging.getLogger(n) for n in ("cmt_adapters", "cmt_sdk", "uvicorn")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield written
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def spans_in_memory():
    """A tracing and its exporter, which keeps the spans."""
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra otel")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from cmt_adapters.server.tracing import Tracing

    provider, exporter = trace.TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider), exporter


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_word_of_a_request_reaches_log_metrics_or_spans(tmp_path, monkeypatch, log_format):
    """Whatever is asked, stored, named or wrong; also where the server has a bug."""
    tracing, exporter = spans_in_memory()
    with logged(log_format) as log, running(tmp_path / "notes", tracing=tracing) as server:
        http, asked = server.http, {"question": f"Where is the {SECRET}?"}
        body = {"text": f"The {SECRET} is in Lisbon.", "source": SECRET, "scope": f"user/{SECRET}"}
        http.post("/api/documents", json={**body, "id": SECRET, "metadata": {SECRET: SECRET}})
        http.post("/api/ask", json=asked)
        http.post("/api/ask", json={**asked, "stream": True, "scope": f"user/{SECRET}"})
        http.post("/v1/chat/completions", json={**CHAT, "user": SECRET})
        http.post(
            "/v1/responses",
            json={"input": f"Where is {SECRET}?"},
            headers={"X-User-Id": SECRET, SECRET: SECRET},
        )
        http.get("/api/search", params={"q": SECRET}, headers={"X-Request-ID": SECRET})
        http.get(f"/api/documents/{SECRET}")
        http.get(f"/{SECRET}")
        http.request(SECRET.upper(), "/")
        monkeypatch.setattr(type(server.memory), "get", failing(ValueError(SECRET)))
        assert http.get(f"/api/documents/{SECRET}").status_code == 500
        # after a bug uvicorn closes the connection: these take new ones
        httpx.get(f"{server.url}/readyz", timeout=LONG)
        metrics = httpx.get(f"{server.url}/metrics", timeout=LONG).text
        said = {"log": log, "metrics": metrics, "spans": exporter}
        until(lambda: "ValueError" in log.getvalue())
    said["log"] = log.getvalue()
    said["spans"] = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "/api/ask" in said["log"]
    assert "/api/ask" in said["metrics"]
    assert "/api/ask" in said["spans"]
    for place, text in said.items():
        assert SECRET not in text.lower(), place


def test_the_json_log_has_an_object_for_each_request(server):
    """With the id that the response has; one that a proxy made is kept, words are not."""
    given = "0195f3a2-7d53-7000-8000-0242ac120002"
    with logged("json") as log:
        kept = server.http.get("/api/stats", headers={"X-Request-ID": given})
        made = server.http.get("/api/stats", headers={"X-Request-ID": f"{given} or words"})
        until(lambda: log.getvalue().count("/api/stats") == 2)
        server.http.get("/healthz")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    lines = [line for line in lines if line["level"] == "info" and "route" in line]
    assert [line["request_id"] for line in lines] == [
        r.headers["x-request-id"] for r in (kept, made)
    ]
    assert kept.headers["x-request-id"] == given
    assert re.fullmatch(r"[0-9a-f]{32}", made.headers["x-request-id"])
    assert lines[0].keys() == {
        "time",
        "level",
        "request_id",
        "method",
        "route",
        "status",
        "milliseconds",
    }
    with pytest.raises(InvalidSetting, match="'xml': choose one of"):
        formatter("xml")


def test_a_span_of_each_request_has_its_stages_as_children(tmp_path):
    """In the trace that the caller names, by route and status."""
    tracing, exporter = spans_in_memory()
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with running(tmp_path / "notes", tracing=tracing) as server:
        server.memory.add(GENOA)
        headers = {"traceparent": f"00-{trace}-{parent}-01"}
        server.http.post("/api/ask", json={"question": "Where does the boat lie?"}, headers=headers)
        until(lambda: any(s.name == "POST /api/ask" for s in exporter.get_finished_spans()))
    *stages, request = exporter.get_finished_spans()
    assert (request.name, request.attributes["http.response.status_code"]) == ("POST /api/ask", 200)
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (trace, parent)
    assert {"encode", "search", "load", "prefill", "decode"} <= {s.name for s in stages}
    assert {s.parent.span_id for s in stages} == {request.context.span_id}
    assert all(s.start_time <= s.end_time for s in stages)


def test_spans_are_made_only_where_the_environment_asks(monkeypatch):
    """Without the exporter the error is its install line."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert tracing_from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )
    with pytest.raises(MissingExtra, match=r"OTEL_EXPORTER_OTLP_ENDPOINT asks for"):
        tracing_from_environment()


# -- drain ---------------------------------------------------------------------------------------


def test_after_sigterm_a_stream_ends_and_new_requests_are_refused(server):
    """/readyz says so at once; /healthz and /metrics answer until the end."""
    server.memory.add(GENOA)
    server.reader.hold()
    server.server._drain_seconds = LONG
    chat = {**CHAT, "stream": True}
    with httpx.stream(
        "POST", f"{server.url}/v1/chat/completions", json=chat, timeout=LONG
    ) as open_:
        until(lambda: server.queue.running)
        server.server.handle_exit(signal.SIGTERM, None)
        refused = server.http.get("/readyz")
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            503,
            "the server is shutting down",
        )
        for path, body in (("/api/ask", {"question": "x"}), ("/api/documents", {"text": "x"})):
            late = server.http.post(path, json=body)
            assert (late.status_code, late.headers["retry-after"]) == (503, "5")
            assert late.headers["x-content-type-options"] == "nosniff"
        assert server.http.get("/healthz").status_code == 200
        assert numbers(server)["cmt_requests_running"] == 2
        server.reader.go()
        said = "".join(open_.iter_text())
    assert "Genoa." in said
    assert said.endswith("data: [DONE]\n\n")
    until(lambda: is_closed(server))
    assert server.memory.count() == 1


def is_closed(server):
    """Nobody listens."""
    try:
        httpx.get(f"{server.url}/healthz")
    except httpx.TransportError:
        return True
    return False


def test_an_upload_that_waits_for_the_model_is_drained_too(server):
    """Not answers alone: every request that is under way."""
    held, go = threading.Event(), threading.Event()
    compressor = server.memory._retriever.engine.compressor
    compress = compressor.compress

    def slow(texts):
        held.set()
        assert go.wait(LONG)
        return compress(texts)

    compressor.compress = slow
    server.server._drain_seconds = LONG
    done = []
    post = threading.Thread(
        target=lambda: done.append(
            httpx.post(f"{server.url}/api/documents", json={"text": GENOA}, timeout=LONG)
        )
    )
    post.start()
    assert held.wait(LONG)
    server.server.handle_exit(signal.SIGTERM, None)
    assert server.http.get("/readyz").status_code == 503
    go.set()
    post.join(LONG)
    assert (done[0].status_code, done[0].json()["ready"]) == (201, True)
