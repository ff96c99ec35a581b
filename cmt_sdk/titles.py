"""What a document is called: the title that each of its passages carries. Pure: knows no store and no model."""

from __future__ import annotations

from cmt_sdk.types import Document


def title_of(document: Document) -> str:
    """The name under which people know the document; empty where nothing says it."""
    title = document.metadata.get("title")
    return title.strip() if isinstance(title, str) else ""
