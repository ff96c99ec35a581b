"""Normalize the arguments of tool calls before a tool gets them.

Models fill in every argument: null and "" mean that an optional argument is left out. An unknown
name is replaced by the argument that it clearly stands for, and is an error otherwise; to ignore
it could widen a search or an erasure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, TextContent
from pydantic import ValidationError

from cmt_adapters.validation_messages import error_message, field_path
from cmt_sdk.errors import InvalidInput

COUNT_NAMES = ("k", "limit", "top_k", "max_results", "num_results", "count", "n")
OTHER_NAMES = {
    "k": COUNT_NAMES,
    "limit": COUNT_NAMES,
    "query": ("question", "q", "text"),
    "question": ("query", "q", "text"),
    "text": ("content", "memory", "fact", "note"),
    "document_id": ("id", "memory_id", "doc_id"),
    "where": ("filter", "filters"),
}


def normalized_arguments(tools: Mapping[str, Tool]) -> ServerMiddleware[Any]:
    """Return middleware that normalizes arguments; a wrong one gives an error in one sentence."""

    async def tidy(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        params = ctx.params
        tool = tools.get(str(params.get("name"))) if ctx.method == "tools/call" and params else None
        if tool is None or not isinstance(given := (params or {}).get("arguments") or {}, dict):
            return await call_next(ctx)
        try:
            arguments = arguments_of(tool, given)
        except InvalidInput as error:
            return CallToolResult(
                content=[TextContent(type="text", text=f"{tool.name}: {error}")], is_error=True
            )
        return await call_next(replace(ctx, params={**(params or {}), "arguments": arguments}))

    return tidy


def arguments_of(tool: Tool, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as the tool takes them.

    Raises:
        InvalidInput: An argument is wrong; the message names the first one.
    """
    known = tool.parameters["properties"]
    required = tool.parameters.get("required", [])
    found = dict[str, Any]()
    for name, value in given.items():
        meant = name if name in known else _canonical_name(name, known)
        if meant is None:
            raise InvalidInput(f"there is no argument {name!r:.60}: it takes {', '.join(known)}")
        is_left_out = value is None or (
            isinstance(value, str) and not value.strip() and meant not in required
        )
        if not is_left_out and (meant not in found or meant == name):
            found[meant] = value
    try:
        tool.fn_metadata.validate_arguments(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{field_path(first)}: {error_message(first)}") from error
    return found


def _canonical_name(name: str, known: Mapping[str, Any]) -> str | None:
    """Return the argument that another name stands for, or None."""
    meant = [own for own, others in OTHER_NAMES.items() if own in known and name in others]
    return meant[0] if meant else None
