"""/v1/responses: the answers of /v1/chat/completions in the form of OpenAI's Responses API.

    client = openai.OpenAI(base_url="http://127.0.0.1:8765/v1", api_key="none")
    client.responses.create(model="cmt", user="ann", input="Where did I move to?").output_text

Responses are not stored: clients send the complete conversation as `input`. Tools are ignored.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request

import cmt_sdk
from cmt_adapters.server import openai_api
from cmt_adapters.server.http_responses import (
    EVENT_STREAM,
    EventStream,
    failure_responses,
    format_event,
)
from cmt_adapters.server.model_queue import ModelQueue, QueueDep, cancel_on_disconnect
from cmt_adapters.server.responses_schemas import (
    OutputMessage,
    OutputText,
    ResponseObject,
    ResponsesRequest,
    ResponsesUsage,
    StreamEvent,
)
from cmt_adapters.server.schemas import SourceValue
from cmt_adapters.server.stop_sequences import collect_answer
from cmt_adapters.server.users import with_user

router = APIRouter(prefix="/v1", tags=["openai"])


@router.post(
    "/responses",
    response_model=ResponseObject,
    responses={200: EVENT_STREAM, **failure_responses(409, 422)},
)
async def respond(request: Request, queue: QueueDep, body: ResponsesRequest) -> Any:
    """Answer the user's last message from memory, after storing the facts that it states.

    With `stream`, the response is a stream of typed events.
    """
    body = with_user(request, body)
    options = body.options()
    if body.stream:
        return EventStream(_events(queue, body, options), "error")
    answer = await cancel_on_disconnect(
        request.receive, collect_answer(openai_api.replies(queue, body, options))
    )
    return _responded(body, _head(), answer)


async def _events(
    queue: ModelQueue, body: ResponsesRequest, options: dict[str, Any]
) -> AsyncGenerator[str]:
    head = _head()
    numbers = itertools.count()
    message = OutputMessage(id=f"msg_{uuid.uuid4().hex}", status="in_progress", content=[])
    part = {"item_id": message.id, "output_index": 0, "content_index": 0}
    is_first = True

    def step(kind: str, **fields: Any) -> str:
        name = f"response.{kind}"
        return format_event(StreamEvent(type=name, sequence_number=next(numbers), **fields), name)

    async with aclosing(openai_api.replies(queue, body, options)) as pieces:
        async for piece in pieces:
            if is_first:
                is_first = False
                created = ResponseObject(
                    **head, status="in_progress", output=[], instructions=body.instructions
                ).model_dump()
                yield step("created", response=created)
                yield step("in_progress", response=created)
                yield step("output_item.added", output_index=0, item=message.model_dump())
                yield step("content_part.added", **part, part=OutputText(text="").model_dump())
            if isinstance(piece, str):
                yield step("output_text.delta", **part, delta=piece, logprobs=[])
                continue
            done = _responded(body, head, piece, message.id)
            (output,) = done.output
            yield step("output_text.done", **part, text=piece.text, logprobs=[])
            yield step("content_part.done", **part, part=output.content[0].model_dump())
            yield step("output_item.done", output_index=0, item=output.model_dump())
            yield step(done.status, response=done.model_dump())


def _head() -> dict[str, Any]:
    return {"id": f"resp_{uuid.uuid4().hex}", "created_at": int(time.time())}


def _responded(
    body: ResponsesRequest,
    head: dict[str, Any],
    answer: cmt_sdk.Answer,
    id: str = "",  # noqa: A002
) -> ResponseObject:
    status: Literal["completed", "incomplete"] = "incomplete" if answer.truncated else "completed"
    text = OutputText(text=answer.text)
    return ResponseObject(
        **head,
        status=status,
        incomplete_details={"reason": "max_output_tokens"} if answer.truncated else None,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        output=[OutputMessage(id=id or f"msg_{uuid.uuid4().hex}", status=status, content=[text])],
        usage=ResponsesUsage(
            input_tokens=answer.prompt_tokens,
            output_tokens=answer.answer_tokens,
            total_tokens=answer.prompt_tokens + answer.answer_tokens,
            memory_tokens=answer.memory_tokens,
        ),
        user=body.user,
        sources=[SourceValue.model_validate(source) for source in answer.sources],
    )
