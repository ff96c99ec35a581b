"""`cmt chat`: a conversation over a memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cmt_cli.conversation import COMMANDS, Conversation
from cmt_cli.inputs import decoded
from cmt_cli.memories import begun, opened
from cmt_cli.options import json_option, k_option, max_tokens_option, memory_option, reader_option
from cmt_cli.output import amount, on_terminal, say

HISTORY = "chat-history"
LEAVES = ("exit", "quit")  # as in a shell, on a terminal


@click.command()
@click.option("--remember", is_flag=True, help="Add what you tell to the memory.")
@click.option(
    "--scope", default="", help="Whose memory: what is searched, and where what you say is added."
)
@click.option("--no-history", is_flag=True, help="On a terminal: keep no file of what you type.")
@k_option
@reader_option
@max_tokens_option
@memory_option
@json_option
def chat(
    remember: bool, scope: str, no_history: bool, folder: Path, as_json: bool, **options: Any
) -> None:
    """Talk with a memory; earlier turns are part of each question.

    With --remember what you tell is kept and said back, what only asks is not kept, and "Forget my
    phone number." erases what it concerns once you answer yes.

    On a terminal Alt-Enter, or a \\ at its end, begins another line; /help lists the commands, exit
    ends. What you type can be fetched back with the arrow keys, in later conversations too: it is
    kept in the memory's folder, in the file chat-history, which only you may read. What becomes a
    document is not kept there, so that `cmt forget` leaves no trace of it; delete it, or say
    --no-history, where questions are to leave none either. Of an encrypted memory there is no such
    file.

    On standard input one line is one turn; with --json every answer is an object on a line.

    \b
    Example:
      cmt chat --remember --scope user/ann
    """  # noqa: D301 - click reads the escape
    with begun(folder) if remember else opened(folder) as memory:
        talk = Conversation(memory, scope, options, remember=remember, as_json=as_json)
        history = None if no_history or memory.encrypted else memory.path / HISTORY
        typed = on_terminal(sys.stdin)
        for said in _typed(talk, history) if typed else _piped():
            if said == "/exit" or (typed and said in LEAVES):
                return
            if said:
                talk.hear(said)


def _piped() -> Iterator[str]:
    """Standard input line by line."""
    for line in sys.stdin.buffer if sys.stdin else ():
        yield decoded(line).strip()


def _typed(talk: Conversation, history: Path | None) -> Iterator[str]:
    """What somebody types."""
    # a line editor is loaded where there is somebody to edit lines
    from cmt_cli.prompt import Prompt

    documents = amount(talk.memory.count(scope=talk.scope or None), "document")
    say(
        f"{documents}. /sources shows where an answer comes from, /help the other commands; Ctrl-D"
        " ends",
        dim=True,
    )
    yield from Prompt(COMMANDS, history, is_kept=lambda text: not talk.becomes_document(text))
