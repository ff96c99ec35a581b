"""Messages for pydantic errors: the field that is wrong and how to correct it.

Messages never repeat the value, which may be private.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

UNION_BRANCH = re.compile(
    r"str|int|float|bool|none|dict|list|function-\w+(\[.*)?|.*[\[(].*|(constrained|lax-or|nullable)-.*"
)
PLAIN_VALUE = "give a plain value: a text, a number, true, false or null"
TIME_WITH_ZONE = "give a time with its zone, such as 2027-01-31T00:00:00Z"
MESSAGES = {
    "missing": "it is missing",
    "string_type": "give a text",
    "string_unicode": "it holds a lone surrogate, which is no character: decode it again",
    "string_too_long": "give at most {max_length} characters",
    "string_too_short": "it is empty: give at least {min_length} character, or leave it out",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_parsing_size": "give a smaller number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "dict_type": "give an object: names and values",
    "model_type": "give an object",
    "model_attributes_type": "give an object",
    "list_type": "give a list",
    "too_short": "give at least {min_length}",
    "too_long": "give at most {max_length}",
    "literal_error": "choose one of {expected}",
    "greater_than_equal": "give at least {ge}",
    "less_than_equal": "give at most {le}",
    "datetime_type": TIME_WITH_ZONE,
    "datetime_parsing": TIME_WITH_ZONE,
    "datetime_from_date_parsing": TIME_WITH_ZONE,
    "datetime_object_invalid": TIME_WITH_ZONE,
    "timezone_aware": TIME_WITH_ZONE,
}


class FieldError(ValueError):
    """An error in one part of a value; `field` names the part."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def field_path(error: Mapping[str, Any], skipped: int = 0) -> str:
    """Return the path of the wrong value as a caller writes it, such as `messages[0].content`.

    Args:
        error: An error of pydantic.
        skipped: How many leading parts of the location to leave out.
    """
    parts: Sequence[str | int] = error["loc"][skipped:]
    while len(parts) > 1 and isinstance(parts[-1], str) and UNION_BRANCH.fullmatch(parts[-1]):
        parts = parts[:-1]
    field = getattr(error.get("ctx", {}).get("error"), "field", None)
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    path = path.lstrip(".")
    if not field:
        return path
    dot = "" if field.startswith("[") or not path else "."
    return f"{path}{dot}{field}"


def error_message(error: Mapping[str, Any], skipped: int = 0) -> str:
    """Return what is wrong with a value. Arguments as for `field_path`."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    last = error["loc"][-1] if len(error["loc"]) > skipped + 1 else 0
    if isinstance(last, str) and UNION_BRANCH.fullmatch(last):
        return PLAIN_VALUE
    words: str = MESSAGES.get(error["type"], error["msg"])
    return words.format_map(error.get("ctx", {})) if error["type"] in MESSAGES else words
