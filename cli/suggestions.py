"""A click group that suggests commands for a mistyped name."""

from __future__ import annotations

from difflib import get_close_matches

import click

MIN_SIMILARITY = 0.6  # difflib's ratio from which a name is suggested


class SuggestingGroup(click.Group):
    """A group whose error for an unknown command names similar commands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises click.UsageError with suggestions for an unknown name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            given = args[0].lower()
            names = self.list_commands(ctx)
            similar = [name for name in names if given and name.startswith(given)]
            similar = similar or get_close_matches(given, names, n=2, cutoff=MIN_SIMILARITY)
            if not similar:
                raise
            message = f"No such command {args[0]!r}. Did you mean {' or '.join(similar)}?"
            raise click.UsageError(message, ctx) from error
