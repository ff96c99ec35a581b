"""`cmt`: the group of commands, each loaded only when it is called. Knows their names and nothing of what they do."""

from __future__ import annotations

import importlib
from typing import Any

import click

from cmt_cli.failures import EPILOG, reported

# Where each command lies: module and, where it differs from the name, the object's name in it.
COMMANDS = {
    "add": "cmt_cli.add:add",
    "ask": "cmt_cli.ask:ask",
    "chat": "cmt_cli.chat:chat",
    "compress": "cmt_cli.upkeep:compress",
    "completion": "cmt_cli.completion:completion",
    "config": "cmt_cli.config:config",
    "doctor": "cmt_cli.upkeep:doctor",
    "eval": "cmt_cli.eval:eval_command",
    "export": "cmt_cli.archive:export",
    "forget": "cmt_cli.change:forget",
    "import": "cmt_cli.archive:import_",
    "list": "cmt_cli.look:list_",
    "model": "cmt_cli.model:model",
    "reencode": "cmt_cli.upkeep:reencode",
    "reindex": "cmt_cli.upkeep:reindex",
    "rm": "cmt_cli.change:rm",
    "search": "cmt_cli.look:search",
    "show": "cmt_cli.look:show",
    "stats": "cmt_cli.look:stats",
    "update": "cmt_cli.change:update",
}


class LazyGroup(click.Group):
    """A group that imports a command when it is needed: `cmt --help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what goes wrong ends in one place."""
        with reported():
            return super().invoke(ctx)


@click.command(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cmt-sdk", prog_name="cmt")
def main() -> None:
    """Remember documents on this machine, and ask them.

    \b
    Example:
      cmt model pull
      cmt add ~/notes
      cmt ask "When did we change the oil?"
    """  # noqa: D301 - click reads the escape


if __name__ == "__main__":
    main(prog_name="cmt")
