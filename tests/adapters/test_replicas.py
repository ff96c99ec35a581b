"""Several `cmt serve` over one memory in Postgres, and behind a load balancer; and that the files of
examples/deploy are what the commands and HAProxy understand.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import yaml

from cmt_cli.main import main
from tests import postgres
from tests.adapters.serving import LONG, running
from tests.adapters.test_serve_queue import until

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.skipif(os.name != "posix", reason="processes are stopped by POSIX signals"),
]

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
GENOA = "The boat lies in the harbour of Genoa."
OSTEND = "The boat lies in the harbour of Ostend."
LISBON = "The museum moved to Lisbon in 2019."
BOAT = {"question": "Where does the boat lie?"}
# A server with the fakes, whose answers do not end where the question says so.
PROGRAM = """
import sys, threading
from cmt_cli.main import main
from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake
from cmt_sdk.types import Piece
class Reader(FakeReader):
    def read(self, prompt, max_tokens):
        if "for ever" in prompt.question:
            yield Piece("In ")
            threading.Event().wait()
        yield from super().read(prompt, max_tokens)
main(sys.argv[1:], prog_name="cmt", obj=lambda place, **o: open_fake(
    place, FakeEngine(reader=Reader()), **o))
"""


class Replica:
    """A process of `cmt serve` over a database."""

    def __init__(self, address):
        command = [sys.executable, "-c", PROGRAM, "serve", "--port", "0"]
        variables = {**os.environ, "CMT_MEMORY": address, "CMT_TOKEN": "", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)
        self.url = ""
        self._reading = None

    def wait(self):
        """Wait until it listens."""
        line = self.process.stderr.readline()
        self.url = line.split(" at ")[1].split(";")[0]
        # what it logs is read, so that it never waits for its reader
        self._reading = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reading.start()

    def end(self):
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.wait()
        if self._reading is not None:
            self._reading.join()
        self.process.stderr.close()

    def post(self, path, body):
        """What it answers."""
        return httpx.post(f"{self.url}{path}", json=body, timeout=60)

    def ask(self, question):
        """The text of an answer, and the texts of its sources."""
        answer = self.post("/api/ask", {"question": question}).json()
        return answer["text"], [source["text"] for source in answer["sources"]]


@pytest.fixture
def replicas():
    """Two processes over one empty database."""
    made = postgres.shared()
    made.empty()
    address = os.fspath(made.address)
    both = [Replica(address), Replica(address)]
    guard = threading.Timer(180, lambda: [r.process.kill() for r in both])
    guard.start()
    try:
        for replica in both:
            replica.wait()
        yield both
    finally:
        guard.cancel()
        for replica in both:
            replica.end()


def test_replicas_share_a_memory_and_outlive_each_other(replicas):
    """What one stores the other answers; what one forgets the other does not; one that is killed in
    the middle of an answer takes nothing with it; SIGTERM ends the last one with 0.
    """
    one, other = replicas
    boat = one.post("/api/documents", {"text": GENOA}).json()
    assert other.ask(BOAT["question"]) == (GENOA, [GENOA])
    assert one.ask(BOAT["question"]) == (GENOA, [GENOA])
    receipt = httpx.delete(f"{other.url}/api/documents/{boat['id']}", timeout=60).json()
    assert receipt["versions"] == 1
    for replica in replicas:
        text, sources = replica.ask(BOAT["question"])
        assert ("Genoa" in text, sources) == (False, [])

    other.post("/api/documents", {"text": LISBON})
    body = {"question": "Where did the museum move, for ever?", "stream": True}
    with httpx.stream("POST", f"{one.url}/api/ask", json=body, timeout=60) as stream:
        lines = stream.iter_lines()
        while "In " not in next(lines):
            pass
        one.process.kill()
        with pytest.raises(httpx.TransportError):
            list(lines)
    assert httpx.get(f"{other.url}/readyz", timeout=60).status_code == 200
    assert other.ask("Where did the museum move?") == (LISBON, [LISBON])
    other.post("/api/documents", {"text": GENOA})
    assert other.ask(BOAT["question"])[0] == GENOA
    other.process.terminate()
    assert other.process.wait(60) == 0


# -- behind HAProxy ------------------------------------------------------------------------------


@contextlib.contextmanager
def balanced(*urls):
    """HAProxy with the configuration of the example, over these servers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    names = [f"REPLICA_{n}" for n in range(1, len(urls) + 1)]
    addresses = [url.removeprefix("http://") for url in urls]
    variables = dict(zip(names, addresses, strict=True)) | {"LISTEN": f"127.0.0.1:{port}"}
    command = ["haproxy", "-db", "-f", str(DEPLOY / "haproxy.cfg")]
    with subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONG) as http:
                until(lambda: process.poll() is not None or answers(http))
                assert process.poll() is None, process.stdout.read()
                yield http
        finally:
            process.kill()


