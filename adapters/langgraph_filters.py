"""Match values against filters and namespaces against paths, for the LangGraph store."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from typing import Any

from cmt_sdk.errors import InvalidFilter
from cmt_sdk.system.extras import unusable

try:
    from langgraph.store.base import MatchCondition
except ImportError as error:
    raise unusable("the LangGraph store", "langgraph", error) from error

ORDERED = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
OPERATORS = {"$eq": operator.eq, "$ne": operator.ne, **ORDERED}


def lines_of(value: Any) -> list[str]:
    """Return a JSON value as lines `path: value`.

    It uses a stack instead of recursion, since values may be nested deeply.
    """
    lines: list[str] = []
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        path, this = stack.pop()
        if isinstance(this, Mapping):
            stack += [
                (f"{path}.{name}" if path else str(name), inner)
                for name, inner in reversed(list(this.items()))
            ]
        elif isinstance(this, list | tuple):
            stack += [(path, inner) for inner in reversed(this)]
        elif this is not None and this != "":
            lines.append(f"{path}: {this if isinstance(this, str) else json.dumps(this)}")
    return lines


def matches_path(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    """Return whether a namespace begins or ends with a path; * in the path is any one label."""
    path = condition.path
    if condition.match_type not in ("prefix", "suffix"):
        raise InvalidFilter(f"match_type={condition.match_type!r}: choose one of prefix, suffix")
    part = (
        namespace[: len(path)]
        if condition.match_type == "prefix"
        else namespace[max(0, len(namespace) - len(path)) :]
    )
    return len(part) == len(path) and all(
        wanted in ("*", label) for wanted, label in zip(path, part, strict=True)
    )


def fits(value: Any, wanted: Any) -> bool:
    """Return whether a value matches a filter, at every depth.

    A filter is an operator, an equal value, an equal list, or a dict with at least these entries.
    """
    if isinstance(wanted, Mapping):
        if any(name.startswith("$") for name in wanted):
            return all(_compares(value, name, bound) for name, bound in wanted.items())
        return isinstance(value, Mapping) and all(
            fits(value.get(name), inner) for name, inner in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list) and len(value) == len(wanted) and all(map(fits, value, wanted))
        )
    return bool(value == wanted)


def _compares(value: Any, name: str, bound: Any) -> bool:
    """Apply one operator.

    Numbers, and text that can be read as numbers, are ordered by size; other text by its letters.
    """
    if name not in OPERATORS:
        raise InvalidFilter(f"filter operator {name!r}: choose one of {', '.join(OPERATORS)}")
    if name in ORDERED:
        try:
            numbers = (float(value), float(bound))
        except (TypeError, ValueError):
            if not (isinstance(value, str) and isinstance(bound, str)):
                return False
        else:
            value, bound = numbers
    return bool(OPERATORS[name](value, bound))
