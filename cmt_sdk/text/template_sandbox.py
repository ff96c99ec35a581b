"""Chat templates of models, rendered within bounds: of steps, of the size of every text, and of
time. Knows no model.

Jinja's sandbox keeps a template from Python's insides, but not from looping for ever or filling the
memory. Here each round of a loop, each call of a macro, and each text that is made costs part of a
budget that grows with the length of the conversation.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_format
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_TEMPLATE = 200_000  # characters: the longest of well-known models has some 30,000
# Characters that a rendering may make, in all. A round of a loop counts as ROUND and the text in
# it, so that a loop without text costs something too.
LEAST_BUDGET = 4_000_000
PER_CHARACTER = 64  # of the budget for each character of the conversation
ROUND = 200
LARGEST_NUMBER = 10_000  # that a template gives to a function: widths and counts
SECONDS = 5.0
OPERATORS = frozenset({"*", "**", "+", "%"})  # those that can make much of little
FORMATS = ("format", "format_map")
GLOBALS = ("range", "dict", "namespace")  # of Jinja's own; `lipsum` and others are left out
# A width of five digits ("%99999d"), one among the values ("%*d"), a nested one ("{:{}}").
WIDTH = re.compile(r"\d{5}|%[^\sa-z%]{0,9}\*|\{[^{}]{0,99}:[^{}]{0,9}\{")
SIZED = (str, bytes, list, tuple, dict)


class Budget:
    """The steps and characters that one rendering has left.

    Args:
        size: Characters of the conversation.

    Raises:
        SecurityError: In `spend` and the calls that use it, below 0 or after SECONDS.
    """

    def __init__(self, size: int) -> None:
        self.left = LEAST_BUDGET + PER_CHARACTER * size
        self.until = time.monotonic() + SECONDS

    def spend(self, amount: int) -> None:
        """Take an amount off."""
        self.left -= amount
        if self.left < 0:
            raise SecurityError("it loops too often or makes too long a text")
        if time.monotonic() > self.until:
            raise SecurityError(f"it takes longer than {SECONDS:.0f} s")

    def made(self, value: Any) -> Any:
        """Charge for a value that the template has made, and return it."""
        self.spend(len(value) if isinstance(value, SIZED) else 1)
        return value

    def size(self, value: Any) -> int:
        """The characters of a value that is written out; counted as far as the budget goes."""
        found = 0
        pending = [value]
        while pending and found <= self.left:
            one = pending.pop()
            found += len(one) if isinstance(one, SIZED) else 1
            if isinstance(one, dict):
                pending += [*one, *one.values()]
            elif isinstance(one, list | tuple):
                pending += one
        return found

    def written(self, value: Any) -> Any:
        """Charge for a value that goes into the text, and return it."""
        self.spend(self.size(value))
        return value


_budget: ContextVar[Budget] = ContextVar("budget")  # of the rendering that runs in this thread


class _Generation(Extension):
    """The tag that marks an assistant's words in templates for training: its body alone counts."""

    tags = {"generation"}  # noqa: RUF012 - as the class above says it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The statements within."""
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox that transformers renders in, with a budget."""

    intercepted_binops = OPERATORS

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            finalize=_written,
        )
        self.globals = {name: self.globals[name] for name in GLOBALS}
        self.globals["raise_exception"] = _refuse
        theirs = self.filters | {"tojson": _as_json}
        ours = {"_round": _round, "_joined": _joined}  # `_bounded` puts them into templates
        self.filters = {name: _paid(function) for name, function in theirs.items()} | ours

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as the class above
        """Any call in a template: of a method, a macro or a function."""
        # Checked before the call: afterwards the memory is spent.
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        _check_size([getattr(method, "__self__", None), *args, *kwargs.values()])
        if getattr(method, "__name__", "") in FORMATS:
            _check_widths(str(getattr(method, "__self__", "")))
        return _budget.get().made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operation that can make much of little: one of OPERATORS."""
        if operator == "**":
            raise SecurityError("it raises to a power")
        if operator == "*" and (isinstance(left, SIZED) or isinstance(right, SIZED)):
            many, few = (left, right) if isinstance(left, SIZED) else (right, left)
            _budget.get().spend(len(many) * max(0, few) if isinstance(few, int) else 1)
        elif operator == "%" and isinstance(left, str):
            _check_widths(left)
            _budget.get().spend(len(left) + _budget.get().size(right))
        elif operator == "*" and max(_bits(left), _bits(right)) > LARGEST_NUMBER:
            raise SecurityError("it multiplies large numbers")
        return _budget.get().made(super().call_binop(context, operator, left, right))


def _bits(value: Any) -> int:
    """The length of a whole number: products of long ones take long."""
    return value.bit_length() if isinstance(value, int) else 0


