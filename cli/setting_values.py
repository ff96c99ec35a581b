"""Settings as a command line gives them: NAME=VALUE, and the value of one. Opens no memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

import cmt_sdk
from cmt_cli.local_model import device_warning, model_warning, resolve_adapter, resolve_model
from cmt_sdk.errors import InvalidSetting

RESOLVED: Mapping[str, Callable[[str], str]] = {"model": resolve_model, "adapter": resolve_adapter}
WARNINGS: Mapping[str, Callable[[str], str]] = {"model": model_warning, "device": device_warning}


def parse_setting(name: str, text: str) -> Any:
    """Convert the text to the type of the setting; paths become absolute.

    Raises:
        InvalidSetting: The text is no value of the setting.
    """
    if name in RESOLVED:
        return RESOLVED[name](text)
    return cmt_sdk.Settings.parse(name, text)


def setting_warning(name: str, value: Any) -> str:
    """Return a warning if a value cannot be used on this machine yet; "" if it can."""
    return WARNINGS[name](value) if name in WARNINGS else ""


def _settings(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, equals, text in (pair.partition("=") for pair in pairs):
        if not equals:
            raise click.BadParameter(f"{name!r}: write NAME=VALUE")
        if name not in cmt_sdk.Settings.names():
            raise click.BadParameter(
                f"{name!r}: choose one of {', '.join(cmt_sdk.Settings.names())}"
            )
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice: a setting has one value")
        try:
            found[name] = parse_setting(name, text)
        except InvalidSetting as error:
            raise click.BadParameter(str(error)) from error
    return found


set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_settings,
    help="Set a setting of the memory (repeatable); `cmt config` lists them.",
)
