"""The tools of the MCP server. Their docstrings are the descriptions that models read.

Recalled text is returned as JSON, with a note that it is data. Tools block; the server calls them
in threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import cmt_sdk
from cmt_adapters.mcp_schemas import (
    EXCERPT_CHARS,
    URI,
    AnswerSpan,
    AskResult,
    Cursor,
    DocumentEntry,
    DocumentInfo,
    DocumentPage,
    Expiry,
    ForgetResult,
    Id,
    InScope,
    Limit,
    MaybeId,
    Metadata,
    NewMetadata,
    NewText,
    OfSource,
    Passages,
    Reader,
    ReadSource,
    Scope,
    SearchHit,
    SearchResult,
    Sources,
    StoredDocument,
    Text,
    UndoResult,
    Where,
)
from cmt_sdk.errors import InvalidFilter, InvalidInput
from cmt_sdk.system.extras import unusable

try:
    from anyio import from_thread
    from mcp.server.mcpserver import Context
except ImportError as error:
    raise unusable("the MCP server", "mcp", error) from error


class Tools:
    """The tools over one memory; models choose a tool by its docstring."""

    def __init__(self, memory: cmt_sdk.Memory) -> None:
        self._memory = memory

    def search(
        self,
        query: str,
        k: Passages = 5,
        scope: Scope = "",
        source: Sources = "",
        where: Where = None,
    ) -> SearchResult:
        """Find passages in the user's long-term memory, word for word.

        Use it whenever something the user wrote or kept earlier could matter: people, dates,
        decisions, preferences, notes, documents. The query may be a question or a few keywords.
        Prefer it to `ask` where you need exact words, several facts, or something to reason
        about. It always returns passages, the best first: judge whether they fit.
        """
        return SearchResult(
            passages=[
                _search_hit(m)
                for m in self._memory.search(query, k, **_filter(scope, source, where))
            ]
        )

    def ask(
        self,
        question: str,
        k: Passages = 5,
        reader: Reader = "memory",
        scope: Scope = "",
        source: Sources = "",
        where: Where = None,
    ) -> AskResult:
        """Get a short answer to one factual question from the user's long-term memory, with its
        sources.

        A small model on the user's machine reads compressed passages: it costs you few tokens,
        however long the documents are. It copies facts and does not reason. Use `search` for
        anything else, and to check an answer with low confidence, with `known`: false, or whose
        first source does not have rank 1 or does not hold the answer.
        """
        answer = self._memory.model.ask(
            question, k=k, reader=reader, **_filter(scope, source, where)
        )
        return AskResult(
            answer=answer.text,
            known=not answer.abstained,
            confidence=round(answer.confidence, 3),
            sources=[_read_source(s) for s in answer.sources],
            spans=[_answer_span(s) for s in answer.spans],
        )

    def list_documents(
        self,
        scope: Scope = "",
        source: Sources = "",
        where: Where = None,
        limit: Limit = 20,
        cursor: Cursor = "",
    ) -> DocumentPage:
        """List the documents in the user's long-term memory, oldest first, with ids and excerpts.

        Use it to see which documents exist, or to find the id of a document to change or erase. To
        find out about a topic, use `search`.
        """
        filters = _filter(scope, source, where)
        page = self._memory.list(**filters, limit=limit, cursor=cursor or None)
        entries = [DocumentEntry(**document_info(d), excerpt=excerpt(d)) for d in page.documents]
        return DocumentPage(
            documents=entries, total=self._memory.count(**filters), next_cursor=page.next_cursor
        )

    def remember(
        self,
        text: Text,
        ctx: Context[Any],
        source: OfSource = "",
        scope: InScope = "",
        metadata: Metadata = None,
        expires_at: Expiry = None,
    ) -> StoredDocument:
        """Keep a text in the user's long-term memory, for later conversations.

        Use it when the user asks you to remember something, or mentions what will matter again: a
        preference, a decision, a fact about a person or a project. Do not use it for what matters
        only now, and never for passwords. You can pass a complete document; a long one takes a
        while, but is safe at once. The same text twice is one document.
        """
        document = cmt_sdk.Document(
            text, source=source or None, scope=scope, metadata=metadata or {}, expires_at=expires_at
        )
        done = self._memory.add_many(
            [document], on_progress=lambda progress: _report_progress(ctx, progress)
        )
        # adds nothing: for a known text, `add` returns its document
        stored = self._memory.add(document)
        _notify_changed(ctx, [stored.id])
        return StoredDocument(**document_info(stored), already_known=done.added == 0)

    def update(
        self,
        document_id: Id,
        ctx: Context[Any],
        text: NewText = "",
        source: OfSource = "",
        scope: InScope = "",
        metadata: NewMetadata = None,
        expires_at: Expiry = None,
    ) -> DocumentInfo:
        """Replace the text or the fields of a remembered document that is no longer true.

        Searches no longer find the previous version; it stays in the document's history until it is
        forgotten. Fields that you leave out stay as they are.
        """
        given = {"text": text, "source": source, "scope": scope, "expires_at": expires_at}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value}
        if metadata is not None:
            changes["metadata"] = metadata
        if not changes:
            raise InvalidInput(
                "nothing to change: give a text, source, scope, metadata or expires_at"
            )
        stored = self._memory.update(document_id, **changes)
        _notify_changed(ctx, [stored.id])
        return DocumentInfo(**document_info(stored))

    def undo(self, document_id: Id, ctx: Context[Any]) -> UndoResult:
        """Take back the last `remember` or `update` of a document.

        A document that was updated gets its previous text and fields again; one that was new is
        erased for good. Use it when the user says that something was kept or changed by mistake.
        """
        versions = self._memory.history(document_id)
        if len(versions) == 1:
            self._memory.forget(document_id)
            _notify_changed(ctx, [document_id])
            return UndoResult(document_id=document_id, version=None)
        before = versions[-2]
        stored = self._memory.update(
            document_id,
            before.text,
            source=before.source,
            scope=before.scope,
            metadata=before.metadata,
        )
        _notify_changed(ctx, [document_id])
        return UndoResult(document_id=document_id, version=stored.version)

    def forget(
        self,
        ctx: Context[Any],
        document_id: MaybeId = "",
        scope: Scope = "",
        source: Sources = "",
        where: Where = None,
    ) -> ForgetResult:
        """Erase documents from the user's long-term memory for good, with all their versions.

        They cannot be recovered. Use it only when the user asks for it, and prefer `document_id`.
        If you give several conditions, all must hold: check first with `list` which documents
        match. The result reports whether any trace is left on the disk.
        """
        filters = _filter(scope, source, where)
        # arguments that a model leaves empty must not mean everything
        if not document_id and not any(filters.values()):
            raise InvalidFilter(
                "give a document_id, scope, source or where; all there is, only `cmt forget --scope"
                " ''` erases"
            )
        receipt = self._memory.forget(document_id or None, **filters)
        _notify_changed(ctx, receipt.documents)
        return ForgetResult(
            documents=list(receipt.documents),
            versions=receipt.versions,
            passages=receipt.passages,
            files_scanned=len(receipt.files_scanned),
            traces_found=receipt.traces_found,
            complete=receipt.complete,
        )


def uri_of(document_id: str) -> str:
    """Return the URI of a document as a resource."""
    return URI + quote(document_id, safe="")


def excerpt(document: cmt_sdk.Document) -> str:
    """Return the beginning of a document."""
    return (
        document.text
        if len(document.text) <= EXCERPT_CHARS
        else document.text[: EXCERPT_CHARS - 1] + "…"
    )


def document_info(document: cmt_sdk.Document) -> dict[str, Any]:
    """Return the fields of DocumentInfo."""
    same = ("source", "scope", "metadata", "version", "created_at", "expires_at")
    own = {"document_id": document.id, "uri": uri_of(document.id), "characters": len(document.text)}
    return own | {name: getattr(document, name) for name in same}


def _filter(scope: str, source: str, where: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"scope": scope or None, "source": source or None, "where": where or None}


def _location(
    document_id: str, source: str | None, start: int, end: int, score: float
) -> dict[str, Any]:
    return {
        "document_id": document_id,
        "uri": uri_of(document_id),
        "source": source,
        "start": start,
        "end": end,
        "score": score,
    }


def _read_source(source: cmt_sdk.Source) -> ReadSource:
    location = _location(source.document_id, source.source, source.start, source.end, source.score)
    same = {
        name: getattr(source, name)
        for name in ("rank", "holds_answer", "quote", "date", "superseded_by")
    }
    return ReadSource(**location, **same)


def _answer_span(span: cmt_sdk.Citation) -> AnswerSpan:
    return AnswerSpan(
        document_id=span.document_id,
        uri=uri_of(span.document_id),
        start=span.start,
        end=span.end,
        text=span.text,
    )


def _search_hit(match: cmt_sdk.Match) -> SearchHit:
    passage = match.passage
    document = match.document
    location = _location(document.id, document.source, passage.start, passage.end, match.score)
    return SearchHit(
        **location,
        text=passage.content,
        why=match.why,
        scope=document.scope,
        metadata=dict(document.metadata),
        created_at=document.created_at,
        superseded_by=match.superseded_by,
    )


def _report_progress(ctx: Context[Any], done: cmt_sdk.Progress) -> None:
    """Report the progress of compression, and stop if the client has cancelled the call.

    The text is safe; pending passages are compressed when they are needed.
    """
    from_thread.check_cancelled()
    total = done.passages or None  # no passage is new if an earlier call was interrupted
    from_thread.run(
        ctx.report_progress, done.compressed, total, f"{done.compressed} passages compressed"
    )


def _notify_changed(ctx: Context[Any], document_ids: Sequence[str]) -> None:
    """Notify the clients that subscribed."""
    for document_id in document_ids:
        from_thread.run(ctx.notify_resource_updated, uri_of(document_id))
    from_thread.run(ctx.notify_resources_changed)
