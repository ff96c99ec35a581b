"""The program `cmt`: asks the daemon first, and imports the commands where they run here."""

from __future__ import annotations

import atexit
import gc
import sys

from cmt_cli import daemon_client

# New objects before the garbage collector looks at all of them: more than a short command makes.
# Most come from imports and live until the end.
OBJECTS = 200_000


def main() -> None:
    """Run a command and exit."""
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)  # the interpreter looks at all objects several times as it ends
    arguments = sys.argv[1:]
    try:
        code = daemon_client.answered(arguments)
    except KeyboardInterrupt:
        from cmt_cli.error_handling import handle_errors, wants_json

        with handle_errors(as_json=wants_json(arguments)):
            raise
    if code is None:
        from cmt_cli.main import main as commands

        commands(prog_name="cmt")
    sys.exit(code)


if __name__ == "__main__":
    main()
