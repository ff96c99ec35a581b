"""Check the options of calls to the LangChain adapters.

ChatCMT also accepts, and ignores, the options of other chat models.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from cmt_sdk.errors import InvalidInput

IGNORED = frozenset(
    (
        *(
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "seed",
            "presence_penalty",
            "frequency_penalty",
        ),
        *("repetition_penalty", "logit_bias", "parallel_tool_calls", "timeout", "request_timeout"),
        *("max_retries", "user", "safety_identifier", "service_tier", "store", "streaming"),
        *(
            "stream_usage",
            "stream_options",
            "extra_headers",
            "extra_query",
            "extra_body",
            "reasoning",
        ),
        *("reasoning_effort", "verbosity", "prompt_cache_key", "ls_structured_output_format"),
    )
)  # options that choose among several answers, or that concern a hosted service
NEVER_NONE = ("max_tokens", "reader")
AS_TEXT = "it answers in plain text: leave it out"
NO_TOOLS = (
    "ChatCMT calls no tools: give the agent another model, and this memory as its tools: "
    "create_agent(model, tools=memory_tools(memory))"
)
NO_SCHEMAS = (
    "ChatCMT answers in plain text and fills in no schemas: use with_structured_output() of"
    " another model"
)


def supported_options(given: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Return the options that ChatCMT uses, of those given to `invoke`, `stream` or `bind`.

    Options of other chat models that cannot change an answer here are left out.

    Args:
        given: All options of the call.
        own: Names of the options that ChatCMT has.

    Raises:
        InvalidInput: An option would change the form of the answer.
        TypeError: No chat model has an option of this name.
    """
    options = {
        n: v for n, v in given.items() if v is not None or (n in own and n not in NEVER_NONE)
    }
    for name, (is_allowed, reason) in FORMS.items():
        if name in options and not is_allowed(options.pop(name)):
            raise InvalidInput(
                f"ChatCMT.invoke(): {name}={given[name]!r:.80} cannot be done, {reason}"
            )
    if "max_completion_tokens" in options:
        options["max_tokens"] = options.pop("max_completion_tokens")
    if options.get("max_tokens") in (-1, 0):  # some clients mean no limit by these
        del options["max_tokens"]
    reject_unknown("ChatCMT.invoke", options, own, IGNORED)
    return {name: value for name, value in options.items() if name in own}


def reject_unknown(
    call: str, given: Iterable[str], known: Collection[str], more: Collection[str] = ()
) -> None:
    """Raise TypeError for an argument that a public call does not have.

    The message names the most similar argument and all of `known`.

    Args:
        call: The name of the call.
        given: Names of the given arguments.
        known: Names of the call's arguments.
        more: Names that are accepted, but not listed in the message.
    """
    for name in given:
        if name not in known and name not in more:
            near = get_close_matches(name, [*known, *more], 1)
            meant = f": did you mean {near[0]!r}? It takes" if near else ": it takes"
            raise TypeError(f"{call}() has no argument {name!r}{meant} {', '.join(sorted(known))}")


def no_tools(*_: object, **__: object) -> NoReturn:
    """Replace `bind_tools`. Raises NotImplementedError with the reason."""
    raise NotImplementedError(NO_TOOLS)


def no_schemas(*_: object, **__: object) -> NoReturn:
    """Replace `with_structured_output`. Raises NotImplementedError with the reason."""
    raise NotImplementedError(NO_SCHEMAS)


def _is_free(choice: object) -> bool:
    return choice in ("auto", "none", False)


FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tools": (lambda tools: not tools, NO_TOOLS),
    "functions": (lambda tools: not tools, NO_TOOLS),
    "tool_choice": (_is_free, NO_TOOLS),
    "function_call": (_is_free, NO_TOOLS),
    "response_format": (
        lambda form: isinstance(form, dict) and form.get("type") == "text",
        AS_TEXT,
    ),
    "n": (lambda n: n == 1, "there is one answer: call it again for another"),
    "logprobs": (lambda wanted: not wanted, "there are none: leave it out"),
    "top_logprobs": (lambda wanted: not wanted, "there are none: leave it out"),
    "modalities": (lambda kinds: list(kinds) == ["text"], AS_TEXT),
}
