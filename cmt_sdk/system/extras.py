"""Errors for an optional dependency that cannot be imported: missing, too old, or broken.

Knows the versions that this package declares and those that are installed; imports none of them.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from cmt_sdk.errors import MissingExtra

if TYPE_CHECKING:  # needed once an import has failed
    from packaging.requirements import Requirement

PACKAGE = "cmt-sdk"


def unusable(feature: str, extra: str, error: ImportError) -> MissingExtra:
    """The error for `feature` after an import of what `extra` brings raised `error`.

    Where a package of the extra is missing, it says to install the extra. Where one has a version
    that the extra does not allow, it names that version, the one that is needed and the command.
    Where all are as declared, it repeats `error`.
    """
    needed = _requirements(extra)
    found = {r.name: _version(r.name) for r in needed}
    if None in found.values() or (not needed and isinstance(error, ModuleNotFoundError)):
        return MissingExtra(feature, extra)
    wrong = [r for r in needed if not r.specifier.contains(found[r.name] or "", prereleases=True)]
    if wrong:
        needs = ", ".join(f"{r.name}{r.specifier} ({found[r.name]} is installed)" for r in wrong)
        command = " ".join(f"'{r.name}{r.specifier}'" for r in wrong)
        return MissingExtra(feature, extra, f"needs {needs}: pip install {command}")
    here = ", ".join(f"{name} {version}" for name, version in found.items()) or f"the extra {extra}"
    return MissingExtra(
        feature,
        extra,
        f"cannot be imported, though {here} is installed ({error}): update both, pip install"
        f" '{PACKAGE}[{extra}]' --upgrade",
    )


def _requirements(extra: str) -> list[Requirement]:
    """The requirements of an extra; empty where this package runs without being installed."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires(PACKAGE) or []]
    except metadata.PackageNotFoundError:
        return []
    return [r for r in declared if r.marker and _is_of(r, extra) and not _is_of(r, "")]


def _is_of(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is not None and requirement.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
