"""What is slow holds up neither a question nor the end of `cmt serve`: answers, uploads,
compression, streams.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest

from cmt_adapters.server import http_responses, uploads
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, open_fake
from tests.adapters.serving import LONG, running
from tests.adapters.test_serve_command import serving
from tests.adapters.test_serve_queue import sent, until

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.skipif(os.name != "posix", reason="a process is stopped by POSIX signals"),
]

GENOA = "The boat lies in the harbour of Genoa."
CHAT = {"model": "cmt", "messages": [{"role": "user", "content": "Where does the boat lie?"}]}

# A model that never ends: an answer after its first word, or the compression of what says so.
HELD = """
import sys, threading
from cmt_cli.main import main
from cmt_sdk.testing.fakes import FakeCompressor, FakeEngine, FakeReader, open_fake
from cmt_sdk.types import Piece
class Reader(FakeReader):
    def read(self, prompt, max_tokens):
        yield Piece("In ")
        threading.Event().wait()
class Compressor(FakeCompressor):
    def compress(self, texts):
        if any("for ever" in text for text in texts):
            threading.Event().wait()
        return super().compress(texts)
def opener(path, **options):
    return open_fake(path, FakeEngine(Compressor(), Reader()), **options)
main(sys.argv[1:], prog_name="cmt", obj=opener)
"""
# A server whose conversions never end: the program that should convert writes its number, and
# sleeps.
SLEEPY = """
import sys
from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake
sys.executable = sys.argv.pop(1)
main(sys.argv[1:], prog_name="cmt", obj=open_fake)
"""


@contextlib.contextmanager
def aside(work):
    """Run something beside the block; its result, or what it raised, is in the list that this
    gives.
    """
    found = []

    def run():
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001 - it is what the test asks for
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield found
    thread.join(LONG)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_that_does_not_end_is_broken_off(tmp_path, end):
    """With a status, in a stream with its last event; who waits is told too, and what was stored is
    there afterwards.
    """
    with (
        contextlib.ExitStack() as stack,
        serving(HELD, tmp_path / "notes", "--drain", "0.5", end=end) as url,
    ):
        made = httpx.post(f"{url}/api/documents", json={"text": GENOA}).json()
        stream = stack.enter_context(
            httpx.stream(
                "POST", f"{url}/v1/chat/completions", json={**CHAT, "stream": True}, timeout=LONG
            )
        )
        lines = stream.iter_lines()
        while '"In "' not in next(lines):
            pass
        waiting = stack.enter_context(
            aside(lambda: httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=LONG))
        )
        rest = stack.enter_context(aside(lambda: list(lines)))
        time.sleep(0.5)  # it is in the line by now
    assert waiting[0].status_code == 503
    assert "shutting down" in waiting[0].json()["error"]["message"]
    assert any("shutting down" in line for line in rest[0])
    with open_fake(tmp_path / "notes") as memory:
        assert memory.get(made["id"]).text == GENOA


def test_compression_that_does_not_end_is_left(tmp_path):
    """The text is safe, and is compressed when the memory is next opened."""
    with serving(HELD, tmp_path / "notes", "--drain", "0.5", end=signal.SIGTERM) as url:
        made = httpx.post(
            f"{url}/api/documents", json={"text": "This goes on for ever.", "wait": False}
        ).json()
        with sent(url, "/api/documents", {"text": "This too, for ever.", "wait": True}):
            until(lambda: len(httpx.get(f"{url}/api/documents").json()["documents"]) == 2)
    with open_fake(tmp_path / "notes") as memory:
        assert memory.count() == 2
        assert memory.compress() == 2
        assert memory.get(made["id"]).ready


def test_a_conversion_that_does_not_end_is_ended(tmp_path):
    """With its program; questions are answered beside it, and the file is not remembered."""
    script = tmp_path / "sleepy"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    script.chmod(0o755)
    number = tmp_path / "pid"
    with (
        contextlib.ExitStack() as stack,
        serving_with(SLEEPY, str(script), tmp_path / "notes") as url,
    ):
        file = {"file": ("a.md", b"text")}
        found = stack.enter_context(
            aside(lambda: httpx.post(f"{url}/api/files", files=file, timeout=LONG))
        )
        until(lambda: number.exists() and number.read_text().strip())
        assert httpx.post(f"{url}/v1/chat/completions", json=CHAT).status_code == 200
    assert isinstance(found[0], httpx.TransportError) or found[0].status_code >= 500
    until(lambda: not is_running(int(number.read_text())))


@contextlib.contextmanager
def serving_with(program, first, memory):
    """As `serving`, for a program that takes an argument before the others."""
    words = [
        sys.executable,
        "-c",
        program,
        first,
        "serve",
        "-m",
        str(memory),
        "--port",
        "0",
        "--drain",
        "0.5",
    ]
    with subprocess.Popen(
        words, env={**os.environ, "CMT_TOKEN": ""}, stderr=subprocess.PIPE, text=True
    ) as process:
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            yield process.stderr.readline().split(" at ")[1].split(";")[0]
            process.terminate()
            said = process.stderr.read()
            assert (process.wait(), said.splitlines()[-1]) == (
                0,
                "stopped; what was stored is safe",
            ), said
        finally:
            process.kill()
            guard.cancel()


def is_running(number):
    """Whether there is such a process, which is not only to be collected."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True


