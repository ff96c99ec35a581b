"""A group of commands that names those which are like a mistyped one. Knows no command."""

from __future__ import annotations

from difflib import get_close_matches

import click

LIKE = 0.6  # the share of letters from which on a name is like another


class Suggesting(click.Group):
    """See the module."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a name that is none, UsageError with those that are like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            given, names = args[0].lower(), self.list_commands(ctx)
            like = [name for name in names if given and name.startswith(given)]
            like = like or get_close_matches(given, names, n=2, cutoff=LIKE)
            if not like:
                raise
            message = f"No such command {args[0]!r}. Did you mean {' or '.join(like)}?"
            raise click.UsageError(message, ctx) from error
