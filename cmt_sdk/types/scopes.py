"""The rule of scopes that the memory and its clients share. Knows the errors alone."""

from __future__ import annotations

from cmt_sdk.errors import InvalidDocument


def is_scope(scope: object) -> bool:
    """Whether this is a scope: "", or names with a slash between them, none of them "." or ".."."""
    return isinstance(scope, str) and (not scope or not {"", ".", ".."} & set(scope.split("/")))


def check_scope(scope: object) -> None:
    """Raise InvalidDocument for what is no scope."""
    if not is_scope(scope):
        raise InvalidDocument(
            f"scope {scope!r:.60}: give names with a slash between them, such as user/ann"
        )
