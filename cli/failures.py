"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence

import click

from cmt_cli.output import drop_output, say
from cmt_sdk import errors
from cmt_sdk.errors import CMTError

# The first family that fits decides.
CODES: tuple[tuple[type[CMTError], int], ...] = (
    (errors.ModelNotFound, 4),
    (errors.ModelError, 4),
    (errors.InvalidInput, 2),
    (errors.NotFound, 3),
    (errors.StorageError, 5),
    (CMTError, 1),
)
EPILOG = (
    "Exit codes: 0 done, 1 another error, 2 a wrong argument or document, 3 not found, 4 the model is missing or another "
    "one, 5 the disk or the database, 130 stopped by Ctrl-C."
)
STOPPED = 130


def exit_code(error: CMTError) -> int:
    """The exit code for an error's family."""
    return next(code for family, code in CODES if isinstance(error, family))


def wants_json(arguments: Sequence[str]) -> bool:
    """True when --json is among the options; what follows a bare -- is no option."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


def tell(error: CMTError, *, as_json: bool) -> None:
    """An error on stderr: a line for people, an object for programs."""
    _tell(type(error).__name__, str(error), as_json=as_json)


def _tell(kind: str, message: str, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps({"error": {"type": kind, "message": message}}), err=True)
    else:
        say("error: ", err=True, nl=False, fg="red")
        say(message, err=True)


@contextlib.contextmanager
def reported(*, as_json: bool) -> Iterator[None]:
    """Within the block, what a user can mend ends in one message and an exit code; anything else is a bug and shows."""
    try:
        yield
    except CMTError as error:
        tell(error, as_json=as_json)
        sys.exit(exit_code(error))
    except click.ClickException as error:
        if as_json:
            _tell(type(error).__name__, error.format_message(), as_json=True)
        else:
            error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        asked = isinstance(error, click.Abort) and not isinstance(error.__context__, KeyboardInterrupt)
        _tell("Stopped", "there was no answer" if asked else "stopped; what was stored is safe", as_json=as_json)
        sys.exit(1 if asked else STOPPED)
    except BrokenPipeError:  # who reads us has had enough
        drop_output()
        sys.exit(0)


class _Warnings(logging.Handler):
    """Warnings of the library as lines on stderr."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(logging.WARNING)
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        say(json.dumps({"warning": message}) if self._as_json else f"warning: {message}", err=True)


@contextlib.contextmanager
def warned(*, as_json: bool) -> Iterator[None]:
    """Within the block, the library's warnings are shown."""
    logger, handler = logging.getLogger("cmt_sdk"), _Warnings(as_json=as_json)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