def answers(http):
    """Whether a server answers through it."""
    with contextlib.suppress(httpx.TransportError):
        return http.get("/healthz").status_code == 200
    return False


needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy", path=f"{os.environ.get('PATH')}:/usr/sbin") is None,
    reason="needs haproxy (apt-get install haproxy)",
)


@needs_haproxy
def test_a_user_stays_on_a_replica_until_it_drains(tmp_path, monkeypatch):
    """Here each replica has a memory of its own, so that an answer shows where it comes from. A
    user's header leads to one replica; one that drains ends its answer, and its users move.
    """
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    users = [f"user-{n}" for n in range(8)]
    with running(tmp_path / "a") as one, running(tmp_path / "b") as other:
        one.memory.add(GENOA)
        other.memory.add(OSTEND)
        with balanced(one.url, other.url) as http:

            def ask(user):
                return http.post("/api/ask", json=BOAT, headers={"X-User-Id": user})

            first = {user: ask(user).json()["text"] for user in users}
            assert len(set(first.values())) == 2
            assert first == {user: ask(user).json()["text"] for user in users}
            assert (http.get("/metrics").status_code, http.get("/readyz").status_code) == (404, 404)

            mine = next(user for user in users if "Genoa" in first[user])
            one.reader.hold()
            one.server._drain_seconds = LONG
            held = []
            asking = threading.Thread(target=lambda: held.append(ask(mine)))
            asking.start()
            until(lambda: one.queue.running)
            one.stop()
            until(lambda: one.queue.closing)
            # until the checks have seen it, it refuses them
            assert {ask(user).status_code for user in users} <= {200, 503}
            until(lambda: ask(mine).status_code == 200)
            assert {ask(user).json()["text"] for user in users} == {OSTEND}
            one.reader.go()
            asking.join(LONG)
            assert held[0].json()["text"] == first[mine]


# -- the files of the example --------------------------------------------------------------------


def filled(text):
    """A text as compose fills it from the environment, where nothing is set."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}", lambda m: m[1] or "given", text)


def test_the_services_of_the_example_are_commands_that_are_understood(monkeypatch):
    """Each parses with the service's environment, and a replica is killed only after its drain."""
    services = yaml.safe_load(filled((DEPLOY / "compose.yaml").read_text()))["services"]
    ours = {name: s for name, s in services.items() if s["image"] == "cmt-sdk"}
    assert set(ours) == {"replica-1", "replica-2", "worker"}
    assert services["worker"]["deploy"]["replicas"] == 2
    for name, service in ours.items():
        for variable, value in service["environment"].items():
            monkeypatch.setenv(variable, value)
        word, *options = service["command"]
        group = main.make_context("cmt", [word, *options])
        command = main.get_command(group, word)
        context = command.make_context(word, list(options), parent=group)
        place = context.params["folder"]
        assert os.fspath(place) == "postgresql+psycopg://app:given@postgres/memory"
        if word == "serve":
            assert context.params["token"] == services["replica-1"]["environment"]["CMT_TOKEN"]
            assert context.params["origins"] == ("http://localhost:8080",)
            grace = float(service["stop_grace_period"].removesuffix("s"))
            assert context.params["drain_seconds"] + 5 <= grace
            assert service["hostname"] == name
            assert f"{name}:8765" in (DEPLOY / "haproxy.cfg").read_text()


def test_every_file_that_the_example_names_is_there():
    """What is mounted and built."""
    text = (DEPLOY / "compose.yaml").read_text()
    named = re.findall(r"\./([\w.-]+):/|dockerfile: examples/deploy/(\w+)", text)
    assert {a or b for a, b in named} == {"create-memory.sh", "haproxy.cfg", "Dockerfile"}
    assert all((DEPLOY / (a or b)).exists() for a, b in named)
    assert os.access(DEPLOY / "create-memory.sh", os.X_OK)
