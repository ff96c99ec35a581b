"""LlamaIndex: a memory as memory block of a chat, and as retriever of a query engine.

    notes = cmt_sdk.open("notes")
    block = CMTMemoryBlock(memory=notes, scope="user/ann", k=5)
    chat_memory = Memory.from_defaults(session_id="7", memory_blocks=[block])
    await agent.run("Where did I move?", memory=chat_memory)
    retriever = CMTRetriever(notes, k=5, scope="user/ann", where={"year": {">=": 2020}})
    RetrieverQueryEngine.from_args(retriever, llm=llm).query("Where does Ann live?")

Facts from messages that no longer fit into the chat's own history are added to the memory. Passages
that match the last questions are returned, from all sessions of the scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import cmt_sdk
from cmt_adapters.matches import passage_key
from cmt_adapters.texts import NOTES, notes_from
from cmt_sdk.system.extras import unusable

try:
    from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.memory import BaseMemoryBlock
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import (
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
except ImportError as error:
    raise unusable("the LlamaIndex memory block and retriever", "llama-index", error) from error

SPEAKERS = (MessageRole.USER, MessageRole.ASSISTANT)


class CMTMemoryBlock(BaseMemoryBlock[list[ChatMessage]]):
    """Stores facts that users and assistants state, and returns passages for the last questions.

    Each session has its own scope below `scope`. The passages are returned as a message of the
    user's role, never of the system's, since anyone may have written them.
    """

    name: str = Field(default="Notes", description="The name of the memory block.")
    memory: Any = Field(
        exclude=True, description="The memory of cmt_sdk.open; it stays the caller's to close."
    )
    scope: str = Field(default="", description="Scope to store in and to search; '': all scopes.")
    k: int = Field(default=5, ge=1, description="Passages to return.")
    questions: int = Field(
        default=12,
        ge=1,
        description="How many of the user's last messages count: the question and its context.",
    )
    this_session: bool = Field(
        default=False, description="Whether to search only the chat's own session."
    )
    wait: bool = Field(
        default=True,
        description="Whether to compress before `aput` returns, not in the background.",
    )

    async def _aget(
        self,
        messages: list[ChatMessage] | None = None,
        session_id: str | None = None,
        **block_kwargs: Any,  # noqa: ARG002 - arguments for other kinds of blocks
    ) -> list[ChatMessage]:
        """Return one message with the matching passages, or no message if there are none."""
        messages = list(messages or ())
        questions = [n for n, m in enumerate(messages) if m.role == MessageRole.USER]
        query = cmt_sdk.clean_text(_text(messages[questions[-1]])).strip() if questions else ""
        if not query:
            return []
        context = messages[questions[-self.questions :][0] : questions[-1]]
        history = [cmt_sdk.Turn(m.role.value, _text(m)) for m in context]
        scope = self._scope(session_id) if self.this_session else self.scope
        matches = await asyncio.to_thread(
            self.memory.search, query, self.k, history=history, scope=scope or None
        )
        notes = notes_from(matches)
        return [ChatMessage(role=MessageRole.USER, content=notes)] if notes else []

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Store the facts of messages of users and assistants; other messages are ignored."""
        documents = []
        for message in messages:
            text = cmt_sdk.clean_text(_text(message)).strip()
            if text and message.role in SPEAKERS:
                facts = (await asyncio.to_thread(self.memory.understand, text)).statement
                scope = self._scope(message.additional_kwargs.get("session_id"))
                role = {"role": message.role.value}
                if facts:
                    documents.append(cmt_sdk.Document(facts, scope=scope, metadata=role))
        await asyncio.to_thread(self.memory.add_many, documents, wait=self.wait)

    async def atruncate(
        self, content: list[ChatMessage], tokens_to_truncate: int
    ) -> list[ChatMessage] | None:
        """Remove the worst matches to save tokens; a token is estimated as four characters."""
        lines = [line for message in content for line in str(message.content).split("\n")[1:]]
        while lines and tokens_to_truncate > 0:
            tokens_to_truncate -= 1 + len(lines.pop()) // 4
        return (
            [ChatMessage(role=MessageRole.USER, content="\n".join([NOTES, *lines]))]
            if lines
            else None
        )

    def _scope(self, session_id: str | None) -> str:
        session = (
            []
            if session_id is None
            else ["session", quote(session_id, safe=" ", errors="surrogatepass")]
        )
        return "/".join(filter(None, [self.scope, *session]))


class CMTRetriever(BaseRetriever):
    """Retrieves the k passages of a memory that match a query; filters as in `Memory.search`."""

    def __init__(
        self,
        memory: cmt_sdk.Memory,
        *,
        k: int = 5,
        scope: str | None = None,
        source: str | None = None,
        where: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._memory = memory
        self._k = k
        self._scope = scope
        self._source = source
        self._where = where

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        matches = self._memory.search(
            query_bundle.query_str,
            self._k,
            scope=self._scope,
            source=self._source,
            where=self._where,
        )
        return [_node(match) for match in matches]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _text(message: ChatMessage) -> str:
    return "\n".join(block.text for block in message.blocks if isinstance(block, TextBlock))


def _node(match: cmt_sdk.Match) -> NodeWithScore:
    """Return a passage as a node with its position; models read only the document's metadata."""
    passage = match.passage
    document = match.document
    details = {"source": document.source, "scope": document.scope, "why": match.why}
    hidden: Sequence[str] = [name for name in details if name not in document.metadata]
    node = TextNode(
        id_=passage_key(match),
        text=passage.content,
        metadata={**details, **document.metadata},
        excluded_llm_metadata_keys=list(hidden),
        excluded_embed_metadata_keys=list(hidden),
        start_char_idx=passage.start,
        end_char_idx=passage.end,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document.id)},
    )
    return NodeWithScore(node=node, score=match.score)
