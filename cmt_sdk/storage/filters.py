"""A Filter as SQL: conditions on the table `documents` with bound values only. Knows no connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cmt_sdk.errors import InvalidFilter
from cmt_sdk.types import Filter, Scalar

OPERATORS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
KINDS = {str: ("text",), bool: ("true", "false"), int: ("integer", "real"), float: ("integer", "real")}


def conditions(chosen: Filter, now: float) -> tuple[str, dict[str, Any]]:
    """The WHERE clause for documents `d`, and its values. Raises InvalidFilter."""
    values: dict[str, Any] = {"now": now}
    parts = ["(d.expires_at IS NULL OR d.expires_at > :now)"]
    if not chosen.history:
        parts.append("d.current")

    def bind(value: object) -> str:
        values[name := f"v{len(values)}"] = value
        return f":{name}"

    if chosen.ids is not None:
        parts.append(f"d.doc_id IN ({', '.join(bind(i) for i in chosen.ids) or 'NULL'})")
    if chosen.scope:
        scope = chosen.scope.rstrip("/")
        parts.append(f"(d.scope = {bind(scope)} OR (d.scope >= {bind(scope + '/')} AND d.scope < {bind(scope + '0')}))")
    if chosen.source is not None:
        parts.append(f"d.source GLOB {bind(chosen.source.replace('[', '[[]'))}")
    for key, wanted in chosen.where.items():
        parts.append(_on_metadata(key, wanted, bind))
    return " AND ".join(parts), values


def _on_metadata(key: str, wanted: Any, bind: Any) -> str:
    if not isinstance(key, str) or '"' in key or "\\" in key or "\0" in key:
        raise InvalidFilter(f"filter key {key!r}: a key is text without quotation marks, backslashes and NUL")
    path = bind(f'$."{key}"')
    operator, value = _operator(key, wanted)
    if operator == "exists":
        return f"json_type(d.metadata, {path}) IS {'NOT' if value else ''} NULL"
    if operator == "in":
        choices = [_compare(path, "=", v, bind, key) for v in value]
        return f"({' OR '.join(choices) or '0'})"
    return _compare(path, OPERATORS[operator], value, bind, key)


def _operator(key: str, wanted: Any) -> tuple[str, Any]:
    if not isinstance(wanted, Mapping):
        return "==", wanted
    if len(wanted) != 1 or (name := next(iter(wanted))) not in {*OPERATORS, "in", "exists"}:
        raise InvalidFilter(f"filter {key}={dict(wanted)!r}: give one of {', '.join(OPERATORS)}, in, exists")
    value = wanted[name]
    if name == "in" and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise InvalidFilter(f"filter {key}: `in` takes a list, not {value!r}")
    return name, value


def _compare(path: str, operator: str, value: Scalar, bind: Any, key: str) -> str:
    if value is None:
        return f"json_type(d.metadata, {path}) {'=' if operator == '=' else '<>'} 'null'"
    if type(value) not in KINDS:
        raise InvalidFilter(f"filter {key}: {value!r} is no text, number, truth value or None")
    kinds = ", ".join(f"'{k}'" for k in KINDS[type(value)])
    bound = bind(int(value) if isinstance(value, bool) else value)
    same = f"(json_type(d.metadata, {path}) IN ({kinds}) AND json_extract(d.metadata, {path}) {operator} {bound})"
    if operator == "<>":
        return f"({same} OR json_type(d.metadata, {path}) NOT IN ({kinds}))"
    return same
