"""A conversation at the terminal: turns, and commands that begin with a slash.

Reads no input itself; `cmt chat` passes it the lines.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cmt_sdk
from cmt_cli.ask import print_pieces
from cmt_cli.error_handling import report
from cmt_cli.output import echo, on_terminal, one_line, pluralize, print_json, short_source
from cmt_cli.source_display import print_sources
from cmt_cli.truncation import mark_truncated, report_truncation
from cmt_sdk.errors import (
    AlreadyExists,
    CMTError,
    InvalidInput,
    InvalidSetting,
    StorageDenied,
)

# A path such as /etc/hosts is not a command: it continues after its first name.
COMMAND = re.compile(r"(/[a-z]+)(?:\s+(.*))?", re.DOTALL)
REMEMBERED = "remembered; /undo takes it back"
LISTED = 50  # notes that /memories lists, the latest ones


@dataclass
class Conversation:
    """One run of `cmt chat`.

    Attributes:
        talk: The chat of the library, with its turns and last answer.
    """

    memory: cmt_sdk.Memory
    scope: str
    options: dict[str, Any]
    remember: bool
    as_json: bool

    def __post_init__(self) -> None:
        self.talk = self._start()

    def _start(self) -> cmt_sdk.Chat:
        return self.memory.chat(remember=self.remember, scope=self.scope, **self.options)

    def hear(self, line: str) -> None:
        """Handle one line: a turn or a command.

        Ctrl-C stops an answer; on a terminal no error ends the conversation.
        """
        command = COMMAND.fullmatch(line)
        try:
            if command:
                self._run_command(command[1], (command[2] or "").strip())
            else:
                self._answer(line)
        except CMTError as error:
            if not isinstance(error, InvalidInput) and not on_terminal(sys.stdin):
                raise
            report(error, as_json=self.as_json)
        except KeyboardInterrupt:
            if not on_terminal(sys.stdin):
                raise
            echo("\n(stopped)", err=True)

    def becomes_document(self, line: str) -> bool:
        """Return whether a line may be added to the memory: it must not be stored elsewhere."""
        command = COMMAND.fullmatch(line)
        return command[1] == "/remember" if command else self.remember

    def _answer(self, line: str) -> None:
        heard = self.talk.hear(line)
        try:
            self._print(self.talk.reply(heard))
        finally:  # the document is stored even if the reply is stopped
            if heard.kept and not self.as_json:
                echo(REMEMBERED, err=True)

    def _print(self, reply: cmt_sdk.Stream) -> None:
        if self.as_json:
            print_json(reply.answer)
        else:
            print_pieces(mark_truncated(iter(reply), lambda: self.talk.last))
            report_truncation(self.talk.last)

    def _run_command(self, name: str, argument: str) -> None:
        command = COMMANDS.get(name)
        if command is None:
            echo(f"{name} is not a command. {_help('; ')}", err=True)
        elif command.argument and not argument:
            raise InvalidInput(f"write {name} {command.argument}: {command.does}")
        else:
            command.run(self, argument)

    def sources(self, _: str) -> None:
        """Print where the last answer comes from."""
        if (last := self._last()) is not None:
            print_sources(last)

    def why(self, _: str) -> None:
        """Print every passage in full with its reasons, and the tokens and times of the answer."""
        last = self._last()
        if last is None:
            return
        for number, found in enumerate(last.sources, 1):
            where = one_line(
                f"{short_source(found.source, found.document_id)}[{found.start}:{found.end}]"
            )
            echo(f"{number}. {where}  score {found.score:.4f}, {found.why}", bold=True)
            echo(found.text)
        abstained = "the memory holds no answer; " if last.abstained else ""
        echo(f"{abstained}confidence {last.confidence:.2f}, read from {last.reader}", dim=True)
        tokens = (
            f"{last.memory_tokens:,} from compressed passages, {last.prompt_tokens:,} in the"
            f" prompt, {last.answer_tokens:,} in the answer"
        )
        times = ", ".join(f"{stage} {ms:,.0f} ms" for stage, ms in last.milliseconds.items())
        echo(f"tokens: {tokens}; {times}", dim=True)

    def _last(self) -> cmt_sdk.Answer | None:
        if self.talk.last is None:
            echo("there was no answer yet", err=True)
        return self.talk.last

    def clear(self, _: str) -> None:
        """Start over: earlier turns are no longer part of questions."""
        self.talk.turns.clear()

    def add(self, text: str) -> None:
        """Add a text to the memory, as --remember does with turns."""
        heard = self.talk.keep(text)
        if heard.is_new:
            echo(REMEMBERED, err=True)
        elif (known := heard.kept) is not None:
            self.talk.stated.remove(heard)
            echo(f"already remembered: {short_source(known.source, known.id)}", err=True)

    def memories(self, _: str) -> None:
        """List what conversations have kept."""
        notes = self.talk.memories()
        for note in notes[-LISTED:]:
            day = note.updated_at.date().isoformat() if note.updated_at else ""
            echo(f"{day}  {one_line(note.text, 100)}")
        if len(notes) > LISTED:
            echo(f"{len(notes) - LISTED} earlier ones: `cmt list` shows all", dim=True)
        elif not notes:
            echo("no conversation has kept anything yet", err=True)

    def forget(self, text: str) -> None:
        """Show the notes that a text concerns, and erase them after a yes."""
        self._print(self.talk.forget(text))

    def undo(self, _: str) -> None:
        """Erase the last text that this conversation kept, and the turn it came from."""
        heard = self.talk.undo()
        text = one_line(heard.kept.text, 60) if heard.kept else ""
        if not heard.receipts:
            echo(f"stays: {text}; it was there before: `cmt forget` erases it", err=True)
        for receipt in heard.receipts:
            count = receipt.traces_found
            left = pluralize(count, "trace") if count else "no trace"
            echo(f"erased: {text}; {left} left in {', '.join(receipt.files_scanned)}", err=True)
        for document in heard.replaced:
            echo(f"valid again: {one_line(document.text, 60)}", err=True)

    def reader(self, name: str) -> None:
        """Use another reader from now on."""
        if name not in cmt_sdk.READERS:
            raise InvalidSetting(f"reader {name!r:.60}: choose one of {', '.join(cmt_sdk.READERS)}")
        self._change(reader=name)

    def k(self, number: str) -> None:
        """Read another number of passages from now on."""
        if not number.isdecimal() or int(number) < 1:
            raise InvalidSetting(f"k {number!r:.60}: give a whole number from 1")
        self._change(k=int(number))

    def _change(self, **option: Any) -> None:
        """Continue the conversation with another option."""
        before = self.talk
        self.options |= option
        self.talk = self._start()
        self.talk.turns = before.turns
        self.talk.last = before.last
        self.talk.stated = before.stated

    def save(self, name: str) -> None:
        """Write the turns to a new file."""
        if not self.talk.turns:
            raise InvalidInput("the conversation is empty: there is nothing to save yet")
        path = Path(name).expanduser()
        text = "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in self.talk.turns)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(f"{text}\n")
        except FileExistsError as error:
            raise AlreadyExists(f"{path} is there already: choose another name") from error
        except OSError as error:
            raise StorageDenied(f"{path} cannot be written: {error.strerror or error}") from error
        echo(f"{pluralize(len(self.talk.turns), 'turn')} in {path}", err=True)

    def help(self, _: str) -> None:
        """List the commands."""
        echo(_help("\n" if on_terminal(sys.stdin) else "; "), err=True)


@dataclass(frozen=True)
class Command:
    """A command that begins with a slash.

    Attributes:
        does: What it does, in a few words.
        run: The method of Conversation that runs it.
        argument: The name of the argument that it needs; "" for none.
        choices: The possible values of the argument, if they are known.
    """

    does: str
    run: Callable[[Conversation, str], None]
    argument: str = ""
    choices: tuple[str, ...] = ()


COMMANDS: Mapping[str, Command] = {
    "/sources": Command("where the last answer comes from", Conversation.sources),
    "/why": Command("the passages in full, with tokens and times", Conversation.why),
    "/clear": Command("start over", Conversation.clear),
    "/remember": Command("add a text to the memory", Conversation.add, "TEXT"),
    "/memories": Command("what conversations have kept", Conversation.memories),
    "/forget": Command("erase the notes about something, after a yes", Conversation.forget, "TEXT"),
    "/undo": Command("erase the last text that this conversation kept", Conversation.undo),
    "/reader": Command(
        f"use another reader: {', '.join(cmt_sdk.READERS)}",
        Conversation.reader,
        "NAME",
        cmt_sdk.READERS,
    ),
    "/k": Command("read this many passages", Conversation.k, "N"),
    "/save": Command("write the conversation to a new file", Conversation.save, "FILE"),
    "/help": Command("list the commands", Conversation.help),
    # handled by the loop in cmt chat
    "/exit": Command("end, as Ctrl-D does", lambda _talk, _argument: None),
}


def _help(between: str) -> str:
    return between.join(
        f"{f'{name} {c.argument}'.strip()}: {c.does}" for name, c in COMMANDS.items()
    )
