"""The client's half of the daemon: gives it a command, and passes on what it prints.

Imports little, so that a command begins at once. Where the daemon cannot be used, `answered`
returns None, and the command runs in this process.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import cmt_sdk
from cmt_sdk.system import daemon
from cmt_sdk.system.daemon import HELLO, OTHER, WELCOME
from cmt_sdk.system.links import Link, LinkError, parsed

COMMANDS = ("ask", "search")
SERVER = ("-m", "cmt_cli.daemon_server")  # the daemon's program
KEEP_ALIVE = "CMT_KEEP_ALIVE"
KEEP_ENCRYPTED = "CMT_KEEP_ENCRYPTED"
DEFAULT_SECONDS = 300.0
SECRETS = ("CMT_KEY",)  # are sent only with KEEP_ENCRYPTED
# The messages of a command: what the client sends, and what the daemon answers.
RUN, INPUT, CANCEL = b"R", b"I", b"C"
BEGINS, BEAT, OUT, ERR, WANTS_INPUT, DECLINED, DONE = b"B", b".", b"1", b"2", b"?", b"N", b"D"
STARTS = 10.0  # seconds that a new daemon may take until it listens
TURN = 5.0  # seconds to wait while the daemon answers others
SILENCE = 10.0  # seconds without a sign of life, of which there is one in each second
LEAVES = 2.0  # seconds to stop after Ctrl-C
# Libraries read variables that begin so when they are loaded: another value needs another daemon.
AT_START = (
    *(
        "CUDA_",
        "HIP_",
        "HF_",
        "KMP_",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LD_",
        "DYLD_",
        "MKL_",
        "NVIDIA_",
        "OMP_",
    ),
    *("OPENBLAS_", "ORT_", "PYTHON", "PYTORCH_", "ROCR_", "TOKENIZERS_", "TORCH_", "TRANSFORMERS_"),
)

# Why the daemon did not answer; "" where it did or was not asked.
reason = ""


def answered(arguments: Sequence[str]) -> int | None:
    """Let the daemon run a command; return its exit code, None where it has to run here."""
    global reason  # noqa: PLW0603 - `cmt ask -v` tells it
    if not arguments or arguments[0] not in COMMANDS or {"-h", "--help"} & set(arguments):
        return None
    try:
        seconds = float(os.environ.get(KEEP_ALIVE) or DEFAULT_SECONDS)
    except ValueError:
        reason = f"{KEEP_ALIVE}={os.environ[KEEP_ALIVE]!r} is not a number of seconds"
        return None
    if not seconds > 0 or None in (sys.stdin, sys.stdout, sys.stderr):
        return None
    try:
        return Run(arguments, seconds).follow(welcomed(daemon.runtime_folder()))
    except (OSError, ValueError) as error:
        reason = str(error)
    return None


def identity() -> str:
    """What must be the same in the daemon: release, place, and what is read at the start."""
    places = (path for path in sys.path if os.path.isdir(os.path.join(path, "click")))
    packages = next(places, "")  # the folder that pip changes whenever it installs something
    files = (cmt_sdk.__file__ or "", packages)
    times = [os.stat(file).st_mtime_ns for file in files if file]
    root = os.stat("/")[1:3]  # a container has another one, and may share the runtime folder
    at_start = sorted(item for item in os.environ.items() if item[0].startswith(AT_START))
    return repr((cmt_sdk.__version__, sys.executable, sys.version, root, files, times, at_start))


def welcomed(folder: str) -> Link:
    """The link to a daemon like this process; one is started where there is none.

    Raises:
        OSError: There is none that answers.
    """
    own, problem = identity(), ""
    for _ in range(3):  # a daemon may leave meanwhile, and so may the one that was started
        try:
            link = daemon.connect(folder)
        except (FileNotFoundError, ConnectionRefusedError):
            link = _started(folder, own)
        try:
            link.send_object(HELLO, own)
            kind, _ = link.receive(daemon.CONNECT)
        except LinkError as error:
            has_left, problem = link.has_news(0), str(error)
            link.close()
            if not has_left:
                raise
            continue
        if kind == WELCOME:
            return link
        link.close()
        if kind != OTHER:
            raise LinkError("the daemon says what it should not")
    raise LinkError(f"no daemon stays ({problem or 'others replace it'})")


def _started(folder: str, own: str) -> Link:
    """Start a daemon and connect to it, or to another one that was faster."""
    import subprocess

    daemon.make_private(folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CMT_")}
    modules = os.pathsep.join(path for path in sys.path if os.path.isabs(path))
    command = [sys.executable, "-P", *SERVER, folder]
    process = subprocess.Popen(  # noqa: S603 - our own program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=kept | {"PYTHONPATH": modules},
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    assert process.stdin  # noqa: S101 - a pipe
    with process.stdin, suppress(BrokenPipeError):
        process.stdin.write(own.encode())
    until = time.monotonic() + STARTS
    while time.monotonic() < until:
        ended = process.poll()
        with suppress(FileNotFoundError, ConnectionRefusedError):
            return daemon.connect(folder)
        if ended:  # 0 where another one listens already
            raise LinkError(f"the daemon does not start (exit code {ended})")
        time.sleep(0.01)
    raise LinkError("the daemon does not start in time")


class Run:
    """One command that the daemon runs for this process."""

    def __init__(self, arguments: Sequence[str], seconds: float) -> None:
        self._request = {
            "arguments": list(arguments),
            "folder": os.getcwd(),
            "environment": _environment(),
            "streams": [
                {"tty": s.isatty(), "encoding": s.encoding, "errors": s.errors}
                for s in (sys.stdin, sys.stdout, sys.stderr)
            ],
            "seconds": seconds,
        }
        self._terminals = {n for n, s in ((1, sys.stdout), (2, sys.stderr)) if s.isatty()}
        self._held: list[tuple[int, bytes]] = []  # for other streams: written when complete
        self._shown = False

    def follow(self, link: Link) -> int:
        """Pass on what the command prints; return its exit code.

        Raises:
            LinkError: The daemon did not run it to its end: nothing was written but to a terminal.
        """
        try:
            link.send_object(RUN, self._request)
            return self._passed_on(link, TURN)
        except KeyboardInterrupt:
            return self._cancelled(link)
        except BrokenPipeError:  # the reader of our output has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        except LinkError:
            if self._shown:
                _write(2, b"\nthe daemon ended before its answer: here it is again\n")
            raise
        finally:
            link.close()

    def _passed_on(self, link: Link, turn: float) -> int:
        begun, until = False, time.monotonic() + turn
        while True:
            kind, content = link.receive(SILENCE if begun else until - time.monotonic())
            if kind == BEGINS:
                begun = True
            elif kind in (OUT, ERR):
                self._show(1 if kind == OUT else 2, content)
            elif kind == WANTS_INPUT:
                link.send(INPUT, self._input())
            elif kind == DECLINED:
                raise LinkError(content.decode())
            elif kind == DONE:
                for stream, held in self._held:
                    _write(stream, held)
                return int(parsed(content))
            elif kind != BEAT:
                raise LinkError("the daemon says what it should not")

    def _cancelled(self, link: Link) -> int:
        try:
            link.send(CANCEL)
            return self._passed_on(link, LEAVES)
        except LinkError:
            raise KeyboardInterrupt from None

    def _show(self, stream: int, content: bytes) -> None:
        if stream in self._terminals:
            self._shown |= stream == 1
            _write(stream, content)
        else:
            self._held.append((stream, content))

    def _input(self) -> bytes:
        """Standard input, which a command that then runs here reads again."""
        content = sys.stdin.buffer.read()
        sys.stdin = io.TextIOWrapper(io.BytesIO(content), sys.stdin.encoding, sys.stdin.errors)
        return content


def _environment() -> Mapping[str, str]:
    """The variables that the command sees there."""
    given = dict(os.environ)
    if given.get(KEEP_ENCRYPTED) != "1":
        for name in SECRETS:
            given.pop(name, None)
    with suppress(OSError):  # no terminal
        size = os.get_terminal_size(sys.stdout.fileno())
        for name, cells in (("COLUMNS", size.columns), ("LINES", size.lines)):
            if not given.get(name, "").isdigit() or not int(given[name]):
                given[name] = str(cells)
    return given


def _write(stream: int, content: bytes) -> None:
    """Write to a standard stream past Python's buffer, which is empty."""
    view = memoryview(content)
    while view:
        view = view[os.write(stream, view) :]
