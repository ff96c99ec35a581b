"""`cmt chat`: a conversation over a memory."""

from __future__ import annotations

import sys
from typing import Any

import click

from cmt_cli.ask import READERS, print_sources
from cmt_cli.common import memory_option, opened, printable

HELP = "/sources shows where the last answer comes from, /forget clears the conversation, /exit (or Ctrl-D) ends it."


@click.command()
@click.option("--remember", is_flag=True, help="Add what you say to the memory.")
@click.option("--scope", default="", help="Whose memory: it is searched, and added to, in this scope.")
@click.option("-k", "k", default=5, show_default=True, type=click.IntRange(min=1), help="Passages to read.")
@click.option("--reader", type=READERS, default="memory", show_default=True, help="What the model reads.")
@memory_option
def chat(remember: bool, scope: str, k: int, reader: str, where: str | None) -> None:
    """Talk with a memory; earlier turns are part of each question.

    \b
    Example:
      cmt chat --remember --scope user/ann
    """  # noqa: D301 - click reads the escape
    with opened(where, create=remember) as memory:
        options: dict[str, Any] = {"k": k, "reader": reader}
        talk = memory.chat(remember=remember, scope=scope, **options)
        if sys.stdin.isatty():
            click.secho(f"{memory.count(scope=scope or None)} documents. {HELP}", dim=True)
        while (said := _heard()) is not None:
            if said == "/exit":
                return
            if said == "/sources":
                if talk.last is not None:
                    print_sources(talk.last)
            elif said == "/forget":
                talk.turns.clear()
            elif said.startswith("/"):
                click.echo(HELP)
            elif said:
                for piece in talk.stream(said):
                    click.echo(printable(piece), nl=False)
                click.echo()


def _heard() -> str | None:
    """The next line that the user says; None at the end."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip() if line else None
    try:
        return input("you> ").strip()
    except EOFError:
        click.echo()
        return None
