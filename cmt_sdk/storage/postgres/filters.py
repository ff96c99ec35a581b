"""A Filter as SQL for Postgres; what it means is that of `storage.filters`.

Metadata is compared as jsonb: numbers as numbers, texts byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import NoneType
from typing import Any

from cmt_sdk.errors import InvalidFilter
from cmt_sdk.storage.filters import Bind, Dialect, operator_of, spellings
from cmt_sdk.storage.rows import fault_of
from cmt_sdk.types import Scalar

KINDS = {str: "string", bool: "boolean", int | float: "number", NoneType: "null"}
# numbers of JSON with at most three digits in the exponent: others overflow
NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"


def _has_id(ids: Sequence[str], bind: Bind) -> str:
    return f"d.doc_id = ANY(CAST({bind(ids)} AS text[]))"


def _in_scope(scope: str, bind: Bind) -> str:
    """Return a condition on a scope and all scopes below it, for which a btree is used: "0" is the
    character after "/".
    """
    own, end = bind(scope), bind(scope + "0")
    below = bind(scope + "/")
    return f"(d.scope >= {own} AND d.scope < {end} AND (d.scope = {own} OR d.scope >= {below}))"


def _on_source(source: str, bind: Bind) -> str:
    forms = spellings(source)
    if "*" not in source:
        return f"({' OR '.join(f'd.source = {bind(form)}' for form in forms)})"
    signs = {ord(c): f"\\{c}" for c in "\\%_"} | {ord("*"): "%"}
    return f"({' OR '.join(f'd.source LIKE {bind(form.translate(signs))}' for form in forms)})"


def _on_metadata(key: str, wanted: Any, bind: Bind) -> str:
    operator, value = operator_of(key, wanted)
    found = f"(CAST(d.metadata AS jsonb) -> {bind(key)})"
    if operator == "exists":
        return f"{found} IS {'NOT' if value else ''} NULL"
    if operator == "in":
        return _among(found, value, bind, key)
    if operator == "==":
        return _among(found, [value], bind, key)
    if operator == "!=":
        return f"({found} IS NOT NULL AND NOT {_among(found, [value], bind, key)})"
    kind = _kind(key, value)
    if kind == "string":
        text = f"({found} #>> '{{}}') COLLATE \"C\""
        return (
            f"(coalesce(jsonb_typeof({found}), '') = 'string' AND {text} {operator} {bind(value)})"
        )
    bound = f"CAST({bind(json.dumps(value))} AS jsonb)"
    of_kind = f"(coalesce(jsonb_typeof({found}), '') = '{kind}' AND {found} {operator} {bound})"
    if kind != "number":
        return of_kind
    in_text = f"{_number_in_text(found)} {operator} CAST({bound} AS numeric)"
    return f"({of_kind} OR coalesce({in_text}, false))"


def _number_in_text(found: str) -> str:
    """Return SQL for the number that a text is in another notation, such as "12.50" or "12e3"; else
    NULL.
    """
    text = f"({found} #>> '{{}}')"
    plain = f"CAST(trim_scale(CAST({text} AS numeric)) AS text)"
    return (
        f"CASE WHEN jsonb_typeof({found}) = 'string' AND {text} ~ '{NUMBER}'"
        f" THEN CASE WHEN {text} NOT IN ({plain}, {plain} || '.0')"
        f" THEN CAST({text} AS numeric) END END"
    )


def _among(found: str, choices: Sequence[Scalar], bind: Bind, key: str) -> str:
    """Return a condition that the value equals one of the choices and is of the same kind: 1 is
    1.0, but not True. Never NULL.
    """
    for choice in choices:
        _kind(key, choice)
    among = f"SELECT jsonb_array_elements(CAST({bind(json.dumps(list(choices)))} AS jsonb))"
    return f"coalesce({found} IN ({among}), false)"


def _kind(key: str, value: Scalar) -> str:
    """Return the JSON type that a value is compared with."""
    if fault := fault_of(value):
        raise InvalidFilter(f"filter {key:.60}: {fault}")
    return next(kind for types, kind in KINDS.items() if isinstance(value, types))


POSTGRES = Dialect(_has_id, _in_scope, _on_source, _on_metadata)
