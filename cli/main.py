"""`cmt`: the group of commands, each loaded only when it is called. Knows their names and nothing
of what they do.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import cmt_sdk
from cmt_cli.failures import EPILOG, reported, wants_json, warned
from cmt_cli.streams import prepare
from cmt_cli.suggesting import Suggesting

# Where each command lies: the module, and the object's name in it.
COMMANDS = {
    "add": "cmt_cli.add:add",
    "ask": "cmt_cli.ask:ask",
    "backup": "cmt_cli.upkeep:backup",
    "chat": "cmt_cli.chat:chat",
    "completion": "cmt_cli.completion:completion",
    "check": "cmt_cli.upkeep:check",
    "compress": "cmt_cli.upkeep:compress",
    "config": "cmt_cli.config:config",
    "create": "cmt_cli.create:create",
    "eval": "cmt_cli.eval:eval_command",
    "export": "cmt_cli.archive:export",
    "forget": "cmt_cli.change:forget",
    "import": "cmt_cli.archive:import_archive",
    "list": "cmt_cli.look:list_",
    "mcp": "cmt_cli.mcp:mcp",
    "model": "cmt_cli.model:model",
    "reencode": "cmt_cli.upkeep:reencode",
    "reindex": "cmt_cli.upkeep:reindex",
    "rm": "cmt_cli.change:rm",
    "search": "cmt_cli.look:search",
    "serve": "cmt_cli.serve:serve",
    "show": "cmt_cli.look:show",
    "stats": "cmt_cli.look:stats",
    "train": "cmt_cli.train:train",
    "update": "cmt_cli.change:update",
    "watch": "cmt_cli.watch:watch",
}


class LazyGroup(Suggesting):
    """A group that imports a command when it is needed, and ends every failure in one place."""

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
        """Run a command. Failures are caught here already: above, click would end some of them in
        its own way.
        """
        as_json = wants_json(ctx.args)
        with warned(as_json=as_json), reported(as_json=as_json):
            return super().invoke(ctx)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Parse the arguments, run, and exit."""
        prepare()
        given = sys.argv[1:] if args is None else list(args)
        with reported(as_json=wants_json(given)):
            code = super().main(given, *rest, **extra | {"standalone_mode": False})
        sys.exit(code)


@click.command(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(cmt_sdk.__version__, prog_name="cmt")
def main() -> None:
    """Remember documents on this machine, and ask them.

    \b
    Example:
      cmt model pull
      cmt add ~/notes
      cmt ask "When did we change the oil?"
    """  # noqa: D301 - click reads the escape
    # torch's threads wait by spinning, which on a busy machine takes the cores from those they wait
    # for
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # importing makes objects that stay: looking through them again and again takes a fifth of
    # `list`
    gc.set_threshold(100_000)


if __name__ == "__main__":
    main(prog_name="cmt")
