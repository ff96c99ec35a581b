"""Messages over a socket between two programs: a letter, a length and bytes, within a time.

Imports little: the client of the daemon starts with it.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any

HEAD = struct.Struct(">cI")
MOST = 1 << 26  # bytes of a message


class LinkError(OSError):
    """The other side has gone, does not answer in time, or says what is no message."""


class Link:
    """One end of a connection. Several threads may send, one receives.

    Args:
        connection: The connected socket.
        patience: Seconds to wait for a side that does not take what is sent.

    Attributes:
        process: The number of the other side's process, where the system tells it.
    """

    def __init__(self, connection: socket.socket, patience: float) -> None:
        connection.settimeout(patience)
        self.process: int | None = None
        self._socket = connection
        self._sending = threading.Lock()
        self._read = bytearray()  # of the next message, which an interrupt may find incomplete

    def send(self, kind: bytes, content: bytes = b"") -> None:
        """Send a message.

        Args:
            kind: One letter.
            content: At most MOST bytes.

        Raises:
            LinkError: The other side has gone, or does not take it.
        """
        try:
            with self._sending:
                self._socket.sendall(HEAD.pack(kind, len(content)) + content)
        except OSError as error:
            raise LinkError(f"the connection is closed ({error})") from error

    def send_object(self, kind: bytes, value: Any) -> None:
        """Send a message with a value as JSON; see `send`."""
        self.send(kind, json.dumps(value).encode())

    def receive(self, seconds: float) -> tuple[bytes, bytes]:
        """The next message: its kind and its content.

        Raises:
            LinkError: It does not come within `seconds`, or is none.
        """
        until = time.monotonic() + seconds
        self._read_up_to(HEAD.size, until)
        kind, length = HEAD.unpack_from(self._read)
        if length > MOST:
            raise LinkError(f"a message of {length:,} bytes, at most {MOST:,}")
        self._read_up_to(HEAD.size + length, until)
        message, self._read = bytes(self._read), bytearray()
        return kind, message[HEAD.size :]

    def receive_object(self, kind: bytes, seconds: float) -> Any:
        """The value of the next message, which must be of this kind; see `receive`."""
        found, content = self.receive(seconds)
        if found != kind:
            raise LinkError(f"a message {found!r} where {kind!r} is expected")
        return parsed(content)

    def has_news(self, seconds: float) -> bool:
        """Whether a message, or the end of the connection, comes within `seconds`."""
        return bool(select.select([self._socket], [], [], max(seconds, 0))[0])

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read_up_to(self, count: int, until: float) -> None:
        while len(self._read) < count:
            if not self.has_news(until - time.monotonic()):
                raise LinkError("there was no answer in time")
            try:
                piece = self._socket.recv(min(count - len(self._read), 1 << 20))
            except OSError as error:
                raise LinkError(f"the connection was closed ({error.strerror})") from error
            if not piece:
                raise LinkError("the connection was closed")
            self._read += piece


def parsed(content: bytes) -> Any:
    """The value that JSON stands for. Raises LinkError."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LinkError("a message that is no JSON") from error
