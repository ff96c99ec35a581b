"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator

import click

from cmt_sdk import errors
from cmt_sdk.errors import CMTError

CODES: tuple[tuple[type[CMTError], int], ...] = (
    (errors.ModelNotFound, 4),
    (errors.ModelError, 4),
    (errors.InvalidInput, 2),
    (errors.NotFound, 3),
    (errors.StorageError, 5),
    (CMTError, 1),
)
EPILOG = (
    "Exit codes: 0 done, 1 another error, 2 a wrong argument, 3 not found, 4 the model is missing or another one, "
    "5 disk or database, 130 stopped by Ctrl-C."
)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Errors that a user can mend end in one line on stderr and an exit code; with --json, in a JSON object."""
    try:
        yield
    except CMTError as error:
        code = next(code for kind, code in CODES if isinstance(error, kind))
        _say(type(error).__name__, str(error))
        sys.exit(code)
    except KeyboardInterrupt:
        _say("Interrupted", "stopped; what was stored is safe, `cmt compress` goes on with the rest")
        sys.exit(130)
    except BrokenPipeError:
        # who reads us has had enough; python would complain once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _say(kind: str, message: str) -> None:
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": {"type": kind, "message": message}}), err=True)
    else:
        click.echo(f"{click.style('error:', fg='red')} {message}", err=True)
