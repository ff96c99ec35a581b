"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import json
import logging
import re
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
EPILOG = """\b
Exit codes:
  0    done
  1    another error
  2    a wrong argument, or a document that cannot be remembered
  3    not found: no such document, file or memory
  4    the model is missing, or another than the memories were made by
  5    the disk or the database refused
  130  stopped by Ctrl-C
"""
STOPPED = 130
# What errors of the library say to programmers beside what is said of the command: "overwrite=True
# (`cmt`: --overwrite)".
IN_PYTHON = re.compile(r"\w+=\S+ \(`cmt`: (--[\w-]+)\)| or cmt_sdk\.\w+\(\.\.\.\)")


def exit_code(error: CMTError) -> int:
    """The exit code for an error's family."""
    return next(code for family, code in CODES if isinstance(error, family))


def wants_json(arguments: Sequence[str]) -> bool:
    """True when --json is among the options; what follows a bare -- is no option."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


def tell(error: CMTError, *, as_json: bool) -> None:
    """An error on stderr: a line for people, an object for programs."""
    _tell(type(error).__name__, IN_PYTHON.sub(r"\1", str(error)), as_json=as_json)


def _tell(kind: str, message: str, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps({"error": {"type": kind, "message": message}}), err=True)
    else:
        say(message, label="error:", err=True, fg="red")


def warn(message: str, *, as_json: bool) -> None:
    """Something on stderr that a user should know of, though the command goes on."""
    if as_json:
        say(json.dumps({"warning": message}), err=True)
    else:
        say(message, label="warning:", err=True, fg="yellow")


@contextlib.contextmanager
def reported(*, as_json: bool) -> Iterator[None]:
    """Within the block, what a user can mend ends in one message and an exit code; anything else is
    a bug and shows.
    """
    try:
        yield
    except CMTError as error:
        tell(error, as_json=as_json)
        sys.exit(exit_code(error))
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and not as_json:
            error.show()
        else:
            _tell(type(error).__name__, error.format_message(), as_json=as_json)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        asked = isinstance(error, click.Abort) and not isinstance(
            error.__context__, KeyboardInterrupt
        )
        if isinstance(error, click.Abort) and not as_json:
            say(err=True)  # the question has no end of line
        _tell(
            "Stopped",
            (
                "there was no answer, so nothing was done; --yes answers beforehand"
                if asked
                else "stopped; what was stored is safe"
            ),
            as_json=as_json,
        )
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
        warn(record.getMessage(), as_json=self._as_json)


@contextlib.contextmanager
def warned(*, as_json: bool) -> Iterator[None]:
    """Within the block, the library's warnings are shown."""
    logger, handler = logging.getLogger("cmt_sdk"), _Warnings(as_json=as_json)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def held_back() -> Iterator[list[logging.LogRecord]]:
    """Within the block, the library's warnings are kept in a list in place of being shown; see
    `said_now`.
    """
    kept: list[logging.LogRecord] = []

    def keep(record: logging.LogRecord) -> bool:
        kept.append(record)
        return False

    handlers = list(logging.getLogger("cmt_sdk").handlers)
    for handler in handlers:
        handler.addFilter(keep)
    try:
        yield kept
    finally:
        for handler in handlers:
            handler.removeFilter(keep)


def said_now(records: Sequence[logging.LogRecord]) -> None:
    """Show warnings that were held back."""
    for record in records:
        for handler in logging.getLogger("cmt_sdk").handlers:
            handler.handle(record)
