"""`cmt chat`: a conversation over a memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cmt_cli.conversation import COMMANDS, Conversation
from cmt_cli.inputs import decode_utf8
from cmt_cli.memory_folder import open_memory, open_or_create
from cmt_cli.options import (
    MAX_TOKENS,
    Place,
    generator_options,
    json_option,
    k_option,
    memory_option,
    reader_option,
)
from cmt_cli.output import echo, on_terminal, pluralize

HISTORY = "chat-history"
EXIT_WORDS = ("exit", "quit")  # on a terminal, as in a shell


@click.command()
@click.option("--remember", is_flag=True, help="Add the facts that you state to the memory.")
@click.option(
    "--scope",
    default="",
    help="Namespace path to search and to add to, e.g. user/ann.",
)
@click.option("--no-history", is_flag=True, help="On a terminal: do not store what you type.")
@k_option
@reader_option
@click.option("--max-tokens", **MAX_TOKENS)
@generator_options
@memory_option
@json_option
def chat(
    remember: bool,
    scope: str,
    no_history: bool,
    folder: Place,
    as_json: bool,
    generator: Mapping[str, Any],
    **options: Any,
) -> None:
    """Chat with a memory; earlier turns are part of each question.

    With --remember, the memory stores the facts that you state and confirms them; it does not store
    questions. "Forget my phone number." erases the matching documents after you answer yes.
    /memories lists what was kept, /forget TEXT erases what concerns a text, after a yes, and /undo
    takes the last statement back.

    On a terminal, Alt-Enter or a \\ at the end of a line begins another line, /help lists the
    commands, and exit ends the chat. The arrow keys recall earlier input, also from earlier chats:
    it is stored in the file chat-history in the memory's folder, which only you can read. Text that
    becomes a document is not stored there, so `cmt forget` leaves no trace of it. To leave no trace
    of questions either, delete the file or use --no-history. An encrypted memory and one in a
    database have no such file.

    On standard input, each line is one turn; with --json each answer is one object on a line.

    \b
    Example:
      cmt chat --remember --scope user/ann
    """  # noqa: D301 - click reads the escape
    opener = open_or_create if remember else open_memory
    with opener(folder, **generator) as memory:
        talk = Conversation(memory, scope, options, remember=remember, as_json=as_json)
        keeps = not (no_history or memory.encrypted)
        history = memory.path / HISTORY if keeps and memory.path else None
        is_typed = on_terminal(sys.stdin)
        for line in _typed(talk, history) if is_typed else _piped():
            if line == "/exit" or (is_typed and line in EXIT_WORDS):
                return
            if line:
                talk.hear(line)


def _piped() -> Iterator[str]:
    """Yield standard input line by line."""
    for line in sys.stdin.buffer if sys.stdin else ():
        yield decode_utf8(line).strip()


def _typed(talk: Conversation, history: Path | None) -> Iterator[str]:
    """Yield the texts that a user types, after a line of introduction."""
    # the line editor takes time to load and is needed only on a terminal
    from cmt_cli.prompt import Prompt

    documents = pluralize(talk.memory.count(scope=talk.scope or None), "document")
    echo(
        f"{documents}. /sources shows where an answer comes from, /help the other commands; Ctrl-D"
        " ends",
        dim=True,
    )
    yield from Prompt(COMMANDS, history, is_kept=lambda text: not talk.becomes_document(text))
