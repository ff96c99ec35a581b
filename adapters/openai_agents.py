"""OpenAI Agents SDK: a conversation kept in a memory (Session), and recallable from it. Knows no
agent and no model.

    session = CMTSession("7", cmt_sdk.open("notes"), scope="user/ann/session/7")
    result = await Runner.run(agent, "I moved to Lisbon.", session=session)
    await session.get_items(limit=10)
    session.memory.search("Where does Ann live?", scope="user/ann")
    session.memory.model.ask("Where does Ann live?", scope="user/ann").text
    await session.clear_session()

An item is a document. Its text is what the user or the assistant said; the item itself stands
beside it, as JSON (see payload). Calls of tools, their results and reasoning are kept to be given
back, not to be found: their text is their type.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import cmt_sdk
from cmt_adapters.payload import packed, unpacked
from cmt_sdk.errors import DocumentNotFound, InvalidDocument
from cmt_sdk.extras import unusable

try:
    from agents import Session, SessionSettings, TResponseInputItem
except ImportError as error:
    raise unusable("the OpenAI Agents session", "openai-agents", error) from error

ITEM, SESSION, ROLE = "openai_agents", "session", "role"  # metadata
SPEAKERS = ("user", "assistant")
LOCKS: dict[Path, threading.Lock] = {}  # one a memory: two sessions must not pop the same item
T = TypeVar("T")

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LOCKS.clear)  # a thread of the parent may hold one


class CMTSession(Session):
    """The items of one conversation, in the order in which they were added; the memory stays the
    caller's to close.

    `scope` is where they are kept, `session/<session_id>` where it is not given. With `wait=False`
    what was said is compressed in the background: it is found by its words at once, and by meaning
    a little later.
    """

    def __init__(
        self,
        session_id: str,
        memory: cmt_sdk.Memory,
        *,
        scope: str = "",
        session_settings: SessionSettings | None = None,
        wait: bool = False,
    ) -> None:
        self.session_id = session_id
        self.memory = memory
        self.scope = scope or f"session/{quote(session_id, safe='', errors='surrogatepass')}"
        self.session_settings = session_settings or SessionSettings()
        self._mark = {SESSION: json.dumps([self.scope, session_id])}
        self._chosen: dict[str, Any] = {
            "scope": self.scope,
            "where": {**self._mark, ITEM: {"exists": True}},
        }
        self._wait = wait

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first; of `limit`, or the settings' limit, the latest. Below 0 it means
        all.
        """
        limit = self.session_settings.limit if limit is None and self.session_settings else limit
        items = await self._in_thread(
            lambda: [_item(d) for d in self.memory.documents(**self._chosen)]
        )
        return items if limit is None or limit < 0 else items[len(items) - min(limit, len(items)) :]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items, all of them or, where one cannot be added, none. Raises InvalidDocument."""
        documents = [self._document(item) for item in items]
        if documents:
            await self._in_thread(lambda: self.memory.add_together(documents, wait=self._wait))

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the latest item out; None when there is none."""
        return await self._in_thread(self._pop)

    async def clear_session(self) -> None:
        """Take out the items of this session; other documents of its scope stay.

        Words of them may stay in the files until something is forgotten:
        `memory.forget(scope=session.scope)` erases.
        """
        await self._in_thread(self._clear)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """One change at a time; it is carried to its end also where the caller stops waiting."""

        def locked() -> T:
            with LOCKS.setdefault(self.memory.path.resolve(), threading.Lock()):
                return work()

        return await asyncio.to_thread(locked)

    def _document(self, item: TResponseInputItem) -> cmt_sdk.Document:
        try:
            kept = json.dumps(item)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidDocument(
                f"item {item!r:.60} is no JSON ({error}): give text, numbers, lists, dicts"
            ) from error
        said = _said(item)
        text = said or f"({item.get('type') or item.get('role') or 'item'})"
        text, metadata = packed(cmt_sdk.clean_text(text), kept, ITEM)
        metadata |= self._mark | ({ROLE: str(item.get("role"))} if said else {})
        return cmt_sdk.Document(
            text, f"item-{uuid.uuid4().hex}", scope=self.scope, metadata=metadata
        )

    def _pop(self) -> TResponseInputItem | None:
        while True:
            last = None
            for last in self.memory.documents(**self._chosen):  # noqa: B007 - the last of them is wanted
                pass
            if last is None:
                return None
            try:
                return _item(self.memory.delete(last.id))
            except DocumentNotFound:  # another process has popped it in this moment
                continue

    def _clear(self) -> None:
        for document in list(self.memory.documents(**self._chosen)):
            self.memory.delete(document.id)


def _item(document: cmt_sdk.Document) -> TResponseInputItem:
    item: TResponseInputItem = json.loads(unpacked(document, ITEM))
    return item


def _said(item: Mapping[str, Any]) -> str:
    """What a user or an assistant says in an item; empty for every other item."""
    if item.get("role") not in SPEAKERS or item.get("type", "message") != "message":
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, list) else []
    return "\n".join(
        p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str)
    ).strip()
