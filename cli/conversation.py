"""A conversation at the terminal: turns, and the commands that begin with a slash. Knows no line
editor.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cmt_sdk
from cmt_cli.ask import say_pieces
from cmt_cli.cut import marked, tell_if_cut
from cmt_cli.failures import tell
from cmt_cli.output import amount, on_terminal, one_line, place, print_json, say
from cmt_cli.quoting import print_sources
from cmt_sdk.errors import (
    AlreadyExists,
    CMTError,
    DocumentNotFound,
    InvalidInput,
    InvalidSetting,
    StorageDenied,
)

# a path is no command: it goes on after its first name
COMMAND = re.compile(r"(/[a-z]+)(?:\s+(.*))?", re.DOTALL)
REMEMBERED = "remembered; /forget takes it back"


@dataclass
class Conversation:
    """One run of `cmt chat`. `remembered` are the documents that were added in it and not forgotten
    since.
    """

    memory: cmt_sdk.Memory
    scope: str
    options: dict[str, Any]
    remember: bool
    as_json: bool
    remembered: list[cmt_sdk.Document] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.talk = self._begun()

    def _begun(self) -> cmt_sdk.Chat:
        return self.memory.chat(remember=self.remember, scope=self.scope, **self.options)

    def hear(self, said: str) -> None:
        """A turn or a command. Ctrl-C stops an answer; on a terminal no error ends the
        conversation.
        """
        found = COMMAND.fullmatch(said)
        try:
            if found:
                self._obey(found[1], (found[2] or "").strip())
            else:
                self._answer(said)
        except CMTError as error:
            if not isinstance(error, InvalidInput) and not on_terminal(sys.stdin):
                raise
            tell(error, as_json=self.as_json)
        except KeyboardInterrupt:
            if not on_terminal(sys.stdin):
                raise
            say("\n(stopped)", err=True)

    def becomes_document(self, said: str) -> bool:
        """True for what will be added to the memory: it is to lie nowhere else."""
        found = COMMAND.fullmatch(said)
        return found[1] == "/remember" if found else self.remember

    def _answer(self, said: str) -> None:
        heard = self.talk.hear(said)
        gone = {name for receipt in heard.receipts for name in receipt.documents}
        self.remembered = [d for d in self.remembered if d.id not in gone]
        self.remembered += [heard.kept] if heard.kept else []
        try:
            if self.as_json:
                print_json(self.talk.reply(heard).answer)
            else:
                say_pieces(marked(self.talk.reply(heard), lambda: self.talk.last))
                tell_if_cut(self.talk.last)
        finally:  # kept, also where the reply is stopped
            if heard.kept and not self.as_json:
                say(REMEMBERED, err=True)

    def _obey(self, name: str, argument: str) -> None:
        command = COMMANDS.get(name)
        if command is None:
            say(f"{name} is no command. {_help('; ')}", err=True)
        elif command.argument and not argument:
            raise InvalidInput(f"write {name} {command.argument}: {command.does}")
        else:
            command.run(self, argument)

    def sources(self, _: str) -> None:
        """Where the last answer comes from."""
        if (last := self._last()) is not None:
            print_sources(last)

    def why(self, _: str) -> None:
        """Why it was that answer: every passage in full with its reasons, and what was read in
        which time.
        """
        last = self._last()
        if last is None:
            return
        for number, found in enumerate(last.sources, 1):
            where = one_line(f"{place(found.source, found.document_id)}[{found.start}:{found.end}]")
            say(f"{number}. {where}  score {found.score:.4f}, {found.why}", bold=True)
            say(found.text)
        told = "the memory does not tell; " if last.abstained else ""
        say(f"{told}confidence {last.confidence:.2f}, read from {last.reader}", dim=True)
        tokens = (
            f"{last.memory_tokens:,} from memories, {last.prompt_tokens:,} in the prompt,"
            f" {last.answer_tokens:,} in the answer"
        )
        times = ", ".join(f"{stage} {ms:,.0f} ms" for stage, ms in last.milliseconds.items())
        say(f"tokens: {tokens}; {times}", dim=True)

    def _last(self) -> cmt_sdk.Answer | None:
        if self.talk.last is None:
            say("there was no answer yet", err=True)
        return self.talk.last

    def clear(self, _: str) -> None:
        """Begin anew: earlier turns are part of no question any more."""
        self.talk.turns.clear()

    def add(self, text: str) -> None:
        """Remember a text, as --remember does with what is said."""
        document = self.memory.add(
            text, scope=self.scope, source="chat", metadata={"role": "user"}, wait=False
        )
        if document.source != "chat":
            say(f"already remembered: {place(document.source, document.id)}", err=True)
            return
        self.remembered.append(document)
        say(REMEMBERED, err=True)

    def forget(self, _: str) -> None:
        """Erase the last text that was remembered in this conversation, and the turn in which it
        was said.
        """
        if not self.remembered:
            raise DocumentNotFound(
                "nothing was remembered in this conversation; `cmt forget` erases what was before"
            )
        document = self.remembered.pop()
        text = document.text
        turns = self.talk.turns
        told = [i for i, turn in enumerate(turns) if turn.role == "user" and text in turn.content]
        for at in told[::-1]:
            del turns[at : at + 2]  # with its answer
        if document.source != "chat":
            say(
                f"stays: {one_line(text, 60)}; it was there before, from another source: `cmt"
                " forget` erases it",
                err=True,
            )
            return
        receipt = self.memory.forget(document.id)
        left = amount(receipt.traces_found, "trace") if receipt.traces_found else "no trace"
        say(
            f"erased: {one_line(text, 60)}; {left} left in {', '.join(receipt.files_scanned)}",
            err=True,
        )

    def reader(self, name: str) -> None:
        """Read with another reader from now on."""
        if name not in cmt_sdk.READERS:
            raise InvalidSetting(f"reader {name!r:.60}: choose one of {', '.join(cmt_sdk.READERS)}")
        self._change(reader=name)

    def k(self, number: str) -> None:
        """Find another number of passages from now on."""
        if not number.isdecimal() or int(number) < 1:
            raise InvalidSetting(f"k {number!r:.60}: give a whole number from 1")
        self._change(k=int(number))

    def _change(self, **option: Any) -> None:
        """The same conversation with another option."""
        before = self.talk
        self.options |= option
        self.talk = self._begun()
        self.talk.turns, self.talk.last = before.turns, before.last

    def save(self, name: str) -> None:
        """Write what was said to a new file."""
        if not self.talk.turns:
            raise InvalidInput("nothing was said yet: there is nothing to save")
        path = Path(name).expanduser()
        text = "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in self.talk.turns)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(f"{text}\n")
        except FileExistsError as error:
            raise AlreadyExists(f"{path} is there already: choose another name") from error
        except OSError as error:
            raise StorageDenied(f"{path} cannot be written: {error.strerror or error}") from error
        say(f"{amount(len(self.talk.turns), 'turn')} in {path}", err=True)

    def help(self, _: str) -> None:
        """List the commands."""
        say(_help("\n" if on_terminal(sys.stdin) else "; "), err=True)


@dataclass(frozen=True)
class Command:
    """What begins with a slash: the argument that it needs, in a word, and what it does."""

    does: str
    run: Callable[[Conversation, str], None]
    argument: str = ""
    choices: tuple[str, ...] = ()


COMMANDS: Mapping[str, Command] = {
    "/sources": Command("where the last answer comes from", Conversation.sources),
    "/why": Command("the passages in full, and what was read in which time", Conversation.why),
    "/clear": Command("begin anew", Conversation.clear),
    "/remember": Command("add a text to the memory", Conversation.add, "TEXT"),
    "/forget": Command("erase what was remembered last in this conversation", Conversation.forget),
    "/reader": Command(
        f"read with another one of {', '.join(cmt_sdk.READERS)}",
        Conversation.reader,
        "NAME",
        cmt_sdk.READERS,
    ),
    "/k": Command("find so many passages", Conversation.k, "N"),
    "/save": Command("write what was said to a new file", Conversation.save, "FILE"),
    "/help": Command("this", Conversation.help),
    # the loop around knows it
    "/exit": Command("end, as Ctrl-D does", lambda _talk, _argument: None),
}


def _help(between: str) -> str:
    return between.join(
        f"{f'{name} {c.argument}'.strip()}: {c.does}" for name, c in COMMANDS.items()
    )
