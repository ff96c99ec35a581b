"""Frameworks' items as documents: where an item's JSON is kept. Knows no framework.

    text, metadata = packed("I moved to Lisbon.", json.dumps(item), "openai_agents")
    json.loads(unpacked(document, "openai_agents"))

The JSON stands in one metadata field beside the words that are searched. What is too large for
metadata, such as a picture or a tool's long result, stands behind the words as a data: address,
which is cut into no passage: it is neither compressed, nor found, nor read, and it is forgotten,
exported and encrypted with its document.
"""

from __future__ import annotations

import base64
from typing import Any

import cmt_sdk

MAX_METADATA_CHARS = (
    200_000  # characters; with all of them escaped it is within the limit of metadata
)
DATA_PREFIX = "data:application/json;base64,"


def attach_json(words: str, content: str, field: str) -> tuple[str, dict[str, Any]]:
    """The text and the metadata of a document that says `words` and keeps `content`, ASCII JSON."""
    if len(content) <= MAX_METADATA_CHARS:
        return words, {field: content}
    return f"{words}\n\n{DATA_PREFIX}{base64.b64encode(content.encode()).decode()}", {field: ""}


def attached_json(document: cmt_sdk.Document, field: str) -> str:
    """The JSON that `packed` took."""
    content = str(document.metadata[field])
    return content or base64.b64decode(document.text.rpartition(DATA_PREFIX)[2]).decode()
