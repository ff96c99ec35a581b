"""The line editor of `cmt chat`: several lines, completion of commands, a history. Knows
prompt_toolkit, no memory.
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

from cmt_cli.failures import warn
from cmt_cli.output import say

PROMPT = "> "
CONTINUED = ". "


class Described(Protocol):
    """What the editor has to know of a command."""

    @property
    def does(self) -> str:
        """In a few words."""

    @property
    def argument(self) -> str:
        """What it needs, in a word."""

    @property
    def choices(self) -> tuple[str, ...]:
        """What its argument can be, where that is known."""


class Commands(Completer):
    """Completes what begins with a slash: the commands, and those of their arguments that are
    known.
    """

    def __init__(self, commands: Mapping[str, Described]) -> None:
        self._commands = commands

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002 - the interface
    ) -> Iterable[Completion]:
        """What the text before the cursor can go on as."""
        text = document.text_before_cursor
        name, space, begun = text.partition(" ")
        if not text.startswith("/"):
            return
        if space:
            choices = self._commands[name].choices if name in self._commands else ()
            yield from (Completion(c, -len(begun)) for c in choices if c.startswith(begun))
            return
        for full, command in self._commands.items():
            if full.startswith(name):
                shown = f"{full} {command.argument}".strip()
                yield Completion(full, -len(name), display=shown, display_meta=command.does)


class KeptHistory(FileHistory):
    """A file of what was typed, without what is to lie nowhere else; that can be fetched back until
    the end.
    """

    def __init__(self, file: Path, is_kept: Callable[[str], bool]) -> None:
        super().__init__(str(file))
        self._is_kept = is_kept

    def store_string(self, string: str) -> None:
        """Add a text to the file."""
        if self._is_kept(string.strip()):
            super().store_string(string)


def history_in(file: Path | None, is_kept: Callable[[str], bool]) -> History:
    """The history in a file that only its owner may read; without a file, or where there can be
    none, that of this run.
    """
    if file is None:
        return InMemoryHistory()
    try:
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        file.chmod(0o600)  # it may have been made by hand
    except OSError as error:
        warn(f"what you type is not kept: {file}: {error.strerror or error}", as_json=False)
        return InMemoryHistory()
    return KeptHistory(file, is_kept)


class Prompt:
    """Iterated for what is typed, until Ctrl-D; Ctrl-C clears what was begun, and on an empty line
    it is raised.
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
        # a terminal that does not say where its cursor is will do
        self._session.app.renderer.cpr_not_supported_callback = None

    def __iter__(self) -> Iterator[str]:
        while True:
            try:
                yield self._session.prompt().strip()
            except EOFError:
                say()
                return


def _keys() -> KeyBindings:
    """Enter sends; Alt-Enter, and Enter after a backslash, begin another line. A paste keeps its
    lines.
    """
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
