"""A Filter as SQL: conditions on the table `documents` with bound values only. Knows no connection.

Metadata is compared as JSON on both sides, so that a number reads the same in the document and in
the filter. In a comparison of a number by < or >, a text that is a number in another notation
counts as that number: "12.50" is more than 12.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any
from unicodedata import normalize

from cmt_sdk.errors import InvalidFilter
from cmt_sdk.storage.rows import fault_of, sound_text
from cmt_sdk.types import Filter, Scalar

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
KINDS = {
    str: "'text'",
    bool: "'true', 'false'",
    int | float: "'integer', 'real'",
    NoneType: "'null'",
}
LONGEST_PATTERN = 1_000  # characters: SQLite refuses very long ones, and many wildcards take long
MOST_KEYS = 100
Bind = Callable[[object], str]


@dataclass(frozen=True)
class Dialect:
    """How a database writes the conditions of a filter.

    Attributes:
        has_id: that the id of a document is one of some.
        in_scope: that a document is in a scope or below it.
        on_source: that its source is this one, or fits a pattern.
        on_metadata: on one key of its metadata.
    """

    has_id: Callable[[Sequence[str], Bind], str]
    in_scope: Callable[[str, Bind], str]
    on_source: Callable[[str, Bind], str]
    on_metadata: Callable[[str, Any, Bind], str]


def conditions(filter: Filter, now: float) -> tuple[str, dict[str, Any]]:
    """Return the WHERE clause for documents `d`, and its bound values. Raises InvalidFilter."""
    return conditions_in(SQLITE, filter, now)


def conditions_in(
    dialect: Dialect, filter: Filter, now: float, stored: Callable[[str], str] = lambda scope: scope
) -> tuple[str, dict[str, Any]]:
    """Return the WHERE clause for documents `d`, and its bound values.

    Args:
        dialect: writes the conditions.
        filter: what they are to say.
        now: the time, in seconds since 1970.
        stored: gives a scope as the table has it; of "", the scope of the memory.

    Raises:
        InvalidFilter: a condition that cannot be asked for.
    """
    values: dict[str, Any] = {"now": now}
    parts = ["(d.expires_at IS NULL OR d.expires_at > :now)"]
    if not filter.history:
        parts.append("d.current")

    def bind(value: object) -> str:
        values[name := f"v{len(values)}"] = value
        return f":{name}"

    if filter.ids is not None:
        ids = [sound_text("id", i, InvalidFilter) for i in filter.ids]
        parts.append(dialect.has_id(ids, bind))
    inside = _sound_scope(sound_text("scope", filter.scope, InvalidFilter)) if filter.scope else ""
    if scope := stored(inside):
        parts.append(dialect.in_scope(scope, bind))
    if filter.outside:
        outside = _sound_scope(sound_text("outside", filter.outside, InvalidFilter))
        parts.append(f"NOT {dialect.in_scope(stored(outside), bind)}")
    if filter.source is not None:
        parts.append(dialect.on_source(sound_text("source", filter.source, InvalidFilter), bind))
    if len(filter.where) > MOST_KEYS:
        raise InvalidFilter(f"a filter on {len(filter.where)} keys: give at most {MOST_KEYS}")
    for key, wanted in filter.where.items():
        parts.append(dialect.on_metadata(_sound_key(key), wanted, bind))
    return " AND ".join(parts), values


def _has_id(ids: Sequence[str], bind: Bind) -> str:
    return f"d.doc_id IN (SELECT value FROM json_each({bind(json.dumps(ids))}))"


def _in_scope(scope: str, bind: Bind) -> str:
    """Return a condition on a scope and all scopes below it; "0" is the character after "/".

    One range of the index holds both, and names such as "a!" between them; "+" keeps SQLite from
    looking them up apart, which would read the rows too.
    """
    own, end = bind(scope), bind(scope + "0")
    return (
        f"(d.scope >= {own} AND d.scope < {end} AND (+d.scope = {own} OR +d.scope >="
        f" {bind(scope + '/')}))"
    )


def _on_source(source: str, bind: Bind) -> str:
    forms = spellings(source)
    if "*" not in source:
        parts = [f"d.source = {bind(form)}" for form in forms]
    else:  # a "?" is part of many addresses
        parts = [
            f"d.source GLOB {bind(form.replace('[', '[[]').replace('?', '[?]'))}" for form in forms
        ]
    return f"({' OR '.join(parts)})"


def spellings(source: str) -> list[str]:
    """Return the spellings of a source that are the same: macOS names files in NFD. Raises
    InvalidFilter for one with wildcards that is too long.
    """
    if "*" in source and len(source) > LONGEST_PATTERN:
        raise InvalidFilter(f"source of {len(source)} characters: give at most {LONGEST_PATTERN}")
    return list(dict.fromkeys([source, normalize("NFC", source), normalize("NFD", source)]))


def _sound_scope(scope: str) -> str:
    """Return a scope without the slash at its end. Raises InvalidFilter for one without a name."""
    name = scope.rstrip("/")
    if not name:
        raise InvalidFilter("scope '/' names nothing: give a name, or '' for all scopes")
    return name


def _on_metadata(key: str, wanted: Any, bind: Bind) -> str:
    path = bind(f'$."{key}"')
    operator, value = operator_of(key, wanted)
    if operator == "exists":
        return f"json_type(d.metadata, {path}) IS {'NOT' if value else ''} NULL"
    if operator == "in":
        return _among(path, value, bind, key)
    if operator == "==":
        return _among(path, [value], bind, key)
    if operator == "!=":
        return (
            f"(json_type(d.metadata, {path}) IS NOT NULL AND NOT"
            f" {_among(path, [value], bind, key)})"
        )
    kind, bound = _kind(key, value), bind(json.dumps(value))
    found = f"json_extract(d.metadata, {path})"
    of_kind = (
        f"(json_type(d.metadata, {path}) IN ({kind}) AND {found} {operator} json_extract({bound},"
        " '$'))"
    )
    if kind != KINDS[int | float]:
        return of_kind
    return (
        f"({of_kind} OR coalesce({_number_in_text(path, found)} {operator} json_extract({bound},"
        " '$'), 0))"
    )


def _sound_key(key: object) -> str:
    """Return a metadata key that can be asked for. Raises InvalidFilter."""
    if not isinstance(key, str) or any(c in '"\\' or c < " " for c in key):
        raise InvalidFilter(
            f"filter key {key!r:.60}: a key is text without quotation marks, backslashes, control"
            " characters"
        )
    return sound_text("filter key", key, InvalidFilter)


def _number_in_text(path: str, found: str) -> str:
    """Return SQL for the number that a text is in another notation, such as "12.50" or "12e3"; else
    NULL.

    The cases are nested because json_type fails for text that is not JSON.
    """
    number = f"json_extract({found}, '$')"
    of_number = (
        f"CASE WHEN json_type({found}) IN ({KINDS[int | float]}) AND CAST({number} AS TEXT) <>"
        f" {found} THEN {number} END"
    )
    return (
        f"CASE json_type(d.metadata, {path}) WHEN 'text' THEN CASE WHEN json_valid({found}) THEN"
        f" {of_number} END END"
    )


def operator_of(key: str, wanted: Any) -> tuple[str, Any]:
    """Return the operator and the value of a condition on a metadata key. Raises InvalidFilter."""
    if not isinstance(wanted, Mapping):
        return "==", wanted
    if len(wanted) != 1 or (name := next(iter(wanted))) not in {*COMPARISONS, "in", "exists"}:
        raise InvalidFilter(
            f"filter {key:.60}={dict(wanted)!r:.100}: give one of {', '.join(COMPARISONS)}, in,"
            " exists"
        )
    value = wanted[name]
    if name == "in" and (isinstance(value, str | bytes) or not isinstance(value, Sequence)):
        raise InvalidFilter(f"filter {key:.60}: `in` takes a list, not {value!r:.60}")
    if name == "exists" and not isinstance(value, bool):
        raise InvalidFilter(f"filter {key:.60}: `exists` takes true or false, not {value!r:.60}")
    if value is None and name in ("<", "<=", ">", ">="):
        raise InvalidFilter(
            f"filter {key:.60}: None is neither less nor more than anything; use == or !="
        )
    return name, value


def _among(path: str, choices: Sequence[Scalar], bind: Bind, key: str) -> str:
    """Return a condition that the value equals one of the choices and is of the same kind: 1 is
    1.0, but not True. Never NULL.
    """
    by_kind: dict[str, list[Scalar]] = {}
    for choice in choices:
        by_kind.setdefault(_kind(key, choice), []).append(choice)
    parts = ["0"]
    for kind, same in by_kind.items():
        equal = (
            f"json_extract(d.metadata, {path}) IN (SELECT value FROM"
            f" json_each({bind(json.dumps(same))}))"
        )
        of_kind = f"coalesce(json_type(d.metadata, {path}) IN ({kind}), 0)"
        parts.append(of_kind if kind == "'null'" else f"({of_kind} AND {equal})")
    return f"({' OR '.join(parts)})"


def _kind(key: str, value: Scalar) -> str:
    """Return the JSON types that a value is compared with."""
    if fault := fault_of(value):
        raise InvalidFilter(f"filter {key:.60}: {fault}")
    return next(types for kind, types in KINDS.items() if isinstance(value, kind))


SQLITE = Dialect(_has_id, _in_scope, _on_source, _on_metadata)
