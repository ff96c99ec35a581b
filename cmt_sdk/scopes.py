"""The rules of texts and scopes that the memory and its clients share. Knows the errors alone."""

from __future__ import annotations

import re

from cmt_sdk.errors import InvalidDocument

UNSOUND = re.compile("[\0\ud800-\udfff]")  # NUL and lone surrogates: no tokenizer takes them


def clean_text(text: str) -> str:
    """A text with U+FFFD in place of NUL and lone surrogates, which no stored text may hold."""
    return UNSOUND.sub("\ufffd", text)


def is_scope(scope: object) -> bool:
    """Whether this is a scope: "", or names with a slash between them, none of them "." or ".."."""
    return isinstance(scope, str) and (not scope or not {"", ".", ".."} & set(scope.split("/")))


def check_scope(scope: object) -> None:
    """Raise InvalidDocument for what is no scope."""
    if not is_scope(scope):
        raise InvalidDocument(
            f"scope {scope!r:.60}: give names with a slash between them, such as user/ann"
        )
