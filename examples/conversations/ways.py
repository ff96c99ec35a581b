"""The ways in which a dialogue reaches a memory: `memory.chat`, and OpenAI's client at `cmt serve`.

`open_memory(folder)` opens a memory; all share one engine, so that the weights are loaded once.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import cmt_sdk
from cmt_sdk.memory import Memory
from cmt_sdk.memory.assembly import assemble
from cmt_sdk.memory.local_engine import LocalEngine
from examples.conversations.judging import Heard

TURNS_SENT = 12  # an OpenAI client sends that much of the conversation, as `memory.chat` does
PATIENCE = 60  # seconds until a server that got a signal has stopped


class Way(Protocol):
    """One process of a dialogue: what users say reaches the memory, until it is closed."""

    def say(self, user: str, text: str) -> Heard:
        """A user's turn, in a conversation of their own."""
        ...


Opener = Callable[..., Memory]  # of a folder


def default_opener(**settings: Any) -> Opener:
    """Opens memories with these settings on one model, which is loaded at the first question."""
    engine = LocalEngine(cmt_sdk.Settings(**settings), None)

    def open_memory(folder: Path, *, create: bool = True, **more: Any) -> Memory:
        return Memory(assemble(folder, settings | more, create=create, engine=engine))

    return open_memory


def documents_of(memory: Memory, user: str) -> list[str]:
    """The texts that are kept of a user."""
    return [document.text for document in memory.documents(scope=scope_of(user))]


def scope_of(user: str) -> str:
    """Where what a user tells is kept; `/v1` does the same with `user=`."""
    return f"user/{user}"


class ByChat:
    """`memory.chat(remember=True)`, one conversation per user."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._chats: dict[str, Any] = {}

    def say(self, user: str, text: str) -> Heard:
        """See Way."""
        if user not in self._chats:
            self._chats[user] = self._memory.chat(remember=True, scope=scope_of(user))
        answer = self._chats[user].say(text)
        return Heard(answer.text, answer.abstained, tuple(s.text for s in answer.sources))


class ByHTTP:
    """OpenAI's client, which sends the earlier turns with each one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._sent: dict[str, list[dict[str, str]]] = {}

    def say(self, user: str, text: str) -> Heard:
        """See Way."""
        turns = self._sent.setdefault(user, [])
        turns.append({"role": "user", "content": text})
        sent = turns[-TURNS_SENT - 1 :]
        made = self._client.chat.completions.create(model="cmt", user=user, messages=sent)
        reply = made.choices[0].message.content or ""
        turns.append({"role": "assistant", "content": reply})
        sources = (made.model_extra or {}).get("sources") or []
        return Heard(reply, sources=tuple(source["text"] for source in sources))


@contextmanager
def by_chat(memory: Memory) -> Iterator[Way]:
    """A conversation in Python."""
    yield ByChat(memory)


@contextmanager
def by_http(memory: Memory) -> Iterator[Way]:
    """A conversation over loopback, with a server in a thread of this process."""
    import openai

    from cmt_adapters.server.serve import Server, app

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(app(memory))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        try:
            with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
                yield ByHTTP(client)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


WAYS = {"chat": by_chat, "http": by_http}
