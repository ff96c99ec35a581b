"""Endpoint: a language model that another program serves, behind OpenAI's chat completions.

Ollama, llama.cpp, vLLM and hosted services speak that protocol. Knows HTTP; knows no memory and no
notes. Keeps nothing: neither messages nor the key reach a file or a log.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import httpx

from cmt_sdk.config.address import is_loopback
from cmt_sdk.errors import GeneratorError, InvalidSetting
from cmt_sdk.types import Piece, Usage

KEY = "CMT_GENERATOR_KEY"  # the environment variable that holds the key
CONNECT_SECONDS = 10.0
LONGEST_LINE = 2**20  # characters of one event, and of a reply that is no stream
LONGEST_TOKEN = 32  # characters: a reply that is longer than its tokens can be is ended
QUOTED = 200  # characters of a server's own words that an error repeats
LISTED = 10  # models that an error lists
THOUGHTS = ("<think>", "</think>")  # around what a reasoning model writes before its answer
# Options that some servers refuse, with the option that they take in its place.
REPLACED: Mapping[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "stream_options": None,
    "temperature": None,
}


@dataclass(frozen=True)
class Endpoint:
    """One model behind one address.

    Attributes:
        address: The address up to /v1.
        model: The name by which the server knows the model.
        timeout: Seconds to wait for the next piece of a reply.
        key: The API key; "" for none.
        named: Whether the caller named the address. One that only a memory's settings name is used
            on this machine alone: a memory from elsewhere must not choose who reads questions.
    """

    address: str
    model: str
    timeout: float
    key: str = field(default="", repr=False)
    named: bool = True

    @classmethod
    def of(
        cls, address: str, model: str, timeout: float, key: str | None, *, named: bool
    ) -> Endpoint:
        """The endpoint with the given key, else with that of the environment.

        Raises:
            InvalidSetting: A key that a header cannot transmit.
        """
        key = (os.environ.get(KEY, "") if key is None else key).strip()
        if not re.fullmatch("[!-~]*", key):
            raise InvalidSetting(
                "the key of the generator has characters that a header cannot transmit: give ASCII"
                f" letters, digits and signs, with generator_key= or in {KEY}"
            )
        return cls(address.rstrip("/"), model, timeout, key, named)

    def write(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Iterator[Piece]:
        """Yield the reply to chat messages in pieces; the last piece has the usage.

        Args:
            messages: Each with `role` and `content`; the last one is the user's.
            max_tokens: The longest reply, in tokens.

        Raises:
            GeneratorError: The server cannot be reached, refuses, fails, breaks off, or answers
                what is no chat completion.
        """
        if not (self.named or is_loopback(self.address)):
            raise GeneratorError(
                f"this memory's settings name the generator {self.address}, which is on another"
                " machine: to send it questions and passages, name it yourself, with generator=,"
                " --generator or CMT_GENERATOR; `cmt config set generator default` takes it out"
            )
        body = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began = time.perf_counter()
        try:
            with self._client() as client, closing(self._accepted(client, body)) as response:
                yield from self._pieces(response, max_tokens, began)
        except httpx.TimeoutException as error:
            raise self._silence() from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = self._quoted(str(error)) or type(error).__name__
            raise GeneratorError(
                f"the generator {self.address} cannot be reached, or broke off: {reason}. Start it,"
                " or give its address up to /v1 with generator="
            ) from error

    def _client(self) -> httpx.Client:
        timeout = httpx.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout))
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        # a proxy that the environment names cannot reach what listens on this machine alone
        proxied = not is_loopback(self.address)
        try:
            return httpx.Client(timeout=timeout, headers=headers, trust_env=proxied)
        except (ImportError, ValueError, OSError) as error:  # a proxy or a certificate file
            raise GeneratorError(
                f"the generator {self.address} cannot be reached with this environment's proxy and"
                f" certificates: {self._quoted(str(error))}; change HTTPS_PROXY, ALL_PROXY or"
                " SSL_CERT_FILE"
            ) from error

    # -- the request -----------------------------------------------------------------------------

    def _accepted(self, client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
        """The response to a request that the server accepts, without the options it refuses."""
        while True:
            request = client.build_request("POST", f"{self.address}/chat/completions", json=body)
            response = client.send(request, stream=True)
            if response.status_code == httpx.codes.OK:
                return response
            with closing(response):
                fault = _fault(self._all(response))
                option = fault.get("param")
                if response.status_code not in (400, 422) or option not in REPLACED.keys() & body:
                    raise self._refusal(client, response, str(fault.get("message") or ""))
            taken = body.pop(option)
            if (other := REPLACED[option]) is not None:
                body[other] = taken

    def _refusal(
        self, client: httpx.Client, response: httpx.Response, words: str
    ) -> GeneratorError:
        """The error for a status that is no success, with the remedy."""
        stated = f" ({self._quoted(words)})" if words.strip() else ""
        return GeneratorError(
            f"the generator {self.address} refuses the request for {self.model!r} with status"
            f" {response.status_code}{stated}: {self._remedy(client, response)}"
        )

    def _remedy(self, client: httpx.Client, response: httpx.Response) -> str:
        status = response.status_code
        if status in (401, 403):
            given = "the key that was sent is not enough" if self.key else "no key was sent"
            return f"{given}: give one that may use it, in {KEY} or with generator_key="
        if status == 404:
            there = self._models(client)
            return f"give the address up to /v1, and a generator_model of the server{there}"
        if status == 429:
            wait = response.headers.get("retry-after", "")
            return f"try again {f'in {wait} seconds' if wait.isdecimal() else 'later'}"
        if 300 <= status < 400:
            place = self._quoted(response.headers.get("location", ""))
            return f"give the address that it points to, {place!r}"
        if status >= 500:
            return "the server's log says why; try again later"
        return "ask with a smaller k or with budget= where the server's context is too short"

    def _models(self, client: httpx.Client) -> str:
        """The names of the server's models, for an error; "" where it names none."""
        try:
            found = client.get(f"{self.address}/models").json()["data"]
            names = [self._quoted(str(model["id"])) for model in found[:LISTED]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return ""
        return f": {', '.join(names)}" if names else ""

    # -- the reply -------------------------------------------------------------------------------

    def _pieces(self, response: httpx.Response, max_tokens: int, began: float) -> Iterator[Piece]:
        first = 0.0
        reply = Reply(max_tokens)
        for text in without_thoughts(reply.texts(self._chunks(response))):
            first = first or time.perf_counter()
            yield Piece(text)
        if not first:
            raise self._nonsense(
                f"it wrote nothing within {max_tokens} tokens: ask with more max_tokens"
                if reply.finish == "length"
                else "its answer is empty: ask again, or choose another generator_model"
            )
        if not (reply.finish or reply.ended):
            raise self._nonsense(f"it broke off after {reply.characters} characters: ask again")
        prefill, decode = first - began, time.perf_counter() - first
        yield Piece("", reply.usage(1000 * prefill, 1000 * decode))

    def _chunks(self, response: httpx.Response) -> Iterator[Any]:
        """The JSON values of a stream of events; of a reply that is no stream, its one value."""
        kind = response.headers.get("content-type", "")
        if "json" in kind:
            yield from (self._value(self._all(response)), DONE)
            return
        if "text/event-stream" not in kind:
            raise self._nonsense(
                f"it sends {self._quoted(kind)!r} where a chat completion is expected: give the"
                " address up to /v1"
            )
        for line in self._lines(response):
            if line.startswith("data:"):
                data = line.removeprefix("data:").strip()
                yield DONE if data == DONE else self._value(data)

    def _value(self, text: str) -> Any:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._nonsense(
                f"it sends what is no JSON, {self._quoted(text)!r}: give the address up to /v1 of a"
                " server of chat completions"
            ) from error
        if isinstance(value, dict) and not value.get("error"):
            return value
        words = _fault(text).get("message") if isinstance(value, dict) else text
        raise self._nonsense(f"it sends an error: {self._quoted(str(words))!r}")

    def _lines(self, response: httpx.Response) -> Iterator[str]:
        """The lines of a stream. Comments keep a connection open, and say nothing."""
        held = ""
        spoken = time.monotonic()
        for text in response.iter_text():
            *lines, held = (held + text).split("\n")
            if any(line.startswith("data:") for line in lines):
                yield from lines
                spoken = time.monotonic()
            elif time.monotonic() - spoken > self.timeout:
                raise self._silence()
            if len(held) > LONGEST_LINE:
                raise self._nonsense(f"an event has over {LONGEST_LINE:,} characters")
        yield held

    def _all(self, response: httpx.Response) -> str:
        """The complete text of a response, of at most LONGEST_LINE characters."""
        text = ""
        for part in response.iter_text():
            text += part
            if len(text) > LONGEST_LINE:
                raise self._nonsense(f"it sends over {LONGEST_LINE:,} characters at once")
        return text

    # -- errors ----------------------------------------------------------------------------------

    def _silence(self) -> GeneratorError:
        return GeneratorError(
            f"the generator {self.address} gave no word for {self.timeout:g} seconds: choose a"
            " longer generator_timeout, a smaller k, or a faster model"
        )

    def _nonsense(self, problem: str) -> GeneratorError:
        return GeneratorError(
            f"the generator {self.address} with model {self.model!r} gave no answer: {problem}"
        )

    def _quoted(self, words: str) -> str:
        """A server's own words in one short line, without the key."""
        shown = words.replace(self.key, "…") if self.key else words
        line = " ".join("".join(c if c.isprintable() else " " for c in shown).split())
        return line if len(line) <= QUOTED else f"{line[: QUOTED - 1]}…"


DONE = "[DONE]"


class Reply:
    """One reply, read from the chunks of a stream.

    Attributes:
        finish: Why it ended, in the server's word; "" until it ends.
        ended: Whether the stream had its end.
        characters: The length of the text so far.
    """

    def __init__(self, max_tokens: int) -> None:
        self.finish = ""
        self.ended = False
        self.characters = 0
        self._max_tokens = max_tokens
        self._parts = 0
        self._counts: Mapping[str, Any] = {}

    def texts(self, chunks: Iterable[Any]) -> Iterator[str]:
        """The pieces of text. A server that ignores `max_tokens` is not read to its end."""
        for chunk in chunks:
            if chunk == DONE:
                self.ended = True
                return
            self._counts = _dict(chunk.get("usage")) or self._counts
            choice = _first(chunk.get("choices"))
            message = _dict(choice.get("delta")) or _dict(choice.get("message"))
            text = message.get("content")
            if isinstance(text, str) and text:
                self.characters += len(text)
                self._parts += 1
                yield text
            self.finish = str(choice.get("finish_reason") or self.finish)
            if self.characters > LONGEST_TOKEN * self._max_tokens:
                self.finish = "length"
                return

    def usage(self, prefill_ms: float, decode_ms: float) -> Usage:
        """What the reply cost: the server's counts, else a piece counts as a token."""
        read = _count(self._counts.get("prompt_tokens"), 0)
        written = _count(self._counts.get("completion_tokens"), self._parts)
        if self.finish == "length":
            written = max(written, self._max_tokens)
        return Usage(read, written, 1.0, 0.0, prefill_ms, decode_ms)


def without_thoughts(texts: Iterable[str]) -> Iterator[str]:
    """Pieces of text, without what stands between THOUGHTS before the answer."""
    opened, closed = THOUGHTS
    pieces = iter(texts)
    held = ""
    for text in pieces:
        held = (held + text).lstrip()
        if closed in held if held.startswith(opened) else not opened.startswith(held):
            break
    answer = held.partition(closed)[2] if held.startswith(opened) else held
    started = False
    for text in chain([answer], pieces):
        shown = text if started else text.lstrip()
        if shown:
            started = True
            yield shown


def _fault(text: str) -> Mapping[str, Any]:
    """The error that a server describes, in one of the forms in use."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"message": text}
    found = _dict(value)
    error = found.get("error", found)
    if isinstance(error, Mapping):
        return {"message": error.get("message") or error.get("detail") or text, **error}
    return {"message": error}


def _first(value: Any) -> Mapping[str, Any]:
    return _dict(value[0]) if isinstance(value, list) and value else {}


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any, default: int) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else default
