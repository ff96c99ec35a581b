"""Turn errors into messages on stderr and exit codes. No other module of the CLI does that."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence

import click

from cmt_cli.output import drop_output, echo
from cmt_sdk import errors
from cmt_sdk.errors import CMTError

# Error families with their exit codes; the first match counts.
EXIT_CODES: tuple[tuple[type[CMTError], int], ...] = (
    (errors.ModelNotFound, 4),
    (errors.ModelError, 4),
    (errors.InvalidInput, 2),
    (errors.NotFound, 3),
    (errors.StorageError, 5),
    (CMTError, 1),
)
EPILOG = """\b
Exit codes:
  0    success
  1    any other error
  2    a wrong argument, or a document that cannot be stored
  3    not found: no such document, file or memory
  4    the model is missing, or is not the one that made the compressed passages
  5    an error of the disk or the database
  130  interrupted by Ctrl-C
"""
EXIT_INTERRUPTED = 130
# Messages of the library name the Python remedy and the option: "overwrite=True (`cmt`:
# --overwrite)". The command line shows only the option.
PYTHON_REMEDY = re.compile(r"\w+=\S+ \(`cmt`: (--[\w-]+)\)| or cmt_sdk\.\w+\(\.\.\.\)")


def exit_code(error: CMTError) -> int:
    """Return the exit code of an error's family."""
    return next(code for family, code in EXIT_CODES if isinstance(error, family))


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether --json is among the options; arguments after a bare -- are not options."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


def report(error: CMTError, *, as_json: bool) -> None:
    """Print an error on stderr: a line for people, with `as_json` an object for programs."""
    _report(type(error).__name__, PYTHON_REMEDY.sub(r"\1", str(error)), as_json=as_json)


def _report(kind: str, message: str, *, as_json: bool) -> None:
    if as_json:
        echo(json.dumps({"error": {"type": kind, "message": message}}), err=True)
    else:
        echo(message, label="error:", err=True, fg="red")


def warn(message: str, *, as_json: bool) -> None:
    """Print a warning on stderr; the command continues."""
    if as_json:
        echo(json.dumps({"warning": message}), err=True)
    else:
        echo(message, label="warning:", err=True, fg="yellow")


@contextlib.contextmanager
def handle_errors(*, as_json: bool) -> Iterator[None]:
    """End the process with a message and an exit code on errors that a user can fix.

    Any other exception is a bug and passes through with its traceback.
    """
    try:
        yield
    except CMTError as error:
        report(error, as_json=as_json)
        sys.exit(exit_code(error))
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and not as_json:
            error.show()
        else:
            _report(type(error).__name__, error.format_message(), as_json=as_json)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        is_unanswered = isinstance(error, click.Abort) and not isinstance(
            error.__context__, KeyboardInterrupt
        )
        if isinstance(error, click.Abort) and not as_json:
            echo(err=True)  # the question has no end of line
        message = (
            "there was no answer, so nothing was done; --yes answers beforehand"
            if is_unanswered
            else "stopped; what was stored is safe"
        )
        _report("Stopped", message, as_json=as_json)
        sys.exit(1 if is_unanswered else EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has closed it
        drop_output()
        sys.exit(0)


class _WarningHandler(logging.Handler):
    """Prints the library's warnings on stderr."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(logging.WARNING)
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage(), as_json=self._as_json)


@contextlib.contextmanager
def show_library_warnings(*, as_json: bool) -> Iterator[None]:
    """Show the library's warnings while the block runs."""
    logger = logging.getLogger("cmt_sdk")
    handler = _WarningHandler(as_json=as_json)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def hold_warnings() -> Iterator[list[logging.LogRecord]]:
    """Collect the library's warnings in a list instead of showing them while the block runs.

    `show_held_warnings` shows them later.
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


def show_held_warnings(records: Sequence[logging.LogRecord]) -> None:
    """Show warnings that `hold_warnings` collected."""
    for record in records:
        for handler in logging.getLogger("cmt_sdk").handlers:
            handler.handle(record)
