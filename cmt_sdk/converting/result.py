"""A converter's result, and the error for a file that it cannot read. Knows no format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmt_sdk.errors import InvalidDocument
from cmt_sdk.types import Metadata


@dataclass(frozen=True, slots=True)
class Converted:
    """The contents of one file.

    `text` is plain text or Markdown. `metadata` holds facts of the file about itself, such as
    "title". `left_out` names the parts that the converter left out, one phrase each ("pages 2 and 3
    hold no text"); the caller reports them as a warning.
    """

    text: str
    metadata: Metadata = field(default_factory=dict)
    left_out: Sequence[str] = ()


def damaged(path: Path, error: Exception) -> InvalidDocument:
    """The error for a file that its parser rejects."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InvalidDocument(
        f"{path} cannot be read ({reason}): open it and save it again, or add its text"
    )
