"""Exports of ChatGPT, Claude and mem0 as documents: one per conversation, memory or project file.

Knows no store. ChatGPT writes conversations.json, since 2025 conversations-000.json and following;
a conversation is a tree of messages, and the screen shows the branch that ends at `current_node`.
Claude: conversations.json with `chat_messages` that name their parents, and memories and
projects next to it. mem0: the result of `get_all`. Output of tools, thoughts, pictures and
abandoned branches are left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any

from cmt_sdk.converting.exports import EXPECTED, Item, read_items
from cmt_sdk.errors import InvalidInput
from cmt_sdk.system.open_files import refuse_open
from cmt_sdk.text.characters import clean_text
from cmt_sdk.types import Document, Scalar, Turn

LONGEST_NAME = 200
WIDEST = 2**63  # whole numbers of metadata stay below
# where ChatGPT points to what its search found
CITATION = re.compile("\ue200[^\ue201]{0,1000}\ue201")
FENCE = re.compile(r" {0,3}(```|~~~)")
HASHES = re.compile(r" {0,3}#{1,6}[ \t]+")
RULE = re.compile(r"[ \t]*(?:-{3,}|={3,}|\*{3,}|_{3,})[ \t]*")
ROLES = {"user": "user", "human": "user", "assistant": "assistant"}


def read_conversations(path: str | os.PathLike[str]) -> Iterator[Document]:
    """The documents of an export: of a JSON file, a zip file, or the folder that was made of one.

    The source is the service with the item's own id, such as "chatgpt:67a1...": with `add_many(...,
    replace=True)` a later export updates what an earlier one brought. Memories of mem0 go to the
    scope of their user, and beneath it of their run. Raises, when it gets there, InvalidInput
    (something else, damaged, too large), NotFound, StorageDenied.
    """
    path = Path(path)
    refuse_open(path)
    for where, item in read_items(path):
        yield from _documents(item, where)


def _documents(item: Item, where: str) -> Iterator[Document]:
    """The documents of one item; a key that only its kind has shows the kind."""
    for key, (kind, read) in KINDS.items():
        if key in item:
            if not isinstance(item[key], kind):
                raise InvalidInput(
                    f"{where}: {key} is {item[key]!r:.60}, expected {kind.__name__}: {EXPECTED}"
                )
            yield from (d for d in read(item) if d.text.strip())
            return
    known = ", ".join(KINDS)
    raise InvalidInput(
        f"{where}: an item with the keys {sorted(item)!r:.100}; known are those with {known}:"
        f" {EXPECTED}"
    )


def _chatgpt(item: Item) -> Iterator[Document]:
    """A conversation of ChatGPT."""
    turns = [
        turn
        for message in _branch(item["mapping"], item.get("current_node"))
        if (turn := _chatgpt_turn(message))
    ]
    name = _line(item.get("conversation_id")) or _line(item.get("id"))
    times = item.get("create_time"), item.get("update_time")
    yield _document(
        "chatgpt", name, _transcript(item.get("title"), turns), title=item.get("title"), times=times
    )


def _branch(mapping: Item, current: object) -> list[Item]:
    """The messages from the root to the current node, or to the newest where none is named."""
    nodes = {name: node for name, node in mapping.items() if isinstance(node, dict)}
    at = (
        current
        if isinstance(current, str) and current in nodes
        else max(nodes, key=lambda n: _sent(nodes[n]), default=None)
    )
    branch: dict[str, Item] = {}
    # a tree that somebody edited may have a cycle
    while isinstance(at, str) and at in nodes and at not in branch:
        branch[at] = nodes[at]
        at = nodes[at].get("parent")
    return [_mapping(node.get("message")) for node in reversed(branch.values())]


def _sent(node: Item) -> float:
    moment = _moment(_mapping(node.get("message")).get("create_time"))
    return moment.timestamp() if moment else -1.0


def _chatgpt_turn(message: Item) -> Turn | None:
    """A message as the screen showed it; None for hidden messages and calls of tools."""
    role = _role(_mapping(message.get("author")).get("role"))
    content = _mapping(message.get("content"))
    hidden = _mapping(message.get("metadata")).get("is_visually_hidden_from_conversation")
    if not role or hidden or message.get("recipient") not in (None, "all"):
        return None
    if content.get("content_type") not in ("text", "multimodal_text"):
        return None
    # spoken ones are objects
    parts = (
        p if isinstance(p, str) else _mapping(p).get("text") for p in _list(content.get("parts"))
    )
    return Turn(role, _joined(parts))


def _claude(item: Item) -> Iterator[Document]:
    """A conversation of Claude."""
    messages = _kept([m for m in item["chat_messages"] if isinstance(m, dict)])
    turns = [Turn(role, _claude_text(m)) for m in messages if (role := _role(m.get("sender")))]
    times = item.get("created_at"), item.get("updated_at")
    text = _transcript(item.get("name"), turns)
    yield _document("claude", _line(item.get("uuid")), text, title=item.get("name"), times=times)


def _claude_text(message: Item) -> str:
    """The blocks of text, or the text of older exports, and what was pasted or attached as text."""
    blocks = [
        b for b in _list(message.get("content")) if isinstance(b, dict) and b.get("type") == "text"
    ]
    shown = _joined(b.get("text") for b in blocks) or _joined([message.get("text")])
    attached = (a for a in _list(message.get("attachments")) if isinstance(a, dict))
    return _joined(
        [
            shown,
            *(_joined([_line(a.get("file_name")), a.get("extracted_content")]) for a in attached),
        ]
    )


def _kept(messages: Sequence[Item]) -> list[Item]:
    """The messages without abandoned branches: of several with one parent, the one that leads to
    the newest stays.

    An export may lack messages in between, so that there are several beginnings; all of these are
    kept.
    """
    by_name = {name: m for m in messages if (name := _line(m.get("uuid")))}
    chosen: dict[str, str] = {}
    for name in sorted(by_name, key=lambda n: _line(by_name[n].get("created_at")), reverse=True):
        at = name
        while (parent := _line(by_name[at].get("parent_message_uuid"))) and parent not in chosen:
            chosen[parent] = at
            if parent not in by_name:
                break
            at = parent
    first = [child for parent, child in chosen.items() if parent not in by_name]
    first += [name for name, m in by_name.items() if not _line(m.get("parent_message_uuid"))]
    kept = {""}  # what has no name has no children either
    for start in first:
        at = start
        while at and at not in kept:
            kept.add(at)
            at = chosen.get(at, "")
    return [m for m in messages if _line(m.get("uuid")) in kept]


def _claude_memory(item: Item) -> Iterator[Document]:
    """The memories that Claude keeps of all conversations and of each project."""
    notes = {
        _line(item.get("account_uuid")) or "all": (
            "What Claude remembers",
            item["conversations_memory"],
        )
    }
    for project, note in _mapping(item.get("project_memories")).items():
        notes[_line(project)] = ("What Claude remembers of a project", note)
    for name, (title, note) in notes.items():
        if _joined([note]):
            yield _document("claude", f"memory/{name}", f"# {title}\n\n{_sound(note)}", title=title)


def _claude_project(item: Item) -> Iterator[Document]:
    """A project of Claude: its description with its instructions, and its files."""
    if item.get("is_starter_project"):  # the same for everybody
        return
    title, name = _line(item.get("name")), f"project/{_line(item.get('uuid'))}"
    times = item.get("created_at"), item.get("updated_at")
    about = _joined([item.get("description"), item.get("prompt_template")])
    if about:
        yield _document("claude", name, f"# {title}\n\n{about}", title=title, times=times)
    for doc in (d for d in item["docs"] if isinstance(d, dict)):
        content, file = _joined([doc.get("content")]), _line(doc.get("filename"))
        if content:
            text = f"# {title}\n## {file}\n\n{content}"
            yield _document(
                "claude",
                f"{name}/{_line(doc.get('uuid')) or file}",
                text,
                title=file,
                times=(doc.get("created_at"),),
            )


def _mem0(item: Item) -> Iterator[Document]:
    """A memory of mem0; its own metadata stay, as far as they are plain values."""
    given = {_line(key): value for key, value in _mapping(item.get("metadata")).items()}
    given |= {name: item.get(name) for name in ("user_id", "agent_id", "app_id", "run_id")}
    given["categories"] = (
        ", ".join(c for c in _list(item.get("categories")) if isinstance(c, str)) or None
    )
    times = item.get("created_at"), item.get("updated_at")
    document = _document(
        "mem0", _line(item.get("id")), _sound(item["memory"]), times=times, more=given
    )
    user, run = _name(item.get("user_id")), _name(item.get("run_id"))
    scope = f"user/{user}/session/{run}" if user and run else f"user/{user}" if user else ""
    yield replace(document, scope=scope)


# The key that only this kind of item has, with the type of its value.
KINDS: Mapping[str, tuple[type, Callable[[Item], Iterator[Document]]]] = {
    "mapping": (dict, _chatgpt),
    "chat_messages": (list, _claude),
    "conversations_memory": (str, _claude_memory),
    "docs": (list, _claude_project),
    "memory": (str, _mem0),
}


def _document(
    app: str,
    name: str,
    text: str,
    *,
    title: object = None,
    times: Sequence[object] = (),
    more: Mapping[str, object] | None = None,
) -> Document:
    """A document with what is known of it: plain values only, times in ISO 8601, UTC."""
    moments = [_moment(t) for t in times]
    known = dict(
        zip(
            ("created", "updated"),
            (m and m.isoformat(timespec="seconds") for m in moments),
            strict=False,
        )
    )
    given = {**(more or {}), "app": app, "title": _line(title), **known}
    metadata = {
        key: plain
        for key, value in given.items()
        if key and (plain := _plain(value)) not in (None, "")
    }
    return Document(
        text,
        source=f"{app}:{name}" if name else None,
        metadata=metadata,
        created_at=moments[0] if moments else None,
    )


def _transcript(title: object, turns: Iterable[Turn]) -> str:
    """A conversation as Markdown, whose only heading is its title: it stands above every passage.
    Empty where no turn has text.
    """
    spoken = [t for t in turns if t.content]
    parts = [f"# {_line(title)}"] if spoken and _line(title) else []
    for role, group in groupby(spoken, key=lambda t: t.role):
        text = "\n\n".join(_without_headings(t.content) for t in group)
        between = "\n" if FENCE.match(text) else " "  # a code block begins a line
        parts.append(f"{role.capitalize()}:{between}{text}")
    return "\n\n".join(parts)


def _without_headings(text: str) -> str:
    """A text with its headings as plain lines, without rules, and with every code block
    closed.
    """
    lines, fence = [], ""
    for line in text.splitlines():
        mark = FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1] == fence else fence
        elif mark:
            fence = mark[1]
        elif RULE.fullmatch(line):
            line = ""  # noqa: PLW2901 - it would make a heading of the line above
        else:
            line = HASHES.sub("", line)  # noqa: PLW2901
        lines.append(line)
    return "\n".join([*lines, fence] if fence else lines).strip()


def _joined(texts: Iterable[object]) -> str:
    """Those that are text and not empty, as paragraphs."""
    return "\n\n".join(sound for text in texts if isinstance(text, str) and (sound := _sound(text)))


def _sound(text: str) -> str:
    """A text without NULs, halves of characters and marks of citations, which no reader saw."""
    return clean_text(CITATION.sub("", text), "").replace("\r\n", "\n").strip()


def _line(value: object) -> str:
    """A name or an id on one line; empty for what is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return " ".join(_sound(value).split())[:LONGEST_NAME] if isinstance(value, str) else ""


def _name(value: object) -> str:
    """An id as one name of a scope; empty where it cannot be one."""
    name = _line(value).replace("/", "_")
    return "" if name in (".", "..") else name


def _plain(value: object) -> Scalar:
    """A value that metadata can hold, or None."""
    if isinstance(value, str):
        return _sound(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    return (
        value
        if isinstance(value, bool) or (isinstance(value, int) and -WIDEST <= value < WIDEST)
        else None
    )


def _moment(value: object) -> datetime | None:
    """A time as seconds since 1970 or as ISO 8601, UTC where it does not say; None for what is
    none.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return moment and (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _role(value: object) -> str:
    return ROLES.get(value, "") if isinstance(value, str) else ""


def _mapping(value: object) -> Item:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
