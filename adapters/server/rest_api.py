"""/api: the memory over HTTP, for the page and for programs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool

import cmt_sdk
from cmt_adapters.server.http_responses import (
    EVENT_STREAM,
    EventStream,
    failure_responses,
    format_event,
)
from cmt_adapters.server.model_queue import MemoryDep, QueueDep, cancel_on_disconnect
from cmt_adapters.server.projection import map_of
from cmt_adapters.server.schemas import (
    AnswerValue,
    AskRequest,
    DocumentChange,
    DocumentValue,
    ForgetRequest,
    FullDocument,
    MapValue,
    Matches,
    MatchValue,
    NamedScope,
    NewDocument,
    PageValue,
    PassageValue,
    PieceValue,
    ReceiptValue,
    RejectedFile,
    Scope,
    SearchMode,
    StatsValue,
    Text,
    UploadResult,
)
from cmt_adapters.server.uploads import read_files
from cmt_sdk.errors import InvalidInput

router = APIRouter(prefix="/api", tags=["memory"])

LISTED_CHARS = 300  # of a document's text in a list
# times in the database may differ from the clock by less than this
CLOCK_TOLERANCE = timedelta(milliseconds=1)
ScopeQuery = Annotated[
    NamedScope | None, Query(description="Only this scope and the scopes below it.")
]


@router.get("/stats", responses=failure_responses())
def stats(memory: MemoryDep) -> StatsValue:
    """Return the memory in numbers."""
    return StatsValue(**asdict(memory.stats()), version=cmt_sdk.__version__)


@router.get("/documents", responses=failure_responses())
def list_documents(
    memory: MemoryDep,
    scope: ScopeQuery = None,
    source: Annotated[
        str | None, Query(max_length=1000, description="Only this source; * is a wildcard.")
    ] = None,
    q: Annotated[
        str | None,
        Query(max_length=900, description="A part of the source, if `source` is not given."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[
        str | None, Query(description="The `next_cursor` of the previous page.")
    ] = None,
) -> PageValue:
    """List documents in order of creation, with the first 300 characters of each text."""
    wanted = f"*{q}*" if q and not source else source
    page = memory.list(scope=scope, source=wanted, limit=limit, cursor=cursor or None)
    return PageValue(
        documents=[_document_value(d) for d in page.documents], next_cursor=page.next_cursor
    )


@router.post(
    "/documents",
    status_code=201,
    responses={
        200: {"model": DocumentValue, "description": "The document existed already."},
        **failure_responses(409, 422),
    },
)
async def add_document(
    queue: QueueDep, memory: MemoryDep, response: Response, new: NewDocument
) -> DocumentValue:
    """Store a text. The same text in the same scope is one document unless the ids differ."""
    start = datetime.now(UTC) - CLOCK_TOLERANCE
    document = cmt_sdk.Document(**new.model_dump(exclude={"wait"}))
    if new.wait:
        queue.check_room()
    # without a slot: questions take precedence
    stored = await run_in_threadpool(memory.add, document, wait=new.wait)
    if stored.created_at and stored.created_at < start:
        response.status_code = 200
    return _document_value(stored)


@router.post("/files", responses=failure_responses(501))
async def add_files(
    request: Request,
    queue: QueueDep,
    memory: MemoryDep,
    file: Annotated[list[UploadFile], File(min_length=1)],
    scope: Annotated[Scope, Form()] = "",
) -> UploadResult:
    """Store files: text, html, pdf, docx and more. They are compressed in the background."""
    names = [
        PurePosixPath(PureWindowsPath(upload.filename or "").as_posix()).name for upload in file
    ]
    files = [(name, await upload.read()) for name, upload in zip(names, file, strict=True)]
    async with queue.converting:
        found = await cancel_on_disconnect(request.receive, read_files(files))
    stored = list[DocumentValue]()
    refused = list[RejectedFile]()
    for name, document in zip(names, found, strict=True):
        try:
            if isinstance(document, str):
                raise InvalidInput(document)  # noqa: TRY301
            stored.append(
                _document_value(
                    await run_in_threadpool(memory.add, replace(document, scope=scope), wait=False)
                )
            )
        except InvalidInput as error:
            refused.append(RejectedFile(name=name, message=str(error)))
    return UploadResult(documents=stored, refused=refused)


@router.get("/documents/{id:path}", responses=failure_responses(404))
def get_document(memory: MemoryDep, id: str) -> FullDocument:  # noqa: A002 - the word users know
    """Return a document with its complete text and its passages."""
    document = memory.get(id)
    passages = [PassageValue.model_validate(p) for p in memory.passages(id)]
    return FullDocument(**_document_value(document, None).model_dump(), passages=passages)


@router.patch("/documents/{id:path}", responses=failure_responses(404, 409, 422))
async def change_document(
    queue: QueueDep,
    memory: MemoryDep,
    id: str,  # noqa: A002 - the name in the address
    change: DocumentChange,
) -> DocumentValue:
    """Change the text or fields of a document; the previous text stays in the history.

    A new text is compressed before the response.
    """
    fields = change.model_dump(exclude_unset=True)
    fields = {
        name: value
        for name, value in fields.items()
        if value is not None or name in ("source", "expires_at")
    }
    if "text" in fields:
        queue.check_room()
    return _document_value(await run_in_threadpool(lambda: memory.update(id, **fields)))


@router.delete("/documents/{id:path}", responses=failure_responses(404))
def forget_document(memory: MemoryDep, id: str) -> ReceiptValue:  # noqa: A002
    """Erase a document with its history; the receipt reports what a scan of the files found."""
    return ReceiptValue.model_validate(memory.forget(id))


@router.post("/forget", responses=failure_responses())
def forget(memory: MemoryDep, conditions: ForgetRequest) -> ReceiptValue:
    """Erase all documents that match every given condition."""
    receipt = memory.forget(**conditions.model_dump(exclude_unset=True))
    return ReceiptValue.model_validate(receipt)


@router.get("/search", responses=failure_responses(409))
async def search(
    request: Request,
    queue: QueueDep,
    memory: MemoryDep,
    q: Annotated[Text, Query()],
    k: Annotated[int, Query(ge=1, le=100)] = 10,
    mode: SearchMode = "fused",
    scope: ScopeQuery = None,
) -> Matches:
    """Find passages by meaning and words ("fused"), by one of them, or reranked by the model."""

    def find() -> Matches:
        return Matches(
            matches=[_match_value(m) for m in memory.search(q, k, mode=mode, scope=scope)]
        )

    if mode == "text":
        return await run_in_threadpool(find)
    return await cancel_on_disconnect(request.receive, queue.call(find))


@router.post(
    "/ask",
    response_model=AnswerValue,
    responses={200: EVENT_STREAM, **failure_responses(409)},
)
async def ask(request: Request, queue: QueueDep, ask: AskRequest) -> Any:
    """Answer a question from memory, as JSON or as events.

    The events are `piece` ({"text"}), then `answer`, or `error` if the answer is interrupted.
    """
    options = ask.model_dump(exclude={"stream"})

    async def events() -> AsyncGenerator[str]:
        async with aclosing(queue.pieces(**options)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield format_event(PieceValue(text=piece), "piece")
                else:
                    yield format_event(AnswerValue.model_validate(piece), "answer")

    return (
        EventStream(events(), "error")
        if ask.stream
        else await cancel_on_disconnect(request.receive, queue.answer(**options))
    )


@router.get("/map", responses=failure_responses())
def show_map(
    memory: MemoryDep, scope: ScopeQuery = None, limit: Annotated[int, Query(ge=1, le=2000)] = 2000
) -> MapValue:
    """Return passages as points in the plane, close if their meanings are, and neighbours."""
    return map_of(memory, scope, limit)


def _document_value(
    document: cmt_sdk.Document, longest: int | None = LISTED_CHARS
) -> DocumentValue:
    text = document.text
    return DocumentValue(**asdict(replace(document, text=text[:longest])), length=len(text))


def _match_value(match: cmt_sdk.Match) -> MatchValue:
    passage = match.passage
    document = match.document
    return MatchValue(
        document_id=document.id,
        passage_id=passage.id,
        source=document.source,
        scope=document.scope,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        score=match.score,
        why=match.why,
        superseded_by=match.superseded_by,
    )
