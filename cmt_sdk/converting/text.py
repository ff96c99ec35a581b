"""Bytes of text files to text, and the check that every text passes. Knows no other format."""

from __future__ import annotations

from pathlib import Path

from cmt_sdk.errors import EmptyDocument, InvalidDocument


def check_text(text: str, limit: float, what: str) -> str:
    """The gate for every text that is to be remembered; returns it unchanged. Raises InvalidDocument, EmptyDocument."""
    if not text.strip():
        raise EmptyDocument(f"{what} is empty or only white space: there is nothing to remember")
    if "\0" in text:
        raise InvalidDocument(f"{what} holds NUL characters: that is binary data, not text")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidDocument(
            f"{what} holds a lone surrogate (U+{ord(text[error.start]):04X} at {error.start}): decode it again, "
            "for example with errors='replace'"
        ) from error
    if size > limit:
        raise InvalidDocument(
            f"{what} has {size:,} bytes, the limit is {limit:,}: cut it, or open the memory with max_document_bytes={size} "
            f"(`cmt config set max_document_bytes {size}`)"
        )
    return text


def decode(data: bytes, path: Path) -> str:
    """Text in UTF-8, or in what its byte-order mark says; lines end as in Python."""
    encoding = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "UTF-8"
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidDocument(
            f"{path} is no {encoding} text ({error.reason} at byte {error.start}): if it is text in another encoding, "
            "save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