@contextlib.contextmanager
def uploading(url):
    """A file is on its way in throughout the block; then its client hangs up, without an answer."""
    request = httpx.Request("POST", f"{url}/api/files", files={"file": ("a.md", b"text")})
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((request.url.host, request.url.port), timeout=LONG) as connection:
        connection.sendall(f"POST /api/files HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        yield
        assert not select.select([connection], [], [], 0)[0]


def test_who_hangs_up_ends_the_conversion(tmp_path, monkeypatch):
    """The program that reads the file goes, and the next request has its turn."""
    script = tmp_path / "sleepy"
    script.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pid\nexec sleep 1000\n")
    script.chmod(0o755)
    number = tmp_path / "pid"
    with running(tmp_path / "notes") as server:
        monkeypatch.setattr(uploads.sys, "executable", str(script))
        for n in range(3):
            with uploading(server.url):
                until(lambda n=n: number.exists() and len(number.read_text().split()) == n + 1)
        until(lambda: not any(is_running(int(line)) for line in number.read_text().split()))
        monkeypatch.undo()
        taken = server.http.post("/api/files", files={"file": ("b.md", b"text")}).json()
    assert [d["source"] for d in taken["documents"]] == ["b.md"]


async def test_a_file_that_ends_its_reader_spoils_no_other(monkeypatch):
    """It is refused by its name, with what to do; those before and after it are read."""
    convert = uploads._convert

    async def dying(paths):
        bad = next((n for n, path in enumerate(paths) if path.suffix == ".bad"), len(paths))
        if bad:
            await convert(paths[:bad])

    monkeypatch.setattr(uploads, "_convert", dying)
    names = ["a.md", "x.bad", "b.md", "y.bad", "c.png"]
    found = await uploads.read_files(
        [(name, b"text" if name != "c.png" else b"\x89PNG\xff") for name in names]
    )
    assert [getattr(d, "source", None) for d in found] == ["a.md", None, "b.md", None, None]
    assert found[1].startswith("x.bad: it takes more than 60 seconds or 4 GiB of memory to read")
    assert found[1].endswith("split it, or add its text")
    assert found[4].startswith("c.png")


def test_the_program_that_reads_a_file_has_bounds():
    """Of computing time, which the system keeps whatever the program does."""
    endless = (
        "from cmt_adapters.server import uploads; uploads.MAX_CPU_SECONDS = 1; uploads._limit_child()\nwhile"
        " True: pass"
    )
    done = subprocess.run([sys.executable, "-c", endless], check=False, timeout=60)
    assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_a_stream_shows_that_it_is_alive_while_it_waits(tmp_path, monkeypatch):
    """In the line and before the first word: comments. What was said is heard where the client
    hangs up.
    """
    monkeypatch.setattr(http_responses, "KEEPALIVE_SECONDS", 0.02)
    with running(tmp_path / "notes") as server:
        server.memory.add(GENOA)
        server.reader.hold()
        body = {**CHAT, "stream": True}
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=body, timeout=LONG
        ) as first:
            lines = first.iter_lines()
            assert (first.status_code, next(lines)) == (200, ": the answer is under way")
            with httpx.stream(
                "POST",
                f"{server.url}/v1/responses",
                json={"input": "Where?", "stream": True},
                timeout=LONG,
            ) as second:
                others = second.iter_lines()
                assert next(others) == ": the answer is under way"
                until(lambda: server.queue.waiting == 1)
            server.reader.go()
            assert [line for line in lines if line][-1] == "data: [DONE]"
        until(lambda: server.queue.waiting == 0)
        server.reader.hold()
        threading.Timer(0.3, server.reader.go).start()
        with server.client() as client:
            chunks = list(client.chat.completions.create(**body))
        assert "".join(c.choices[0].delta.content or "" for c in chunks).strip() == GENOA


