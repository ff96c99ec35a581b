"""OpenAI Agents SDK: a Session that stores its conversation in a memory.

    session = CMTSession("7", cmt_sdk.open("notes"), scope="user/ann/session/7")
    result = await Runner.run(agent, "I moved to Lisbon.", session=session)
    await session.get_items(limit=10)
    session.memory.search("Where does Ann live?", scope="user/ann")
    session.memory.model.ask("Where does Ann live?", scope="user/ann").text
    await session.clear_session()

An item is a document. The text of the document is the message of the user or the assistant; the
item itself is stored next to it as JSON (see payload). Tool calls, their results and reasoning are
stored to be returned, not to be found: the text of their document is only their type.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import cmt_sdk
from cmt_adapters.payload import attach_json, attached_json, dump_json, memory_lock
from cmt_adapters.texts import session_scope
from cmt_sdk.errors import DocumentNotFound
from cmt_sdk.system.extras import unusable

try:
    from agents import Session, SessionSettings, TResponseInputItem
except ImportError as error:
    raise unusable("the OpenAI Agents session", "openai-agents", error) from error

# metadata fields
ITEM = "openai_agents"
SESSION = "session"
ROLE = "role"
SPEAKERS = ("user", "assistant")
T = TypeVar("T")


class CMTSession(Session):
    """The items of one conversation, in order. The caller closes the memory.

    Args:
        session_id: Identifies the conversation.
        memory: An open memory.
        scope: The scope to store in; the default is `session/<session_id>`.
        session_settings: Settings of the SDK, such as the limit of items.
        wait: False compresses in the background: messages are found by their words at once, and by
            meaning a little later.
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
        self.scope = scope or session_scope(session_id)
        self.session_settings = session_settings or SessionSettings()
        self._mark = {SESSION: json.dumps([self.scope, session_id])}
        self._filter: dict[str, Any] = {
            "scope": self.scope,
            "where": {**self._mark, ITEM: {"exists": True}},
        }
        self._wait = wait

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items, oldest first.

        Args:
            limit: Return only the latest items; the default is that of the settings; a negative
                number means all.
        """
        limit = self.session_settings.limit if limit is None and self.session_settings else limit
        items = await self._in_thread(
            lambda: [_item(d) for d in self.memory.documents(**self._filter)]
        )
        return items if limit is None or limit < 0 else items[len(items) - min(limit, len(items)) :]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add all items, or none if one is refused. Raises InvalidDocument."""
        documents = [self._document(item) for item in items]
        if documents:
            await self._in_thread(lambda: self.memory.add_together(documents, wait=self._wait))

    async def pop_item(self) -> TResponseInputItem | None:
        """Delete and return the latest item; None if there is none."""
        return await self._in_thread(self._pop)

    async def clear_session(self) -> None:
        """Delete the items of this session; other documents of its scope stay.

        Traces may remain in the files; `memory.forget(scope=session.scope)` erases them.
        """
        await self._in_thread(self._clear)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run work in a thread, under the memory's lock.

        The work runs to its end even if the caller is cancelled. The lock keeps two sessions from
        popping the same item.
        """

        def locked() -> T:
            with memory_lock(self.memory):
                return work()

        return await asyncio.to_thread(locked)

    def _document(self, item: TResponseInputItem) -> cmt_sdk.Document:
        content = dump_json(item, f"item {item!r:.60}")
        message = _message_text(item)
        words = message or f"({item.get('type') or item.get('role') or 'item'})"
        text, metadata = attach_json(cmt_sdk.clean_text(words), content, ITEM)
        metadata |= self._mark | ({ROLE: str(item.get("role"))} if message else {})
        return cmt_sdk.Document(
            text, f"item-{uuid.uuid4().hex}", scope=self.scope, metadata=metadata
        )

    def _pop(self) -> TResponseInputItem | None:
        while True:
            last = None
            for last in self.memory.documents(**self._filter):  # noqa: B007 - the loop finds the last document
                pass
            if last is None:
                return None
            try:
                return _item(self.memory.delete(last.id))
            except DocumentNotFound:  # another process has just popped it
                continue

    def _clear(self) -> None:
        for document in list(self.memory.documents(**self._filter)):
            self.memory.delete(document.id)


def _item(document: cmt_sdk.Document) -> TResponseInputItem:
    item: TResponseInputItem = json.loads(attached_json(document, ITEM))
    return item


def _message_text(item: Mapping[str, Any]) -> str:
    """Return the text of a user's or an assistant's message; "" for every other item."""
    if item.get("role") not in SPEAKERS or item.get("type", "message") != "message":
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, list) else []
    return "\n".join(
        p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str)
    ).strip()
