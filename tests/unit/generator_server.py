"""A small chat server on the loopback for tests: it plays what a test gives it, and records what it
was sent.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Play = Callable[[BaseHTTPRequestHandler], None]
JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html"


@dataclass
class ChatServer:
    """A server whose next replies are `plays`; the last one is played again and again.

    Attributes:
        bodies: The requests' bodies, decoded.
        keys: Their Authorization headers.
    """

    url: str = ""
    plays: list[Play] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    models: Sequence[str] = ()

    def next_play(self) -> Play:
        """The play of this request."""
        return self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]

    @property
    def last(self) -> str:
        """The last message of the last request."""
        return str(self.bodies[-1]["messages"][-1]["content"])

    @property
    def system(self) -> str:
        """The system message of the last request."""
        return str(self.bodies[-1]["messages"][0]["content"])


def event(text: str | None = None, finish: str | None = None, **more: Any) -> str:
    """One event of a stream of chat completions."""
    choice = {"index": 0, "delta": {} if text is None else {"content": text}}
    return f"data: {json.dumps({'choices': [choice | {'finish_reason': finish}], **more})}\n\n"


USAGE = {"prompt_tokens": 70, "completion_tokens": 2}
END = (
    event(finish="stop")
    + f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\n"
    + "data: [DONE]\n\n"
)


def says(*pieces: str) -> Play:
    """Stream these pieces, and end as servers do."""
    return sends("".join(map(event, pieces)) + END)


def sends(text: str, kind: str = EVENTS, status: int = 200, **headers: str) -> Play:
    """Send a text as it is."""

    def play(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-type": kind, **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(text.encode())

    return play


def fails(status: int, message: str = "", **error: Any) -> Play:
    """Refuse with an error in OpenAI's form."""
    retry = {"retry_after": "7"} if status == 429 else {}
    return sends(json.dumps({"error": {"message": message, **error}}), JSON, status, **retry)


def sleeps(*texts: str, seconds: float = 5.0) -> Play:
    """Send events, then nothing for a while."""

    def play(handler: BaseHTTPRequestHandler) -> None:
        sends("".join(map(event, texts)))(handler)
        handler.wfile.flush()
        time.sleep(seconds)

    return play


def keeps_alive(handler: BaseHTTPRequestHandler) -> None:
    """Send comments without an end."""
    sends("")(handler)
    for _ in range(60):
        handler.wfile.write(b": still at work\n\n")
        handler.wfile.flush()
        time.sleep(0.05)


@contextmanager
def serving(*plays: Play) -> Iterator[ChatServer]:
    """A server in a thread."""
    made = ChatServer(plays=list(plays))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names = {"data": [{"id": name} for name in made.models]}
            sends(json.dumps(names), JSON)(self)

        def do_POST(self) -> None:
            made.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            made.keys.append(self.headers["authorization"])
            try:
                made.next_play()(self)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        made.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
