"""`cmt completion`: shell completion scripts."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Example:
      cmt completion bash >> ~/.bashrc
      cmt completion fish > ~/.config/fish/completions/cmt.fish
    """  # noqa: D301 - click reads the escape
    from click.shell_completion import get_completion_class

    from cmt_cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click supports all three
    click.echo(kind(main, {}, "cmt", "_CMT_COMPLETE").source())
