"""Items of frameworks as documents: where the JSON of an item is stored. Used by all adapters.

    text, metadata = attach_json("I moved to Lisbon.", dump_json(item, "item"), "openai_agents")
    json.loads(attached_json(document, "openai_agents"))

The JSON is stored in one metadata field, next to the words that are searched. If it is too large
for metadata, such as a picture or the long result of a tool, it is appended to the text as a data:
URL. No passage contains the URL, so it is neither compressed, nor found, nor read; but it is
forgotten, exported and encrypted with its document.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cmt_sdk
from cmt_sdk.errors import InvalidDocument

MAX_METADATA_CHARS = 200_000  # within the limit of metadata even if every character is escaped
DATA_PREFIX = "data:application/json;base64,"
_LOCKS: dict[str, threading.RLock] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LOCKS.clear)  # a thread of the parent may hold one


def memory_lock(memory: cmt_sdk.Memory) -> threading.RLock:
    """Return the lock of a memory in this process, for changes that read before they write."""
    name = memory.location if memory.path is None else str(memory.path.resolve())
    return _LOCKS.setdefault(name, threading.RLock())


@contextmanager
def json_errors(name: str) -> Iterator[None]:
    """Raise InvalidDocument if the block fails to write JSON; `name` is the value's name."""
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDocument(
            f"{name} is not JSON ({error}): give text, numbers, lists, dicts"
        ) from error


def dump_json(value: Any, name: str) -> str:
    """Return a value as ASCII JSON.

    Args:
        value: The value.
        name: The name of the value, for the message.

    Raises:
        InvalidDocument: The value cannot be written as JSON.
    """
    with json_errors(name):
        return json.dumps(value)


def attach_json(words: str, content: str, field: str) -> tuple[str, dict[str, Any]]:
    """Return text and metadata of a document with the text `words` that stores `content`.

    Args:
        words: The text to search and read.
        content: ASCII JSON.
        field: The metadata field for the JSON.
    """
    if len(content) <= MAX_METADATA_CHARS:
        return words, {field: content}
    return f"{words}\n\n{DATA_PREFIX}{base64.b64encode(content.encode()).decode()}", {field: ""}


def attached_json(document: cmt_sdk.Document, field: str) -> str:
    """Return the JSON that `attach_json` stored."""
    content = str(document.metadata[field])
    return content or base64.b64decode(document.text.rpartition(DATA_PREFIX)[2]).decode()