def test_what_goes_wrong_after_a_pulse_is_an_event(tmp_path, monkeypatch):
    """There is no status to be had any more."""
    monkeypatch.setattr(http_responses, "KEEPALIVE_SECONDS", 0.02)
    with running(tmp_path / "notes") as server:
        server.memory.add(GENOA)
        server.reader.hold()
        body = {**CHAT, "stream": True}
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=body, timeout=LONG
        ) as first:
            lines = first.iter_lines()
            assert next(lines).startswith(": ")
            server.server._queue.abort()
            assert any("shutting down" in line for line in lines)
        server.reader.go()


class Slow(FakeCompressor):
    """A compressor that counts its batches."""

    def __init__(self):
        super().__init__()
        self.batches = 0

    def compress(self, texts):
        """One batch."""
        self.batches += 1
        time.sleep(0.05)
        return super().compress(texts)


async def test_questions_go_before_compression(tmp_path, monkeypatch):
    """While an answer is under way, and between its words, no batch of a document is begun."""
    monkeypatch.setattr("cmt_sdk.system.background.QUIET", 60.0)
    monkeypatch.setattr("cmt_sdk.system.background.PATIENCE", 60.0)
    compressor = Slow()
    with open_fake(tmp_path / "notes", FakeEngine(compressor), passage_tokens=16) as memory:
        memory.add(GENOA)
        memory.add(" ".join(f"Museum number {n} moved to Lisbon." for n in range(400)), wait=False)
        await asyncio.to_thread(until, lambda: compressor.batches > 1)
        assert memory.model.ask("Where does the boat lie?").text == GENOA
        before = compressor.batches
        for _ in range(5):
            assert memory.model.ask("Where does the boat lie?").text == GENOA
            await asyncio.sleep(0.1)
        assert compressor.batches <= before + 5  # passages that the question itself needs
        assert memory.stats().pending
        monkeypatch.setattr("cmt_sdk.system.background.QUIET", 0.0)
        assert memory.wait(LONG)


def test_a_long_document_holds_up_no_question(tmp_path):
    """Also where its sender waits for it to be compressed: the line for the model is free."""
    with running(tmp_path / "notes") as server:
        server.memory.add(GENOA)
        held, go = threading.Event(), threading.Event()
        compress = server.memory._retriever.engine.compressor.compress

        def slow(texts):
            if any("long" in text for text in texts):
                held.set()
                assert go.wait(LONG)
            return compress(texts)

        server.memory._retriever.engine.compressor.compress = slow
        body = {"text": "A long document.", "wait": True}
        with aside(
            lambda: httpx.post(f"{server.url}/api/documents", json=body, timeout=LONG)
        ) as found:
            assert held.wait(LONG)
            assert not server.queue.running
            assert server.http.get("/api/search", params={"q": "boat", "mode": "text"}).json()[
                "matches"
            ]
            go.set()
        assert found[0].status_code == 201


def test_the_openai_client_sees_a_busy_server(tmp_path):
    """A line that is full is a status, at once, though streams may begin with comments."""
    with running(tmp_path / "notes", max_queue=0) as server:
        server.memory.add(GENOA)
        server.reader.hold()
        with aside(lambda: server.http.post("/v1/chat/completions", json=CHAT)):
            until(lambda: server.queue.running)
            with (
                server.client() as client,
                pytest.raises(openai.InternalServerError, match="the limit is 0"),
            ):
                list(client.chat.completions.create(**CHAT, stream=True))
            server.reader.go()
