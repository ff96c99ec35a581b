"""Conversions for langchain_agent: messages, search results and answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import cmt_sdk
from cmt_sdk.errors import InvalidInput, NotFound
from cmt_sdk.system.extras import unusable

try:
    from langchain_core.messages import (
        AIMessage,
        AnyMessage,
        BaseMessage,
        HumanMessage,
        SystemMessage,
    )
    from langchain_core.tools import ToolException
except ImportError as error:
    raise unusable(
        "the LangChain middleware, tools, chat model and history", "langchain", error
    ) from error

ROLES = {HumanMessage: "user", AIMessage: "assistant", SystemMessage: "system"}


def role_of(message: BaseMessage) -> str:
    """Return the role of a message in a Turn; "" for messages of tools and others."""
    return next((role for kind, role in ROLES.items() if isinstance(message, kind)), "")


def text_of(message: BaseMessage) -> str:
    """Return the text of a message, cleaned so that it can be stored and searched for."""
    return cmt_sdk.clean_text(str(message.text)).strip()


def turn_of(message: BaseMessage) -> cmt_sdk.Turn:
    """Return a message as a Turn."""
    return cmt_sdk.Turn(role_of(message), text_of(message))


def last_turn(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """Return the user's last consecutive messages and everything after them."""
    start = len(messages)
    while start and not isinstance(messages[start - 1], HumanMessage):
        start -= 1
    while start and isinstance(messages[start - 1], HumanMessage):
        start -= 1
    return messages[start:]


def usage_of(answer: cmt_sdk.Answer) -> Any:
    """Return the token counts of an answer as LangChain's usage metadata."""
    read = answer.prompt_tokens
    written = answer.answer_tokens
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def response_metadata_of(answer: cmt_sdk.Answer, model_name: str) -> dict[str, Any]:
    """Return the sources and costs of an answer as a message's response metadata."""
    return {
        "model_name": model_name,
        "sources": [asdict(source) for source in answer.sources],
        "reader": answer.reader,
        "abstained": answer.abstained,
        "confidence": answer.confidence,
        "memory_tokens": answer.memory_tokens,
        "milliseconds": dict(answer.milliseconds),
    }


def note_of(match: cmt_sdk.Match) -> dict[str, Any]:
    """Return a passage as the search tool gives it to a model."""
    note = {
        "text": match.passage.content,
        "source": match.document.source or match.document.id,
        "start": match.passage.start,
        "end": match.passage.end,
    }
    return note if match.superseded_by is None else note | {"superseded_by_a_newer_note": True}


@contextmanager
def tool_errors() -> Iterator[None]:
    """Raise InvalidInput and NotFound as ToolException, which the model gets; others go on."""
    try:
        yield
    except (InvalidInput, NotFound) as error:
        raise ToolException(str(error)) from error


def until_stop(pieces: Iterable[str], stop: str | Sequence[str]) -> Iterator[str]:
    """Yield pieces of text up to the first stop text.

    The end of the text is held back while it may be the beginning of a stop text.
    """
    stops = [text for text in ([stop] if isinstance(stop, str) else stop) if text]
    longest = max((len(text) - 1 for text in stops), default=0)
    held = ""
    for piece in pieces:
        held += piece
        found = [at for text in stops if (at := held.find(text)) >= 0]
        if found:
            held = held[: min(found)]
            break
        if len(held) > longest:
            yield held[: len(held) - longest]
            held = held[len(held) - longest :]
    if held:
        yield held
