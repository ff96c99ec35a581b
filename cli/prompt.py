"""The line editor of `cmt chat`: multi-line input, command completion and history.

The only module that uses prompt_toolkit; opens no memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from cmt_cli.error_handling import warn
from cmt_cli.output import echo

PROMPT = "> "
CONTINUED = ". "


class Described(Protocol):
    """The description of a command, as the editor needs it."""

    @property
    def does(self) -> str:
        """Return what the command does, in a few words."""

    @property
    def argument(self) -> str:
        """Return the name of the argument; "" if the command takes none."""

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the possible values of the argument, if they are known."""


class Commands(Completer):
    """Completes the names of commands, which begin with a slash, and their known arguments."""

    def __init__(self, commands: Mapping[str, Described]) -> None:
        self._commands = commands

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002 - the interface
    ) -> Iterable[Completion]:
        """Yield the completions of the text before the cursor."""
        text = document.text_before_cursor
        name, space, argument = text.partition(" ")
        if not text.startswith("/"):
            return
        if space:
            choices = self._commands[name].choices if name in self._commands else ()
            yield from (Completion(c, -len(argument)) for c in choices if c.startswith(argument))
            return
        for full, command in self._commands.items():
            if full.startswith(name):
                shown = f"{full} {command.argument}".strip()
                yield Completion(full, -len(name), display=shown, display_meta=command.does)


class KeptHistory(FileHistory):
    """A history file without the lines that become documents.

    Those lines can be recalled until the program ends, but are stored only in the memory.
    """

    def __init__(self, file: Path, is_kept: Callable[[str], bool]) -> None:
        super().__init__(str(file))
        self._is_kept = is_kept

    def store_string(self, string: str) -> None:
        """Append a line to the file unless it becomes a document."""
        if self._is_kept(string.strip()):
            super().store_string(string)


def history_in(file: Path | None, is_kept: Callable[[str], bool]) -> History:
    """Return a history in a file that only its owner can read.

    Without a file, or if the file cannot be written, the history lasts until the program ends.
    """
    if file is None:
        return InMemoryHistory()
    try:
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        file.chmod(0o600)  # the file may have been created with other permissions
    except OSError as error:
        warn(f"what you type is not kept: {file}: {error.strerror or error}", as_json=False)
        return InMemoryHistory()
    return KeptHistory(file, is_kept)


class Prompt:
    """An iterable of the texts that a user types, until Ctrl-D.

    Ctrl-C clears the line; on an empty line it raises KeyboardInterrupt.
    """

    def __init__(
        self,
        commands: Mapping[str, Described],
        history: Path | None,
        is_kept: Callable[[str], bool],
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=history_in(history, is_kept),
            completer=Commands(commands),
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation=CONTINUED,
            enable_history_search=True,
        )
        # no warning for a terminal that does not report its cursor position
        self._session.app.renderer.cpr_not_supported_callback = None

    def __iter__(self) -> Iterator[str]:
        while True:
            try:
                yield self._session.prompt().strip()
            except EOFError:
                echo()
                return


def _keys() -> KeyBindings:
    """Return the key bindings: Enter sends; Alt-Enter and Enter after a backslash add a line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return keys
