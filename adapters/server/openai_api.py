"""/v1 for OpenAI clients: models, chat completions and embeddings.

    client = openai.OpenAI(base_url="http://127.0.0.1:8765/v1", api_key="none")
    messages = [{"role": "user", "content": "I moved to Lisbon."}]
    client.chat.completions.create(model="cmt", user="ann", messages=messages)

The user's last message is the question; earlier messages are the history. `user` selects the scope
"user/<user>": one user's facts never reach another user. Options that the model does not have
(temperature, tools) are ignored.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request

import cmt_sdk
from cmt_adapters.server.http_responses import (
    EVENT_STREAM,
    EventStream,
    failure_responses,
    format_event,
)
from cmt_adapters.server.model_queue import (
    ModelQueue,
    Pieces,
    QueueDep,
    Vectors,
    cancel_on_disconnect,
)
from cmt_adapters.server.openai_schemas import (
    MODEL,
    AnswerRequest,
    AssistantMessage,
    ChatRequest,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    Embedding,
    EmbeddingRequest,
    Embeddings,
    EmbeddingUsage,
    Finish,
    Model,
    Models,
    Usage,
)
from cmt_adapters.server.schemas import SourceValue
from cmt_adapters.server.stop_sequences import collect_answer, stop_at
from cmt_adapters.server.users import with_user
from cmt_sdk.errors import InvalidInput, NotFound

router = APIRouter(prefix="/v1", tags=["openai"])

CHARS_PER_TOKEN = 4  # an estimate: the tokenizer does not count texts to embed
DONE = "data: [DONE]\n\n"


@router.get("/models", responses=failure_responses())
async def list_models() -> Models:
    """List the one model."""
    return Models(data=[Model()])


@router.get("/models/{id}", responses=failure_responses(404))
async def model_info(id: str) -> Model:  # noqa: A002 - the word users know
    """Return the one model."""
    if id != MODEL:
        raise NotFound(f"there is no model {id!r}: the only one is {MODEL!r}")
    return Model()


@router.post(
    "/chat/completions",
    response_model=Completion,
    responses={200: EVENT_STREAM, **failure_responses(409, 422)},
)
async def complete_chat(request: Request, queue: QueueDep, chat: ChatRequest) -> Any:
    """Answer the user's last message from memory, after storing the facts that it states.

    With `stream`, the response is a stream of chunks.
    """
    chat = with_user(request, chat)
    options = chat.options()
    if chat.stream:
        return EventStream(_chunks(queue, chat, options))
    answer = await cancel_on_disconnect(
        request.receive, collect_answer(stop_at(replies(queue, chat, options), chat.stop))
    )
    choice = Choice(message=AssistantMessage(content=answer.text), finish_reason=_finish(answer))
    return Completion(**_head(), choices=[choice], usage=_usage(answer), sources=_sources(answer))


@router.post("/embeddings", responses=failure_responses(409))
async def embed(request: Request, queue: QueueDep, body: EmbeddingRequest) -> Embeddings:
    """Return the embeddings by which questions find passages."""
    texts = body.input
    vectors = await cancel_on_disconnect(request.receive, queue.embed(texts))
    if body.dimensions not in (None, vectors.shape[1]):
        raise InvalidInput(
            f"dimensions={body.dimensions}: the model's vectors have {vectors.shape[1]}; leave"
            " it out"
        )
    tokens = sum(-(-len(text) // CHARS_PER_TOKEN) for text in texts)
    data = [
        Embedding(index=n, embedding=v)
        for n, v in enumerate(_encoded(vectors, body.encoding_format == "base64"))
    ]
    return Embeddings(data=data, usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens))


def _encoded(vectors: Vectors, as_base64: bool) -> Sequence[list[float] | str]:
    if as_base64:
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    rows: list[list[float] | str] = vectors.tolist()
    return rows


async def _chunks(
    queue: ModelQueue, chat: ChatRequest, options: dict[str, Any]
) -> AsyncGenerator[str]:
    head = _head() | {"object": "chat.completion.chunk", "model": MODEL}

    def chunk(delta: Delta, **more: Any) -> str:
        finish = more.pop("finish_reason", None)
        return format_event(
            Chunk(**head, choices=[ChunkChoice(index=0, delta=delta, finish_reason=finish)], **more)
        )

    is_first = True
    async with aclosing(stop_at(replies(queue, chat, options), chat.stop)) as pieces:
        async for piece in pieces:
            if is_first:
                yield chunk(Delta(role="assistant", content=""))
                is_first = False
            if isinstance(piece, str):
                yield chunk(Delta(content=piece))
                continue
            yield chunk(Delta(), finish_reason=_finish(piece), sources=_sources(piece))
            if chat.stream_options and chat.stream_options.include_usage:
                yield format_event(Chunk(**head, choices=[], usage=_usage(piece)))
    yield DONE


def replies(queue: ModelQueue, body: AnswerRequest, options: dict[str, Any]) -> Pieces:
    """Return the reply to the user's last message in pieces; its facts are stored first."""
    remember = queue.remember if body.remember is None else body.remember
    return queue.replies(remember=remember, **options)


def _head() -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}


def _finish(answer: cmt_sdk.Answer) -> Finish:
    return "length" if answer.truncated else "stop"


def _usage(answer: cmt_sdk.Answer) -> Usage:
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.answer_tokens,
        total_tokens=answer.prompt_tokens + answer.answer_tokens,
        memory_tokens=answer.memory_tokens,
    )


def _sources(answer: cmt_sdk.Answer) -> list[SourceValue]:
    return [SourceValue.model_validate(source) for source in answer.sources]
