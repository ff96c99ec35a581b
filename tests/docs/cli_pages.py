"""The --help pages as docs/cli.md. `python tests/docs/cli_pages.py` writes it; a test keeps it
true.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from cmt_cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command beneath a group, with the words that call it."""
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def render() -> str:
    """The whole page."""
    parts = ["# The commands\n\nThe output of `cmt COMMAND --help`.\n"]
    for path, command in [("cmt", main), *commands(main, "cmt")]:
        sizes = {"terminal_width": 100, "max_content_width": 100}
        context = click.Context(command, info_name=path, **sizes, **main.context_settings)
        parts.append(f"## {path}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
