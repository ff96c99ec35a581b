"""A conversation as clients send it, made ready for the model. Knows no route.

Clients send along all that was said before, and cannot take back a picture: what cannot be read in
an earlier message leaves a mark, and never fails the request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cmt_sdk
from cmt_adapters.wording import Unfit
from cmt_sdk.errors import InvalidInput

# Characters of a prompt beside the notes. A CPU reads some 200 tokens a second, and a small model's
# context is short.
LONGEST_RULES, LONGEST_HISTORY, LONGEST_RESULT = 6_000, 12_000, 4_000
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
KINDS = {
    "picture": ("image", "image_url", "input_image"),
    "sound": ("audio", "input_audio", "audio_url"),
    "video": ("video", "video_url", "input_video"),
    "file": ("file", "input_file", "document"),
}
NAMES = {name: kind for kind, names in KINDS.items() for name in names}
# for the model alone
UNSAID = ("thinking", "redacted_thinking", "reasoning", "tool_use", "tool_call", "function_call")


@dataclass(frozen=True)
class Message:
    """Something said: by whom, its text, and the text with a mark for each part that cannot be
    read.
    """

    role: str
    text: str
    marked: str


def message(role: str, content: Any) -> Message:
    """A message of any client; `role` "" is passed over. Raises Unfit for a content that is neither
    text nor parts.
    """
    parts = [content] if isinstance(content, str | dict) else [] if content is None else content
    if not isinstance(parts, list):
        raise Unfit("content", "give a text, or a list of parts")
    read = [_read(part) for part in parts]
    texts = [text for text, _ in read if text is not None]
    marked = [mark if text is None else text for text, mark in read]
    return Message(ROLES.get(role.lower(), ""), "\n".join(texts), "\n".join(m for m in marked if m))


def _read(part: Any) -> tuple[str | None, str]:
    """The text of a part, or None and the mark that stands for it."""
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
    if kind in UNSAID or "text" in kind:
        return None, ""
    file = part.get("file")
    name = (file if isinstance(file, dict) else part).get("filename")
    called = f" {name:.80}" if isinstance(name, str) else ""
    return (
        None,
        f"[{NAMES.get(kind) or re.sub(r'[^a-z_]', '', kind.lower())[:40] or 'unknown'}{called}]",
    )


def question_of(
    messages: Sequence[Message], field: str = "messages"
) -> tuple[str, list[cmt_sdk.Turn]]:
    """The last thing that the user says, and what came before, as `MemoryModel.ask` takes them.

    What tools gave since then is part of what came before. Raises InvalidInput, which names
    `field`, where nothing is asked.
    """
    said = [m for m in messages if m.role and m.marked.strip()]
    spoken = [n for n, m in enumerate(said) if m.role != "system"]
    asked = max((n for n in spoken if said[n].role == "user"), default=None)
    if asked is None or said[spoken[-1]].role == "assistant":
        raise InvalidInput(f"{field}: the last one is not the user's: end with a question")
    question = said[asked].text
    if not question.strip():
        place = next(n for n, m in enumerate(messages) if m is said[asked])
        unread = f"{said[asked].marked:.80} cannot be read, and there is no text"
        raise InvalidInput(f"{field}[{place}].content: {unread}: ask in words")
    rules = [m.marked for m in said if m.role == "system"]
    before = [m for m in said[:asked] if m.role in ("user", "assistant")][-cmt_sdk.TURNS_KEPT :]
    given = [m.marked for m in said[asked:] if m.role == "tool"]
    turns = [cmt_sdk.Turn("system", text) for text in _within(rules, LONGEST_RULES)]
    kept = _within([m.marked for m in before], LONGEST_HISTORY)
    turns += [
        cmt_sdk.Turn(m.role, text)
        for m, text in zip(before[-len(kept) :] if kept else [], kept, strict=True)
    ]
    turns += [
        cmt_sdk.Turn("system", f"A tool has told: {text}")
        for text in _within(given, LONGEST_RESULT)
    ]
    return question, turns


def rule_of(text: str) -> cmt_sdk.Turn:
    """What a system says beside its messages, as the first turn."""
    return cmt_sdk.Turn("system", cmt_sdk.clean_text(text[:LONGEST_RULES]))


def _within(texts: Sequence[str], most: int) -> list[str]:
    """The last of the texts that have `most` characters together; one that has more by itself keeps
    both its ends.
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
