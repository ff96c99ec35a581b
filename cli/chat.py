"""`cmt chat`: a conversation over a memory."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.ask import print_sources, say_pieces
from cmt_cli.failures import tell
from cmt_cli.inputs import decoded
from cmt_cli.memories import opened
from cmt_cli.options import json_option, k_option, memory_option, reader_option
from cmt_cli.output import amount, on_terminal, print_json, say
from cmt_sdk.errors import InvalidInput

HELP = "/sources: where the last answer comes from; /clear: begin anew; /help: this; /exit or Ctrl-D: end"


@click.command()
@click.option("--remember", is_flag=True, help="Add what you say to the memory.")
@click.option("--scope", default="", help="Whose memory: what is searched, and where what you say is added.")
@k_option
@reader_option
@memory_option
@json_option
def chat(remember: bool, scope: str, folder: Path, as_json: bool, **options: Any) -> None:
    """Talk with a memory; earlier turns are part of each question.

    On standard input one line is one turn; with --json every answer is an object on a line.

    \b
    Example:
      cmt chat --remember --scope user/ann
    """  # noqa: D301 - click reads the escape
    with opened(folder, create=remember) as memory:
        talk = memory.chat(remember=remember, scope=scope, **options)
        if on_terminal(sys.stdin):
            say(f"{amount(memory.count(scope=scope or None), 'document')}. {HELP}", dim=True)
        for said in _lines():
            if said == "/exit":
                return
            if said.startswith("/"):
                _obey(said, talk)
            elif said:
                _answer(said, talk, as_json=as_json)


def _lines() -> Iterator[str]:
    """What the user says, line by line; on a terminal with a prompt, editing and history."""
    if not on_terminal(sys.stdin):
        for line in sys.stdin.buffer if sys.stdin else ():
            yield decoded(line).strip()
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - its import is what gives input() editing and history
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            say()
            return


def _obey(command: str, talk: cmt_sdk.Chat) -> None:
    if command == "/clear":
        talk.turns.clear()
    elif command == "/sources" and talk.last is not None:
        print_sources(talk.last)
    elif command == "/sources":
        say("there was no answer yet", err=True)
    else:
        say(HELP if command == "/help" else f"{command} is no command. {HELP}", err=True)


def _answer(said: str, talk: cmt_sdk.Chat, *, as_json: bool) -> None:
    """One turn; Ctrl-C stops this answer, and a question that cannot be asked ends nothing."""
    try:
        if as_json:
            print_json(talk.say(said))
        else:
            say_pieces(talk.stream(said))
    except InvalidInput as error:
        tell(error, as_json=as_json)
    except KeyboardInterrupt:
        if not on_terminal(sys.stdin):
            raise
        say("\n(stopped)", err=True)
