"""The standard streams of the daemon: they lead to the client whose command runs."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Queue
from typing import Any

from cmt_cli.daemon_client import ERR, OUT, WANTS_INPUT
from cmt_sdk.system.links import Link, LinkError


class _Output(io.RawIOBase):
    """What is written goes to the client, and nowhere while there is none."""

    def __init__(self, kind: bytes) -> None:
        self._kind = kind
        self.link: Link | None = None
        self.tty = False

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether the client's stream is a terminal."""
        return self.tty

    def write(self, content: Any) -> int:
        """Send bytes; a client that has gone is noticed elsewhere."""
        sent = bytes(content)
        if self.link is not None:
            with suppress(LinkError):
                self.link.send(self._kind, sent)
        return len(sent)


class _Input(io.RawIOBase):
    """The client's standard input, which is asked for when it is read."""

    def __init__(self, link: Link, received: Queue[bytes], *, tty: bool) -> None:
        self._link = link
        self._received = received
        self._content: io.BytesIO | None = None
        self._tty = tty

    def readable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether the client's stream is a terminal."""
        return self._tty

    def readinto(self, buffer: Any) -> int:
        """Read bytes; all of them come with the first call."""
        if self._content is None:
            self._link.send(WANTS_INPUT)
            self._content = io.BytesIO(self._received.get())
        return self._content.readinto(buffer)


class Streams:
    """Takes the place of sys.stdout and sys.stderr for good: libraries hold on to them."""

    def __init__(self) -> None:
        self._raw = _Output(OUT), _Output(ERR)
        self._out, self._err = (
            io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8") for raw in self._raw
        )
        sys.stdout, sys.stderr = self._out, self._err

    @contextmanager
    def of(
        self, link: Link, streams: Sequence[dict[str, Any]], received: Queue[bytes]
    ) -> Iterator[None]:
        """Let the standard streams be a client's while the block runs.

        Args:
            link: The link to the client.
            streams: Encoding, errors and whether it is a terminal, of its three streams.
            received: Has its standard input after it was asked for.
        """
        given, *others = streams
        source = io.BufferedReader(_Input(link, received, tty=given["tty"]))
        sys.stdin = io.TextIOWrapper(source, given["encoding"], given["errors"])
        for stream, raw, like in zip((self._out, self._err), self._raw, others, strict=True):
            raw.tty = like["tty"]
            raw.link = link
            stream.reconfigure(
                encoding=like["encoding"], errors=like["errors"], line_buffering=like["tty"]
            )
        try:
            yield
        finally:
            for stream, raw in zip((self._out, self._err), self._raw, strict=True):
                stream.flush()
                raw.link, raw.tty = None, False
            sys.stdin = io.TextIOWrapper(io.BytesIO())