@pass_context  # also: no constant, which would be paid for once
def _round(_context: Context, amount: int) -> str:
    """Pay for a round of a loop or a call of a macro."""
    _budget.get().spend(amount)
    return ""


def _joined(parts: Sequence[Any]) -> str:
    """The operator ~, whose parts count as written text."""
    return "".join(str(_written(part)) for part in parts)


def _written(value: Any) -> Any:
    """Charge for a value that goes into the text, and return it: Jinja's `finalize`."""
    return _budget.get().written(value)


def _paid(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments are checked and whose result is charged for."""

    @functools.wraps(function)
    def paid_filter(*args: Any, **kwargs: Any) -> Any:
        _check_size([*args, *kwargs.values()])
        if function is do_format:
            _check_widths(str(args[0]))
        made = function(*args, **kwargs)
        # A generator has made nothing yet: it pays value by value.
        return _budget.get().made(_charged(made) if hasattr(made, "__next__") else made)

    return paid_filter


def _charged(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        _budget.get().spend(1)
        yield value


def _check_size(given: Sequence[Any]) -> None:
    """Refuse arguments of which a function could make more than the budget has left.

    What it makes has at most the product of their sizes: `replace`, `join`, `center`.
    """
    most = 1
    budget = _budget.get()
    for value in given:
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise SecurityError(
                f"it gives {value!r:.20} to a function, the limit is {LARGEST_NUMBER}"
            )
        if isinstance(value, SIZED):
            most *= max(1, budget.size(value))
    if most > budget.left:
        raise SecurityError("it makes too long a text")


def _check_widths(form: str) -> None:
    """Refuse a form such as "%1000000000d", and one whose width is among the values."""
    if WIDTH.search(form):
        raise SecurityError("it formats with a large number")


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _as_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _bounded(tree: nodes.Template) -> nodes.Template:
    """The template with a payment in each loop and macro, and with joined texts counted."""
    kinds = (nodes.For, nodes.Macro, nodes.CallBlock)
    found: list[Any] = [node for kind in kinds for node in tree.find_all(kind)]
    for node in found:
        # Fixed text passes no filter: it is paid for with the round.
        size = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        paid = nodes.Filter(nodes.Const(ROUND + size), "_round", [], [], None, None)
        node.body.insert(0, nodes.Output([paid]))
    _replace_concats(tree)
    return tree


def _replace_concats(node: nodes.Node) -> None:
    """Replace each operator ~ beneath a node, which Jinja does not intercept, by `_joined`."""
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Concat):
            setattr(node, field, _as_joined(value))
        elif isinstance(value, list):
            value[:] = [
                _as_joined(inner) if isinstance(inner, nodes.Concat) else inner for inner in value
            ]
    for inner in node.iter_child_nodes():
        _replace_concats(inner)


def _as_joined(concat: nodes.Concat) -> nodes.Filter:
    return nodes.Filter(
        nodes.List(concat.nodes), "_joined", [], [], None, None, lineno=concat.lineno
    )


@functools.lru_cache(maxsize=16)  # each question renders the template of the same model
def _compiled(template: str) -> Template:
    """The template, parsed and with payments.

    Raises:
        TemplateError: Its syntax is wrong, or it is too long (SecurityError).
    """
    if len(template) > LONGEST_TEMPLATE:
        raise SecurityError(
            f"it has {len(template):,} characters, the limit is {LONGEST_TEMPLATE:,}"
        )
    environment = _Environment()
    tree = _bounded(environment.parse(template))
    tree.set_environment(environment)
    return environment.from_string(tree)


def render_template(
    template: str, messages: Sequence[Mapping[str, str]], day: str, **given: Any
) -> str:
    """The prompt that a chat template makes of messages, as transformers' `apply_chat_template`
    does.

    Args:
        template: Jinja, of whatever origin.
        messages: {"role", "content"} each.
        day: What `strftime_now` gives, whatever it is asked for.
        given: Other names that the template knows.

    Returns:
        The text of the prompt.

    Raises:
        TemplateError: It refuses the messages, fails, or goes beyond its bounds (SecurityError).
    """
    token = _budget.set(Budget(sum(len(m["content"]) for m in messages)))
    names = {
        "messages": [dict(m) for m in messages],
        "tools": None,
        "documents": None,
        "strftime_now": lambda _form: day,
    }
    try:
        return _compiled(template).render(**names, **given)
    except TemplateError:
        raise
    except (RecursionError, MemoryError) as error:
        raise SecurityError("it calls itself too often or makes too long a text") from error
    except (
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        AttributeError,
        SyntaxError,
    ) as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error
    finally:
        _budget.reset(token)
