"""Convert the messages of clients into a question and its history.

Clients send the complete conversation and cannot remove a picture from it. So a part of an earlier
message that cannot be read becomes a mark such as [picture], and never fails the request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cmt_sdk
from cmt_adapters.validation_messages import FieldError
from cmt_sdk.errors import InvalidInput

# Limits of a prompt without its passages: a CPU reads some 200 tokens per second, and the context
# of a small model is short.
MAX_SYSTEM_CHARS = 6_000
MAX_HISTORY_CHARS = 12_000
MAX_TOOL_CHARS = 4_000
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
PART_TYPES = {
    "picture": ("image", "image_url", "input_image"),
    "sound": ("audio", "input_audio", "audio_url"),
    "video": ("video", "video_url", "input_video"),
    "file": ("file", "input_file", "document"),
}
PART_NAMES = {name: kind for kind, names in PART_TYPES.items() for name in names}
# parts that are not shown to users
UNSPOKEN_PARTS = (
    "thinking",
    "redacted_thinking",
    "reasoning",
    "tool_use",
    "tool_call",
    "function_call",
)


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
        role: "system", "user", "assistant" or "tool"; "" is ignored.
        text: The text.
        marked: The text with a mark for each part that cannot be read.
    """

    role: str
    text: str
    marked: str


def parse_message(role: str, content: Any) -> Message:
    """Convert a message of any client.

    Raises:
        FieldError: The content is neither a text nor a list of parts.
    """
    parts = [content] if isinstance(content, str | dict) else [] if content is None else content
    if not isinstance(parts, list):
        raise FieldError("content", "give a text, or a list of parts")
    read = [_read(part) for part in parts]
    texts = [text for text, _ in read if text is not None]
    marked = [mark if text is None else text for text, mark in read]
    return Message(ROLES.get(role.lower(), ""), "\n".join(texts), "\n".join(m for m in marked if m))


def _read(part: Any) -> tuple[str | None, str]:
    """Return the text of a part, or None with the mark that replaces it."""
    if isinstance(part, str):
        return part, ""
    if not isinstance(part, dict):
        return None, "[unknown]"
    for key in ("text", "refusal"):
        value = part.get(key)
        value = value.get("value") if isinstance(value, dict) else value
        if isinstance(value, str):
            return value, ""
    kind = part.get("type")
    if not isinstance(kind, str):
        return None, "[unknown]"
    if kind in UNSPOKEN_PARTS or "text" in kind:
        return None, ""
    file = part.get("file")
    name = (file if isinstance(file, dict) else part).get("filename")
    shown_name = f" {name:.80}" if isinstance(name, str) else ""
    mark = PART_NAMES.get(kind) or re.sub(r"[^a-z_]", "", kind.lower())[:40] or "unknown"
    return None, f"[{mark}{shown_name}]"


def split_question(
    messages: Sequence[Message], field: str = "messages"
) -> tuple[str, list[cmt_sdk.Turn]]:
    """Split a conversation into the user's last message and the history before it.

    Tool results after the last message count as history.

    Args:
        messages: The conversation.
        field: The name of the field that holds it, for error messages.

    Returns:
        Question and history as `MemoryModel.ask` takes them.

    Raises:
        InvalidInput: The conversation does not end with a question in words.
    """
    present = [m for m in messages if m.role and m.marked.strip()]
    spoken = [n for n, m in enumerate(present) if m.role != "system"]
    last = max((n for n in spoken if present[n].role == "user"), default=None)
    if last is None or present[spoken[-1]].role == "assistant":
        raise InvalidInput(f"{field}: the last one is not the user's: end with a question")
    question = present[last].text
    if not question.strip():
        number = next(n for n, m in enumerate(messages) if m is present[last])
        unread = f"{present[last].marked:.80} cannot be read, and there is no text"
        raise InvalidInput(f"{field}[{number}].content: {unread}: ask in words")
    rules = [m.marked for m in present if m.role == "system"]
    before = [m for m in present[:last] if m.role in ("user", "assistant")][-cmt_sdk.TURNS_KEPT :]
    results = [m.marked for m in present[last:] if m.role == "tool"]
    turns = [cmt_sdk.Turn("system", text) for text in _within(rules, MAX_SYSTEM_CHARS)]
    kept = _within([m.marked for m in before], MAX_HISTORY_CHARS)
    turns += [
        cmt_sdk.Turn(m.role, text)
        for m, text in zip(before[-len(kept) :] if kept else [], kept, strict=True)
    ]
    turns += [
        cmt_sdk.Turn("system", f"A tool has told: {text}")  # retired-word: a prompt
        for text in _within(results, MAX_TOOL_CHARS)
    ]
    return question, turns


def system_turn(text: str) -> cmt_sdk.Turn:
    """Return instructions that are not part of the messages as the first turn."""
    return cmt_sdk.Turn("system", cmt_sdk.clean_text(text[:MAX_SYSTEM_CHARS]))


def _within(texts: Sequence[str], most: int) -> list[str]:
    """Return the last texts that have at most `most` characters in total.

    A longer text keeps its beginning and its end.
    """
    kept = list[str]()
    left = most
    for text in reversed(texts):
        longest = min(left, max(most // 2, most // max(1, len(texts))))
        if longest < 100 and len(text) > longest:
            break
        kept.append(
            cmt_sdk.clean_text(
                text
                if len(text) <= longest
                else f"{text[: longest // 2]} … {text[-(longest // 2) :]}"
            )
        )
        left -= len(kept[-1])
    return kept[::-1]
