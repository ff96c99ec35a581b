"""`cmt` with a daemon, both with a fake language model: `python daemon_program.py ask ...`.

With --serve it is the daemon. The environment variable SLOW makes the daemon wait for so many
seconds after the first word of an answer; it makes the file MARKER then. PATIENCE are the seconds
that the client waits for the daemon.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmt_cli import daemon_client
from cmt_cli.daemon_server import Daemon
from cmt_sdk.system import daemon
from cmt_sdk.testing import fakes
from cmt_sdk.types import Piece, Prompt

SERVE = "--serve"


class SlowReader(fakes.FakeReader):
    """Waits within its answer."""

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """Read as the fake does."""
        for number, piece in enumerate(super().read(prompt, max_tokens)):
            if number == 1 and DAEMON and "SLOW" in os.environ:
                Path(os.environ["MARKER"]).touch()
                end = time.monotonic() + float(os.environ["SLOW"])
                while time.monotonic() < end:
                    time.sleep(0.01)
            yield piece


def opened(folder: Path, **options: Any) -> Any:
    """Open a memory with the fake."""
    return fakes.open_fake(folder, fakes.FakeEngine(reader=SlowReader()), **options)


DAEMON = SERVE in sys.argv
if __name__ == "__main__":
    if DAEMON:
        server = Daemon(sys.argv[2], sys.stdin.read(), opened)
        server.run()
        os._exit(0)
    daemon_client.SERVER = (__file__, SERVE)
    patience = float(os.environ.get("PATIENCE", "60"))  # the machine may be busy
    daemon.CONNECT = daemon_client.TURN = daemon_client.STARTS = patience
    arguments = sys.argv[1:]
    code = daemon_client.answered(arguments)
    if code is None:
        from cmt_cli.main import main

        main(arguments, prog_name="cmt", obj=opened)
    sys.exit(code)
