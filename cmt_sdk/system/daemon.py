"""Where the daemon of `cmt` is reached, and by whom: by its own user alone.

On POSIX it is a Unix socket in the user's runtime folder, and each side asks the system who the
other one is. On Windows it is a port of this machine: both sides prove, without sending it, that
they know the token in a file that only the user can read. Imports little, and nothing of the
package: the client of the daemon starts with it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import sys
import time
from contextlib import suppress
from typing import Any

from cmt_sdk.system.links import Link, LinkError

SOCKET = "daemon.sock"
FACTS = "daemon.json"  # the daemon's process, and on Windows its port and token
LOCK = "daemon.lock"  # held by the daemon that listens
IS_UNIX = hasattr(socket, "AF_UNIX")
PATIENCE = 5.0  # seconds for what a healthy daemon does at once
CONNECT = 2.0  # seconds to wait for one that may be sick
# The first message of a client; the daemon's answers to it.
HELLO, STATUS, STOP = b"H", b"S", b"X"
WELCOME, OTHER = b"W", b"O"
PROOF = b"P"
UCRED = struct.Struct("=iII")  # struct ucred of Linux: process, user, group
XUCRED = struct.Struct("=II")  # struct xucred of macOS and FreeBSD begins with its version and user


def runtime_folder() -> str:
    """The folder of the daemon's socket."""
    given = os.environ.get("XDG_RUNTIME_DIR") if sys.platform == "linux" else None
    if given:  # as platformdirs answers, which takes longer to import than a client may
        return os.path.join(given, "cmt")
    import warnings

    import platformdirs

    with warnings.catch_warnings():
        # without XDG_RUNTIME_DIR it warns of a folder in /tmp; `make_private` closes that to others
        warnings.simplefilter("ignore")
        return platformdirs.user_runtime_dir("cmt", appauthor=False)


def make_private(folder: str) -> None:
    """Make the folder, for its owner alone. Raises OSError for another user's, or a link."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    is_own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    if not stat.S_ISDIR(found.st_mode) or not is_own:
        raise PermissionError(f"{folder} is a link, or another user's: delete it")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(folder, 0o700)


def listen(folder: str, *, unix: bool = IS_UNIX) -> tuple[socket.socket, bytes]:
    """Listen in a private folder; a socket that is left there is replaced.

    The caller holds the lock: no other daemon listens there.

    Returns:
        The listening socket, and the token that clients have to know; empty on POSIX.
    """
    token = b"" if unix else os.urandom(32)
    before = os.umask(0o177)
    try:
        if unix:
            path = os.path.join(folder, SOCKET)
            with suppress(FileNotFoundError):
                os.unlink(path)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
        else:
            listener = socket.socket(socket.AF_INET)
            listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = 0 if unix else listener.getsockname()[1]
        facts = {"process": os.getpid(), "port": port, "token": token.hex()}
        made = os.path.join(folder, f"{FACTS}.{os.getpid()}")
        with open(made, "w", encoding="ascii") as file:
            json.dump(facts, file)
        os.replace(made, os.path.join(folder, FACTS))
    finally:
        os.umask(before)
    return listener, token


def unlist(folder: str) -> None:
    """Remove the files by which clients find the daemon."""
    for name in (SOCKET, FACTS):
        with suppress(OSError):
            os.unlink(os.path.join(folder, name))


def accept(connection: socket.socket, token: bytes, patience: float) -> Link:
    """The link to a client that has connected. Raises LinkError for one of another user."""
    link = Link(connection, patience)
    try:
        if token:
            _prove(link, token, b"daemon", b"client")
        else:
            _check_user(connection)
    except OSError:
        link.close()
        raise
    return link


def connect(folder: str, *, unix: bool = IS_UNIX) -> Link:
    """The link to the daemon of this user.

    Raises:
        FileNotFoundError, ConnectionRefusedError: None is running.
        LinkError: What listens there is not this user's, or does not answer.
    """
    facts = {} if unix else _facts(folder)
    connection = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    connection.settimeout(CONNECT)
    link = Link(connection, CONNECT)
    try:
        connection.connect(
            os.path.join(folder, SOCKET) if unix else ("127.0.0.1", int(facts["port"]))
        )
        if unix:
            link.process = _check_user(connection)
        else:
            _prove(link, bytes.fromhex(facts["token"]), b"client", b"daemon")
    except TimeoutError as error:
        link.close()
        raise LinkError("it takes no connection") from error
    except BaseException:
        link.close()
        raise
    return link


def stop(folder: str | None = None, *, unix: bool = IS_UNIX) -> bool:
    """End the daemon of this user, and wait until its process is gone; what it holds goes with it.

    One that does not leave within PATIENCE seconds is killed: nothing is lost by that.

    Returns:
        Whether there was one.

    Raises:
        OSError: It cannot be ended.
    """
    folder = runtime_folder() if folder is None else folder
    try:
        link = connect(folder, unix=unix)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    try:
        process = int(_facts(folder)["process"]) if link.process is None else link.process
        with suppress(LinkError):
            link.send(STOP)
        if not _has_gone(link):
            if process <= 0:
                raise LinkError("it does not leave, and runs in another container")
            with suppress(ProcessLookupError):
                os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))
            if not _has_gone(link):
                raise LinkError(f"process {process} does not end")
    finally:
        link.close()
    return True


def _has_gone(link: Link) -> bool:
    """Wait until the other side's process has ended: the system then closes its connections."""
    until = time.monotonic() + PATIENCE
    try:
        while True:
            link.receive(until - time.monotonic())
    except LinkError:
        return link.has_news(0)


def _facts(folder: str) -> dict[str, Any]:
    """What the daemon wrote about itself. Raises FileNotFoundError where there is none."""
    try:
        with open(os.path.join(folder, FACTS), encoding="ascii") as file:
            facts = json.load(file)
        return {name: facts[name] for name in ("process", "port", "token")}
    except (ValueError, KeyError, TypeError) as error:
        raise FileNotFoundError(f"{FACTS} in {folder} is damaged") from error


def peer(connection: socket.socket) -> tuple[int | None, int]:
    """Process, where the system tells it, and user at the other end of a Unix socket."""
    if hasattr(socket, "SO_PEERCRED"):
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        process, user, _ = UCRED.unpack(data)
        return process, user
    _, user = XUCRED.unpack_from(connection.getsockopt(0, 1, 128))  # SOL_LOCAL, LOCAL_PEERCRED
    return None, user


def _check_user(connection: socket.socket) -> int | None:
    """The process at the other end; LinkError where it is another user's."""
    process, user = peer(connection)
    if user != os.geteuid():
        raise LinkError(f"it is of another user (number {user})")
    return process


def _prove(link: Link, token: bytes, mine: bytes, theirs: bytes) -> None:
    """Prove to the other side that this one knows the token, and let it do the same."""
    import hmac

    nonce = os.urandom(32)
    link.send(PROOF, nonce)
    kind, other = link.receive(CONNECT)
    link.send(PROOF, hmac.digest(token, mine + other, "sha256"))
    same_kind, proof = link.receive(CONNECT)
    expected = hmac.digest(token, theirs + nonce, "sha256")
    if kind != PROOF or same_kind != PROOF or not hmac.compare_digest(proof, expected):
        raise LinkError("it does not know this user's token")
