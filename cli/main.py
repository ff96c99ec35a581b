"""`cmt`: the group of commands. Each command's module is imported only when the command runs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import cmt_sdk
from cmt_cli.error_handling import EPILOG, handle_errors, show_library_warnings, wants_json
from cmt_cli.streams import configure_streams
from cmt_cli.suggestions import SuggestingGroup

# Each command's module and the name of the command object in it.
COMMANDS = {
    "add": "cmt_cli.add:add",
    "ask": "cmt_cli.ask:ask",
    "backup": "cmt_cli.backup:backup",
    "chat": "cmt_cli.chat:chat",
    "completion": "cmt_cli.completion:completion",
    "check": "cmt_cli.check:check",
    "compress": "cmt_cli.compress:compress",
    "config": "cmt_cli.config:config",
    "copy": "cmt_cli.copy:copy",
    "create": "cmt_cli.create:create",
    "daemon": "cmt_cli.daemon:daemon",
    "eval": "cmt_cli.eval:eval_command",
    "export": "cmt_cli.export:export",
    "forget": "cmt_cli.forget:forget",
    "gc": "cmt_cli.gc:gc",
    "import": "cmt_cli.import_archive:import_archive",
    "list": "cmt_cli.list:list_",
    "mcp": "cmt_cli.mcp:mcp",
    "model": "cmt_cli.model:model",
    "reencode": "cmt_cli.reencode:reencode",
    "reindex": "cmt_cli.reindex:reindex",
    "rm": "cmt_cli.rm:rm",
    "search": "cmt_cli.search:search",
    "serve": "cmt_cli.serve:serve",
    "show": "cmt_cli.show:show",
    "stats": "cmt_cli.stats:stats",
    "train": "cmt_cli.train:train",
    "update": "cmt_cli.update:update",
    "watch": "cmt_cli.watch:watch",
    "worker": "cmt_cli.worker:worker",
}


class LazyGroup(SuggestingGroup):
    """A group that imports a command on demand and turns every error into an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the command names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the module of a command and return the command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        Errors are handled here and not only in `main`: click's own `main` ends some of them first.
        """
        as_json = wants_json(ctx.args)
        with show_library_warnings(as_json=as_json), handle_errors(as_json=as_json):
            return super().invoke(ctx)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Parse the arguments, run the command, and exit."""
        configure_streams()
        given = sys.argv[1:] if args is None else list(args)
        with handle_errors(as_json=wants_json(given)):
            code = super().main(given, *rest, **extra | {"standalone_mode": False})
        sys.exit(code)


@click.command(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(cmt_sdk.__version__, prog_name="cmt")
def main() -> None:
    """Remember documents on this machine, and answer questions from them.

    \b
    Example:
      cmt model pull
      cmt add ~/notes
      cmt ask "When did we change the oil?"
    """  # noqa: D301 - click reads the escape
    # By default OpenMP threads spin while they wait, which on a busy machine takes the core from
    # the thread that they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


if __name__ == "__main__":
    main(prog_name="cmt")
