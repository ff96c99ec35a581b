"""A real server on the loopback for tests, over a memory with a fake language model that can be
stopped between two words.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai

from cmt_adapters.server.serve import Server, app
from cmt_sdk.testing.fakes import FakeEngine, FakeReader, open_fake
from cmt_sdk.types import Piece, Prompt

LONG = 20  # seconds that nothing here should take


@dataclass
class Stepped(FakeReader):
    """A reader that waits before each word while `held`, and tells what it does."""

    going: threading.Event = field(default_factory=threading.Event)
    words: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    said: int = 0
    questions: list[str] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.going.set()

    def hold(self) -> None:
        """From now on answers wait before each word for `words` or `go`."""
        self.going.clear()

    def go(self) -> None:
        """Answers wait no more."""
        self.going.set()

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """See FakeReader."""
        self.questions.append(prompt.question)
        self.prompts.append(prompt)
        self.begun.release()
        try:
            for piece in super().read(prompt, max_tokens):
                while not (self.going.is_set() or self.words.acquire(timeout=0.005)):
                    pass
                self.said += 1
                yield piece
        finally:
            self.ended.release()


@dataclass(frozen=True)
class Running:
    """A server with what it is made of, and clients for it."""

    url: str
    memory: Any
    reader: Stepped
    server: Server
    http: httpx.Client
    token: str | None

    def client(self, **options: Any) -> openai.OpenAI:
        """OpenAI's client, as anybody would make it; it does not try again by itself."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=self.token or "none",
            max_retries=0,
            timeout=LONG,
            **options,
        )

    @property
    def queue(self) -> Any:
        """The line before the model."""
        return self.server._queue

    def empty(self) -> None:
        """Take all documents out."""
        for document in list(self.memory.documents()):
            self.memory.delete(document.id)

    def stop(self) -> None:
        """What a signal does."""
        self.server.should_exit = True


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Running]:
    """A server in a thread, over a memory in `folder`; `options` are those of `app`."""
    reader = Stepped()
    with (
        open_fake(folder, FakeEngine(reader=reader)) as memory,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        server = Server(app(memory, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        token = options.get("token")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=LONG) as http:
                yield Running(url, memory, reader, server, http, token)
        finally:
            reader.go()
            server.should_exit = True
            thread.join(LONG)
        assert not thread.is_alive()
