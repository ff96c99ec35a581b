"""/v1/responses: the answers of /v1/chat/completions in the form of OpenAI's Responses API. Knows
the queue, no store.

    client = openai.OpenAI(base_url="http://127.0.0.1:8765/v1", api_key="none")
    client.responses.create(model="cmt", user="ann", input="Where did I move to?").output_text

Answers are not kept: a conversation comes whole, as `input`. Tools are passed over.
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
from cmt_adapters.server.asking import in_name_of
from cmt_adapters.server.replies import EVENTS, Events, event, failures
from cmt_adapters.server.responses_shapes import (
    OutputMessage,
    OutputText,
    Responded,
    ResponsesRequest,
    ResponsesUsage,
    Step,
)
from cmt_adapters.server.shapes import SourceValue
from cmt_adapters.server.stopping import whole
from cmt_adapters.server.work import Work, Working, while_there

router = APIRouter(prefix="/v1", tags=["openai"])


@router.post("/responses", response_model=Responded, responses={200: EVENTS, **failures(409, 422)})
async def respond(request: Request, work: Working, asked: ResponsesRequest) -> Any:
    """Answer what the user says last from memory, and remember what it tells, before. With
    `stream`, events by their types.
    """
    asked = in_name_of(request, asked)
    options = asked.options()
    if asked.stream:
        return Events(_events(work, asked, options), "error")
    answer = await while_there(request.receive, whole(openai_api.replies(work, asked, options)))
    return _responded(asked, _head(), answer)


async def _events(
    work: Work, asked: ResponsesRequest, options: dict[str, Any]
) -> AsyncGenerator[str]:
    head, numbers = _head(), itertools.count()
    message = OutputMessage(id=f"msg_{uuid.uuid4().hex}", status="in_progress", content=[])
    part = {"item_id": message.id, "output_index": 0, "content_index": 0}
    begun = False

    def step(kind: str, **fields: Any) -> str:
        name = f"response.{kind}"
        return event(Step(type=name, sequence_number=next(numbers), **fields), name)

    async with aclosing(openai_api.replies(work, asked, options)) as pieces:
        async for piece in pieces:
            if not begun:
                begun = True
                opened = Responded(
                    **head, status="in_progress", output=[], instructions=asked.instructions
                ).model_dump()
                yield step("created", response=opened)
                yield step("in_progress", response=opened)
                yield step("output_item.added", output_index=0, item=message.model_dump())
                yield step("content_part.added", **part, part=OutputText(text="").model_dump())
            if isinstance(piece, str):
                yield step("output_text.delta", **part, delta=piece, logprobs=[])
                continue
            whole = _responded(asked, head, piece, message.id)
            (said,) = whole.output
            yield step("output_text.done", **part, text=piece.text, logprobs=[])
            yield step("content_part.done", **part, part=said.content[0].model_dump())
            yield step("output_item.done", output_index=0, item=said.model_dump())
            yield step(whole.status, response=whole.model_dump())


def _head() -> dict[str, Any]:
    return {"id": f"resp_{uuid.uuid4().hex}", "created_at": int(time.time())}


def _responded(
    asked: ResponsesRequest,
    head: dict[str, Any],
    answer: cmt_sdk.Answer,
    id: str = "",  # noqa: A002
) -> Responded:
    status: Literal["completed", "incomplete"] = "incomplete" if answer.truncated else "completed"
    said = OutputText(text=answer.text)
    return Responded(
        **head,
        status=status,
        incomplete_details={"reason": "max_output_tokens"} if answer.truncated else None,
        instructions=asked.instructions,
        max_output_tokens=asked.max_output_tokens,
        output=[OutputMessage(id=id or f"msg_{uuid.uuid4().hex}", status=status, content=[said])],
        usage=ResponsesUsage(
            input_tokens=answer.prompt_tokens,
            output_tokens=answer.answer_tokens,
            total_tokens=answer.prompt_tokens + answer.answer_tokens,
            memory_tokens=answer.memory_tokens,
        ),
        user=asked.user,
        sources=[SourceValue.model_validate(source) for source in answer.sources],
    )
