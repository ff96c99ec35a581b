"""The registry of compression methods: what must be known of each one before the model is loaded.

The code of a method is one class in one file, such as cmt_sdk/neural/methods/kv.py; see
neural.methods.base for its protocol. Loads no tensor code and knows no method but by its row here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from cmt_sdk.errors import InvalidSetting

DEFAULT_METHOD = "kv"


class MethodSettings(Protocol):
    """The settings that decide how many entries a memory has: see config.Settings."""

    @property
    def keep(self) -> float:
        """The share of KV entries kept."""

    @property
    def keep_at_least(self) -> int:
        """Tokens whose KV entries are kept in any case."""

    @property
    def tokens_per_entry(self) -> float:
        """Tokens of text per soft token."""


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """A compression method as the settings and the planning of a prompt see it.

    Attributes:
        implementation: "module:class" of its neural.methods.base.CompressionMethod, imported when
            the model is first needed.
        share: Context entries that a passage takes per token, of the settings and the passage's
            tokens; for the budget of a prompt.
        uses: Settings that other methods do not use, each with the reason for a method without it.
        compressions: The compressions that it supports; empty for any from 1 to 100.
        compression: The one that fits a model with an encoder trained for it.
        untrained_compression: The one that fits a model without.
        default_rerank: Passages of a search that the model reranks where the settings do not say.
        max_rerank: The most passages to rerank; 0 where compressed passages cannot be read one by
            one.
        needs_training: Whether the answers are unreliable without adapters trained for the method.
        lender: The method whose adapters it uses where none were trained for it, and whose parts
            that find passages.
        has_graph: Whether the package `cpu` reads its passages too, with onnxruntime.
        copy_margin: Where the settings do not say, answers are copied from the texts within this
            margin in nats (types.CopiedTexts); None: they are not. For `kv`, 600 questions of
            squad_dev_tail with their own passage, paired with a free answer: within 4 nats F1 +0.9
            (95 % interval 0.0 to +1.9), exact +2.0 (+0.8 to +3.3); always F1 +0.7 (-0.3 to +1.8),
            exact +2.0 (+0.8 to +3.3), but then no answer has words of its own.
        copies_from_one: Whether they are copied from the best passage, read alone, where that
            answers. From five passages of `soft` F1 was 38.0, from the best one 42.2 (4x, 100
            passages, 200 questions; paired +4.2, 95 % interval -0.2 to +8.8; exact +6.5, +2.0 to
            +11.0).
    """

    implementation: str
    share: Callable[[MethodSettings, int], float]
    uses: Mapping[str, str] = field(default_factory=dict)
    compressions: tuple[int, ...] = ()
    compression: float = 4
    untrained_compression: float = 4
    default_rerank: int = 0
    max_rerank: int = 2**31
    needs_training: bool = False
    lender: str = DEFAULT_METHOD
    has_graph: bool = False
    copy_margin: float | None = None
    copies_from_one: bool = False

    def load(self) -> Any:
        """Import the class; `create` makes the method for a model."""
        module, _, name = self.implementation.partition(":")
        return getattr(import_module(module), name)


def kv_fingerprint(keep: float, at_least: int) -> Mapping[str, Any]:
    """The part of a fingerprint that "kv" adds.

    Args:
        keep: The share of KV entries kept.
        at_least: Tokens whose KV entries are kept in any case.
    """
    return {"compressor": "kv", "keep": keep, "keep_at_least": at_least}


def kept_share(tokens: int, keep: float, at_least: int) -> float:
    """The share of its KV entries that a passage of `tokens` tokens keeps: `keep`, or the share
    that `at_least` tokens are.
    """
    return max(keep, min(1.0, at_least / max(1, tokens)))


def _kv_share(settings: MethodSettings, tokens: int) -> float:
    return kept_share(tokens, settings.keep, settings.keep_at_least)


def _soft_share(settings: MethodSettings, _tokens: int) -> float:
    return 1 / settings.tokens_per_entry


GATHERS = {"aggregation": "it gathers the passages of compressor='soft'"}
TRAINED = (4, 8, 16)  # the compressions that soft is trained for
# The key is the value of the setting `compressor`, or "compressor:aggregation" where the setting
# `aggregation` is not "concat".
_methods = {
    "kv": MethodInfo(
        "cmt_sdk.neural.methods.kv:KVMethod",
        _kv_share,
        compression=3,
        untrained_compression=1.5,
        uses={
            "keep_at_least": "only compressor='kv' keeps entries of the KV cache",
            "scores": "only compressor='kv' chooses entries of the KV cache",
            "codec": "only compressor='kv' stores entries of the KV cache",
            "fidelity": "only the passages of compressor='kv' are measured",
        },
        default_rerank=10,
        has_graph=True,
        copy_margin=4.0,
    ),
    "soft": MethodInfo(
        "cmt_sdk.neural.methods.soft:SoftMethod",
        _soft_share,
        uses=GATHERS,
        compressions=TRAINED,
        needs_training=True,
        copy_margin=math.inf,
        copies_from_one=True,
    ),
    "soft:cmt": MethodInfo(
        "cmt_sdk.neural.methods.aggregation:AggregatedMethod",
        _soft_share,
        uses=GATHERS,
        compressions=TRAINED,
        max_rerank=0,
        needs_training=True,
        copy_margin=math.inf,
    ),
}


def register(name: str, info: MethodInfo) -> None:
    """Make a method a value of the setting `compressor`.

    Raises:
        InvalidSetting: There is a method of this name.
    """
    if name in _methods:
        raise InvalidSetting(f"method {name!r}: there is one of this name; choose another name")
    _methods[name] = info


def unregister(name: str) -> None:
    """Take a method back that `register` added."""
    del _methods[name]


def method_names() -> tuple[str, ...]:
    """The values of the setting `compressor`."""
    return tuple(name for name in _methods if ":" not in name)


def specific_settings() -> dict[str, str]:
    """The settings that some methods do not use, each with the reason to refuse it there."""
    return {name: why for info in _methods.values() for name, why in info.uses.items()}


def find_method(compressor: str, aggregation: str = "concat") -> MethodInfo:
    """The method that the settings `compressor` and `aggregation` name.

    Raises:
        InvalidSetting: There is none.
    """
    if compressor not in _methods:
        raise InvalidSetting(
            f"compressor={compressor!r}: choose one of {', '.join(method_names())}"
        )
    if aggregation == "concat":
        return _methods[compressor]
    found = _methods.get(f"{compressor}:{aggregation}")
    if found is None:
        able = [name.split(":")[0] for name in _methods if name.endswith(f":{aggregation}")]
        raise InvalidSetting(
            f"aggregation={aggregation!r}: it gathers the passages of"
            f" compressor={' or '.join(map(repr, able))}; choose that too, or"
            " aggregation='concat'"
        )
    return found
