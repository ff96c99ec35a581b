"""Settings as a memory records them: what was asked for, and the compression fitted to its model.

A memory made with `compression=None` keeps the number that was chosen for its model, also when
adapters for that model appear later. Another model, adapter or compressor needs another number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from cmt_sdk.config.methods import DEFAULT_METHOD
from cmt_sdk.config.settings import Settings

FITTED = "fitted"  # the name of the record of a fitted compression, next to the settings
# settings that fit one machine: no copy has them
LOCAL = (
    "device",
    "runtime",
    "generator",
    "generator_model",
    "generator_timeout",
    "objects",
    "object_cache",
)
FITTED_TO = ("model", "adapter", "compressor")  # the settings that a compression is fitted to


def asked(recorded: Mapping[str, Any], changes: Mapping[str, Any]) -> Settings:
    """The recorded settings with changes; `compression` is None where none was asked for.

    Earlier releases recorded codec="4bit", their default, for every compressor: it holds for one
    that uses it.

    Args:
        recorded: What the memory records.
        changes: Values that replace recorded ones, by name.

    Raises:
        InvalidSetting: A name that no setting has, or a bad value.
    """
    values = Settings.from_recorded(recorded)
    values.pop(FITTED, None)
    if {**values, **changes}.get("compressor", DEFAULT_METHOD) != DEFAULT_METHOD:
        values.pop("codec", None)
    return Settings.checked({**values, **changes})


def recalled(settings: Settings, recorded: Mapping[str, Any]) -> Settings:
    """The settings with the recorded fitted compression, where one is fitted to them.

    Args:
        settings: The settings that `asked` returns.
        recorded: What the memory records.
    """
    fitted = recorded.get(FITTED)
    if settings.compression is not None or not isinstance(fitted, Mapping):
        return settings
    if any(fitted.get(name) != getattr(settings, name) for name in FITTED_TO):
        return settings
    return replace(settings, compression=fitted.get("compression"))


def portable(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded settings that a copy of the memory has too: those that fit one machine are left
    out, and those that this release does not know.
    """
    known = {FITTED, "keep", *Settings.names()} - set(LOCAL)
    return {name: value for name, value in recorded.items() if name in known}


def record(settings: Settings, fitted: Settings) -> dict[str, Any]:
    """What a memory records.

    Args:
        settings: The settings as asked for.
        fitted: The settings of this opening, with the compression that fits its model.
    """
    to = {name: getattr(fitted, name) for name in (*FITTED_TO, "compression")}
    is_fitted = settings.compression is None and fitted.compression is not None
    is_same = all(to[name] == getattr(settings, name) for name in FITTED_TO)
    return asdict(settings) | ({FITTED: to} if is_fitted and is_same else {})
